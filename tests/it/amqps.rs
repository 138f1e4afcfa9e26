//! TLS to RabbitMQ, and what is on the way to both servers then.

use std::sync::{Arc, Mutex};

use ticketd_testing::servers::{amqps_url, stack_certificate};
use ticketd_testing::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::TICKETD;
use crate::openssl::OpensslServer;

/// Settings of one case.
type Settings<'a> = &'a [(&'a str, &'a str)];

/// A way to a server on which everything is listened in on.
struct Tap {
    port: u16,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    async fn on(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::<Mutex<Vec<u8>>>::default();
        let ear = heard.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(pass(from_client, to_server, ear.clone()));
                tokio::spawn(pass(from_server, to_client, ear.clone()));
            }
        });
        Self { port, heard }
    }

    fn has_heard(&self, text: &str) -> bool {
        let heard = self.heard.lock().unwrap();
        heard.windows(text.len()).any(|at| at == text.as_bytes())
    }
}

async fn pass(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    heard: Arc<Mutex<Vec<u8>>>,
) {
    let mut piece = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        heard.lock().unwrap().extend_from_slice(&piece[..count]);
        if to.write_all(&piece[..count]).await.is_err() {
            return;
        }
    }
}

fn port(url: &str) -> u16 {
    let (_, rest) = url.rsplit_once(':').unwrap();
    let digits = rest.split(['/', '?']).next().unwrap();
    digits.parse().unwrap()
}

/// The URL, by another port.
fn by(url: &str, to: u16) -> String {
    url.replace(&format!(":{}/", port(url)), &format!(":{to}/"))
}

/// A ticket is stored over TLS, and nothing of it nor of a login is to be heard on the way; over
/// plain links all of that is, so that listening in is known to work.
#[tokio::test]
async fn nothing_is_to_be_heard_on_the_way() {
    let place = Namespace::new(TICKETD).await;
    let ca = stack_certificate("ca.pem");
    let database = place.database_url();
    for is_encrypted in [true, false] {
        let (amqp, database) = if is_encrypted {
            let mode = format!("sslmode=verify-full&sslrootcert={ca}");
            let database = database.replace("sslmode=disable", &mode);
            (amqps_url(), database.replace("127.0.0.1", "localhost"))
        } else {
            (place.amqp_url(), database.clone())
        };
        let (broker, tables) = (Tap::on(port(&amqp)).await, Tap::on(port(&database)).await);
        let (amqp, database) = (by(&amqp, broker.port), by(&database, tables.port));
        let mut settings = vec![("AMQP_URL", amqp.as_str()), ("DATABASE_URL", &database)];
        if is_encrypted {
            settings.push(("AMQP_TLS_CA", &ca));
        }
        let mut ticketd = place.ready("serve", &settings).await;
        let order = format!("to be heard {is_encrypted}");
        let text = EXAMPLE.replacen("123456", &order, 1);
        assert_ne!(text, EXAMPLE);
        let id = place
            .accepted(&mut ticketd.client().await, &[], &text)
            .await;
        place.row(id).await;
        for (tap, login) in [(&broker, "guest"), (&tables, "ticketd")] {
            assert_eq!(tap.has_heard(&order), !is_encrypted);
            assert_eq!(tap.has_heard(login), !is_encrypted);
            assert!(!tap.heard.lock().unwrap().is_empty());
        }
        ticketd.drained().await;
    }
}

/// Whatever is wrong with TLS is in the log of the attempt, with the setting that it is about.
#[tokio::test]
async fn what_is_wrong_names_its_setting() {
    let others = Certificates::new();
    others.client("stranger");
    others.expired("localhost", &["localhost"]);
    let expired = OpensslServer::start(&others, "localhost").await;
    let [ca, pem, key] = ["ca.pem", "certified.pem", "certified.key"].map(stack_certificate);
    let strange = |file| others.path(file);
    let (tls, plain) = (amqps_url(), servers::Servers::of_environment().amqp_url);
    let by_address = tls.replace("localhost", "127.0.0.1");
    let (to_plain, to_tls) = (by(&tls, port(&plain)), by(&plain, port(&tls)));
    let one_is_right = [by_address.as_str(), &tls].join(",");
    let (to_expired, other_ca) = (by(&tls, expired.port), strange("ca.pem"));
    let (stranger, strangers_key) = (strange("stranger.pem"), strange("stranger.key"));
    let cases: &[(&str, Settings<'_>, &str)] = &[
        (&tls, &[("AMQP_TLS_CA", &ca)], "publishing to RabbitMQ"),
        (
            &tls,
            &[
                ("AMQP_TLS_CA", &ca),
                ("AMQP_TLS_CERT", &pem),
                ("AMQP_TLS_KEY", &key),
            ],
            "publishing to RabbitMQ",
        ),
        (
            &tls,
            &[("AMQP_TLS_CA", &other_ca)],
            "is of no CA in AMQP_TLS_CA",
        ),
        (&tls, &[], "AMQP_TLS_CA is not set"),
        (
            &by_address,
            &[("AMQP_TLS_CA", &ca)],
            "other host names than that of AMQP_URL",
        ),
        // Each server is checked by its own name.
        (
            &one_is_right,
            &[("AMQP_TLS_CA", &ca)],
            "publishing to RabbitMQ",
        ),
        (
            &to_expired,
            &[("AMQP_TLS_CA", &other_ca)],
            "certificate has expired",
        ),
        (
            &to_plain,
            &[("AMQP_TLS_CA", &ca)],
            "no TLS on the port of AMQP_URL",
        ),
        (&to_tls, &[], "AMQP_URL has to begin with amqps://"),
        (
            &tls,
            &[
                ("AMQP_TLS_CA", &ca),
                ("AMQP_TLS_CERT", &stranger),
                ("AMQP_TLS_KEY", &strangers_key),
            ],
            "see AMQP_TLS_CERT",
        ),
    ];
    let place = Namespace::new(TICKETD).await;
    for (url, settings, said) in cases {
        let settings = [settings, &[("AMQP_URL", *url)][..]].concat();
        let ticketd = place.start("accept", &settings);
        ticketd.logged(said).await;
        assert!(!ticketd.log().contains("guest"), "{}", ticketd.log());
    }
}

/// Files that are wrong, and files that would be of no use, stop the start.
#[tokio::test]
async fn wrong_files_stop_the_start() {
    let tls = Certificates::new();
    tls.client("one");
    tls.client("two");
    let path = |file| tls.path(file);
    let (none, pem, key, other) = (
        path("none"),
        path("one.pem"),
        path("one.key"),
        path("two.key"),
    );
    let cases: &[(&str, Settings<'_>, i32, &str)] = &[
        ("amqps://h", &[("AMQP_TLS_CA", &none)], 1, "AMQP_TLS_CA"),
        ("amqps://h", &[("AMQP_TLS_CA", &key)], 1, "AMQP_TLS_CA"),
        (
            "amqps://h",
            &[("AMQP_TLS_CERT", &none), ("AMQP_TLS_KEY", &key)],
            1,
            "AMQP_TLS_CERT",
        ),
        (
            "amqps://h",
            &[("AMQP_TLS_CERT", &pem), ("AMQP_TLS_KEY", &pem)],
            1,
            "AMQP_TLS_KEY",
        ),
        (
            "amqps://h",
            &[("AMQP_TLS_CERT", &pem), ("AMQP_TLS_KEY", &other)],
            1,
            "AMQP_TLS_KEY",
        ),
        ("amqps://h", &[("AMQP_TLS_CERT", &pem)], 2, "--amqp-tls-key"),
        ("amqp://h", &[("AMQP_TLS_CA", &pem)], 2, "amqps://"),
        ("amqp://h,amqp://g", &[("AMQP_TLS_CA", &pem)], 2, "amqps://"),
    ];
    let secret = std::fs::read_to_string(&key).unwrap();
    let secret = secret.lines().nth(1).unwrap();
    for (url, settings, code, named) in cases {
        let more = [("AMQP_URL", *url), ("LISTEN", "127.0.0.1:0")];
        let settings = [settings, &more[..]].concat();
        let ended = Process::run(TICKETD, &["accept"], &settings).await;
        assert_eq!(ended.code(), Some(*code), "{settings:?}: {}", ended.log);
        assert!(ended.log.contains(named), "{settings:?}: {}", ended.log);
        assert!(!ended.log.contains(secret), "{}", ended.log);
    }
}
