//! HTTPS, as curl sees it.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use ticketd_testing::*;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::TICKETD;

pub(crate) const HOSTS: &[&str] = &["localhost", "127.0.0.1"];

/// How long a silent client may hold the way to a handshake, and a little more.
const SILENCE: Duration = Duration::from_secs(12);

/// What curl printed, and the code it ended with.
#[derive(Debug)]
pub(crate) struct Curled {
    pub(crate) code: i32,
    pub(crate) out: String,
}

/// Runs curl.
pub(crate) async fn curl(args: &[&str]) -> Curled {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "30"]);
    curl.args(args);
    let output = tokio::task::spawn_blocking(move || curl.output());
    let output = output.await.unwrap().expect("curl is installed");
    let out = [output.stdout, output.stderr].concat();
    Curled {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(out).unwrap(),
    }
}

fn url(address: SocketAddr, path: &str) -> String {
    format!("https://localhost:{}{path}", address.port())
}

/// Settings for HTTPS with the certificate of that name.
fn settings(certificates: &Certificates, name: &str) -> Vec<(&'static str, String)> {
    vec![
        ("TLS_CERT", certificates.path(&format!("{name}.pem"))),
        ("TLS_KEY", certificates.path(&format!("{name}.key"))),
        ("ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
    ]
}

/// A `serve` that speaks HTTPS and publishes.
async fn start(place: &Namespace, settings: &[(&'static str, String)]) -> Process {
    let settings: Vec<_> = settings
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let process = place.start("serve", &settings);
    process.logged("publishing to RabbitMQ").await;
    process
}

/// A ticket is taken over HTTPS, on one connection for many requests, with large ones among them;
/// what is not HTTPS is told so; the admin listener speaks HTTPS, too, and so does the health check.
#[tokio::test]
async fn tickets_are_taken_over_https() {
    let place = Namespace::new(TICKETD).await;
    let tls = Certificates::new();
    tls.server("host", HOSTS);
    // So that rows can be looked for as soon as it takes tickets.
    place.run(&["migrate"], &[]).await;
    let settings = settings(&tls, "host");
    let mut ticketd = start(&place, &settings).await;
    let address = ticketd.address("LISTEN").await;
    let large = tls.path("large");
    fs::write(&large, "x".repeat(60_000)).unwrap();
    let small = tls.path("small");
    fs::write(&small, EXAMPLE).unwrap();

    let ca = tls.path("ca.pem");
    let mut args = Vec::new();
    let shown = "\n%{http_code} %{num_connects}\n";
    let url = url(address, "/ticket?[1-5]");
    for body in [&large, &small, &large, &small] {
        if !args.is_empty() {
            args.push("--next".to_owned());
        }
        let body = format!("@{body}");
        let once = ["--cacert", &ca, "-w", shown, "--data-binary", &body, &url];
        args.extend(once.map(str::to_owned));
    }
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let curled = curl(&args).await;
    let answers: Vec<_> = curled
        .out
        .lines()
        .filter(|l| l.starts_with("202 "))
        .collect();
    assert_eq!(answers.len(), 20, "{curled:?}");
    let connections = answers.iter().filter(|line| **line == "202 1").count();
    assert_eq!(connections, 1, "{curled:?}");
    place.stored(20).await;

    let plain = ask_once(address, &get("/livez"), DEADLINE).await.unwrap();
    let problem = plain.problem(400);
    assert!(problem.contains("TLS_CERT"), "{problem}");

    let admin = ticketd.address("ADMIN_LISTEN").await;
    let metrics = format!("https://127.0.0.1:{}/metrics", admin.port());
    let metrics = curl(&["--cacert", &ca, &metrics]).await;
    let count = |result| {
        let series = format!("ticketd_tls_handshakes_total{{result=\"{result}\"}}");
        metric(&metrics.out, &series)
    };
    assert_eq!(count("done"), Some(2.0), "{metrics:?}");
    assert_eq!(count("failed"), Some(1.0), "{metrics:?}");

    for setting in ["LISTEN", "ADMIN_LISTEN"] {
        let address = ticketd.address(setting).await.to_string();
        let mut settings = settings.clone();
        settings.retain(|(name, _)| *name != "ADMIN_LISTEN");
        settings.push((setting, address));
        let ended = Process::run(TICKETD, &["healthcheck"], &settings).await;
        assert_eq!(ended.code(), Some(0), "{}", ended.log);
    }
    ticketd.drained().await;
}

/// With TLS_CLIENT_CA only clients with a certificate of that CA are served; probes need none.
#[tokio::test]
async fn clients_show_their_certificates() {
    let place = Namespace::new(TICKETD).await;
    let (tls, others) = (Certificates::new(), Certificates::new());
    tls.server("host", HOSTS);
    tls.client("till-7");
    others.client("till-8");
    let mut settings = settings(&tls, "host");
    settings.push(("TLS_CLIENT_CA", tls.path("ca.pem")));
    let mut ticketd = start(&place, &settings).await;
    let ca = tls.path("ca.pem");
    let url = url(ticketd.address("LISTEN").await, "/livez");
    let ask = async |who: Option<(&Certificates, &str)>| {
        let who = who.map(|(of, name)| {
            let file = |kind| of.path(&format!("{name}.{kind}"));
            [file("pem"), file("key")]
        });
        let mut args = vec!["--cacert", &ca, &url];
        if let Some([pem, key]) = &who {
            args.extend(["--cert", pem, "--key", key]);
        }
        curl(&args).await.code
    };
    assert_eq!(ask(Some((&tls, "till-7"))).await, 0);
    assert_ne!(ask(None).await, 0, "without a certificate");
    assert_ne!(ask(Some((&others, "till-8"))).await, 0, "another CA's");
    // Signed by the right CA, but as a server.
    assert_ne!(ask(Some((&tls, "host"))).await, 0, "a server's");

    let admin = ticketd.address("ADMIN_LISTEN").await;
    let livez = format!("https://127.0.0.1:{}/livez", admin.port());
    let probe = curl(&["--cacert", &ca, &livez]).await;
    assert_eq!(probe.code, 0, "{probe:?}");
    let listen = ticketd.address("LISTEN").await.to_string();
    settings.retain(|(name, _)| *name != "ADMIN_LISTEN");
    settings.push(("LISTEN", listen));
    let ended = Process::run(TICKETD, &["healthcheck"], &settings).await;
    assert_eq!(ended.code(), Some(0), "{}", ended.log);
}

/// SIGHUP replaces the certificate under load: no request fails, not on a connection that is kept
/// nor on a new one; a wrong file changes nothing and is named, and what is in it is not shown.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_replaced_under_load() {
    let place = Namespace::new(TICKETD).await;
    let (tls, next) = (Certificates::new(), Certificates::new());
    tls.server("host", HOSTS);
    tls.server("other", HOSTS);
    next.server("host", HOSTS);
    let mut ticketd = start(&place, &settings(&tls, "host")).await;
    let address = ticketd.address("LISTEN").await;
    // Both CAs, as clients have them while one is replaced by the other.
    let both = tls.path("both.pem");
    let cas = [&tls, &next].map(|of| fs::read(of.path("ca.pem")).unwrap());
    fs::write(&both, cas.concat()).unwrap();
    let body = tls.path("body");
    fs::write(&body, EXAMPLE).unwrap();

    let load = |requests: u32, header: &'static str| {
        let (both, body, url) = (both.clone(), format!("@{body}"), url(address, ""));
        tokio::spawn(async move {
            let url = format!("{url}/ticket?[1-{requests}]");
            let shown = "\n%{http_code}\n";
            let args = ["--cacert", &both, "-w", shown, "-H", header];
            let curled = curl(&[&args[..], &["--data-binary", &body, &url]].concat()).await;
            let taken = curled.out.lines().filter(|line| *line == "202").count();
            assert_eq!((curled.code, taken), (0, requests as usize), "{curled:?}");
        })
    };
    let loads = [
        load(1500, "x-kept: yes"),
        load(1500, "x-kept: yes"),
        load(250, "connection: close"),
    ];
    let certificates = [(&next, "host"), (&tls, "other")].into_iter().cycle();
    for (by, replaced) in certificates.zip(0..) {
        if loads.iter().all(tokio::task::JoinHandle::is_finished) && replaced >= 4 {
            break;
        }
        tls.replace("host", by);
        ticketd.signal("HUP");
        let again = || ticketd.log().matches("were read again").count();
        wait_until("read again", async || again() > replaced).await;
    }
    for load in loads {
        load.await.unwrap();
    }

    let is_shown = async |of: &Certificates| {
        let ca = of.path("ca.pem");
        curl(&["--cacert", &ca, &url(address, "/livez")]).await.code == 0
    };
    tls.replace("host", (&next, "host"));
    ticketd.signal("HUP");
    wait_until("the new certificate", async || is_shown(&next).await).await;
    assert!(!is_shown(&tls).await);

    let key = fs::read_to_string(tls.path("other.key")).unwrap();
    fs::write(tls.path("host.key"), &key).unwrap();
    ticketd.signal("HUP");
    ticketd.logged("it is not the key of TLS_CERT").await;
    fs::write(
        tls.path("host.pem"),
        key.replace("KEY", "CERTIFICATE-----\nx"),
    )
    .unwrap();
    ticketd.signal("HUP");
    ticketd.logged("there is no certificate (PEM) in it").await;
    assert!(is_shown(&next).await, "the old one stays in use");
    let secret = key.lines().nth(1).unwrap();
    assert!(!ticketd.log().contains(secret));
    ticketd.drained().await;
}

/// Clients that connect and say nothing, or the beginning of a handshake, keep nobody out and are
/// closed in time; a shutdown does not wait for them.
#[tokio::test(flavor = "multi_thread")]
async fn silent_clients_keep_nobody_out() {
    const SILENT: usize = 1500;
    let place = Namespace::new(TICKETD).await;
    let tls = Certificates::new();
    tls.server("host", HOSTS);
    let mut ticketd = start(&place, &settings(&tls, "host")).await;
    let address = ticketd.address("LISTEN").await;
    let (ca, url) = (tls.path("ca.pem"), url(address, "/livez"));
    let mut silent = Vec::new();
    for number in 0..SILENT {
        let mut stream = TcpStream::connect(address).await.unwrap();
        if number % 2 == 0 {
            // The beginning of a record that promises more.
            stream.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
        }
        silent.push(stream);
        if number % 300 == 299 {
            let asked = Instant::now();
            let curled = curl(&["--cacert", &ca, &url]).await;
            assert_eq!(curled.code, 0, "{curled:?}");
            assert!(
                asked.elapsed() < Duration::from_secs(2),
                "{:?}",
                asked.elapsed()
            );
        }
    }
    let started = Instant::now();
    for stream in &silent {
        let mut byte = [0];
        let left = SILENCE.saturating_sub(started.elapsed());
        let ended = async {
            // An alert may come first.
            while let Ok(1) = stream
                .readable()
                .await
                .and_then(|()| stream.try_read(&mut byte))
            {}
        };
        tokio::time::timeout(left + Duration::from_secs(1), ended)
            .await
            .expect("closed in time");
    }
    let admin = ticketd.address("ADMIN_LISTEN").await;
    let metrics = format!("https://127.0.0.1:{}/metrics", admin.port());
    let metrics = curl(&["--cacert", &ca, &metrics]).await.out;
    let count = |result| {
        let series = format!("ticketd_tls_handshakes_total{{result=\"{result}\"}}");
        metric(&metrics, &series).unwrap()
    };
    assert!(
        count("displaced") > 0.0 && count("timeout") > 0.0,
        "{metrics}"
    );

    let _silent = TcpStream::connect(address).await.unwrap();
    let asked = Instant::now();
    ticketd.drained().await;
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
}

/// Wrong files stop the start, with the setting, the file, and no more of what is in it.
#[tokio::test]
async fn wrong_files_stop_the_start() {
    let tls = Certificates::new();
    tls.server("host", HOSTS);
    tls.server("other", HOSTS);
    let (pem, key) = (tls.path("host.pem"), tls.path("host.key"));
    let torn = tls.path("torn");
    let text = fs::read_to_string(&key).unwrap();
    fs::write(&torn, text.split_at(text.len() / 2).0).unwrap();
    let (nothing, folder) = (tls.path("nothing"), tls.path(""));
    let other = tls.path("other.key");
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[("TLS_CERT", &nothing), ("TLS_KEY", &key)], "TLS_CERT"),
        (&[("TLS_CERT", &folder), ("TLS_KEY", &key)], "TLS_CERT"),
        (&[("TLS_CERT", &key), ("TLS_KEY", &key)], "TLS_CERT"),
        (&[("TLS_CERT", &pem), ("TLS_KEY", &nothing)], "TLS_KEY"),
        (&[("TLS_CERT", &pem), ("TLS_KEY", &pem)], "TLS_KEY"),
        (&[("TLS_CERT", &pem), ("TLS_KEY", &torn)], "TLS_KEY"),
        (&[("TLS_CERT", &pem), ("TLS_KEY", &other)], "TLS_KEY"),
        (&[("TLS_CERT", &pem), ("TLS_KEY", "/dev/zero")], "TLS_KEY"),
        (&[("TLS_CERT", &pem)], "--tls-key"),
        (&[("TLS_KEY", &key)], "--tls-cert"),
        (&[("TLS_CLIENT_CA", &pem)], "--tls-cert"),
        (
            &[
                ("TLS_CERT", &pem),
                ("TLS_KEY", &key),
                ("TLS_CLIENT_CA", &key),
            ],
            "TLS_CLIENT_CA",
        ),
        (
            &[
                ("TLS_CERT", &pem),
                ("TLS_KEY", &key),
                ("TLS_CLIENT_CA", &nothing),
            ],
            "TLS_CLIENT_CA",
        ),
    ];
    for (settings, named) in cases {
        let mut settings = settings.to_vec();
        settings.push(("LISTEN", "127.0.0.1:0"));
        let ended = Process::run(TICKETD, &["accept"], &settings).await;
        assert_ne!(ended.code(), Some(0), "{settings:?}");
        assert!(ended.log.contains(named), "{settings:?}: {}", ended.log);
        let secret = text.lines().nth(1).unwrap();
        assert!(!ended.log.contains(secret.split_at(8).0), "{}", ended.log);
    }
}

/// A certificate that has expired is used, as there is no better one, but not in silence.
#[tokio::test]
async fn an_expired_certificate_is_told_of() {
    let place = Namespace::new(TICKETD).await;
    let tls = Certificates::new();
    tls.expired("host", HOSTS);
    let ticketd = start(&place, &settings(&tls, "host")).await;
    assert!(
        ticketd.log().contains("the certificate has expired"),
        "{}",
        ticketd.log()
    );
}
