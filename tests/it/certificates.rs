//! Clients' certificates: each names a source, alone or beside credentials.

use std::net::SocketAddr;

use serde_json::Value;
use ticketd_testing::*;
use uuid::Uuid;

use crate::TICKETD;
use crate::https::{HOSTS, curl};
use crate::senders::{KEY_3, LINES, OPERATOR, SHOP_1, SHOP_2, signed};

/// A CA, and a ticketd that serves only clients that it has signed.
struct Rig {
    tls: Certificates,
    ticketd: Process,
    address: SocketAddr,
}

impl Rig {
    /// With these settings, and certificates of clients that are called so.
    async fn start(place: &Namespace, clients: &[&str], more: &[(&'static str, &str)]) -> Self {
        // So that rows can be looked for as soon as it takes tickets.
        place.run(&["migrate"], &[]).await;
        let tls = Certificates::new();
        tls.server("host", HOSTS);
        clients.iter().for_each(|name| tls.client(name));
        let files = [
            ("TLS_CERT", "host.pem"),
            ("TLS_KEY", "host.key"),
            ("TLS_CLIENT_CA", "ca.pem"),
        ];
        let files = files.map(|(setting, file)| (setting, tls.path(file)));
        let files = files
            .iter()
            .map(|(setting, file)| (*setting, file.as_str()));
        let settings: Vec<_> = files.chain(more.iter().copied()).collect();
        let mut ticketd = place.start("serve", &settings);
        ticketd.logged("publishing to RabbitMQ").await;
        let address = ticketd.address("LISTEN").await;
        Self {
            tls,
            ticketd,
            address,
        }
    }

    /// What a client with this certificate is answered, with these arguments of curl's: status and
    /// body of the last answer.
    async fn ask(&self, client: &str, path: &str, args: &[&str]) -> (u16, String) {
        let file = |kind| self.tls.path(&format!("{client}.{kind}"));
        let (ca, pem, key) = (self.tls.path("ca.pem"), file("pem"), file("key"));
        let url = format!("https://localhost:{}{path}", self.address.port());
        let own = [
            "--cacert",
            &ca,
            "--cert",
            &pem,
            "--key",
            &key,
            "-w",
            "\n%{http_code}\n",
            &url,
        ];
        let curled = curl(&[&own[..], args].concat()).await;
        assert_eq!(curled.code, 0, "{curled:?}");
        let mut lines = curled.out.lines().rev();
        let status = lines.next().unwrap().parse().unwrap();
        (status, lines.next().unwrap_or_default().to_owned())
    }

    /// The answer to a ticket with these headers.
    async fn post(&self, client: &str, headers: &[&str]) -> (u16, String) {
        let mut args = vec!["--data-binary", EXAMPLE];
        args.extend(headers.iter().flat_map(|header| ["-H", header]));
        self.ask(client, "/ticket", &args).await
    }

    /// The id of a ticket that must be taken.
    async fn accepted(&self, client: &str, headers: &[&str]) -> Uuid {
        let (status, body) = self.post(client, headers).await;
        assert_eq!(status, 202, "{client} {headers:?}: {body}");
        let json: Value = serde_json::from_str(&body).unwrap();
        json["id"].as_str().unwrap().parse().unwrap()
    }

    /// The status, and the source that it tells, of a ticket that is asked for.
    async fn state(&self, client: &str, id: Uuid, headers: &[&str]) -> (u16, Value) {
        let args: Vec<_> = headers.iter().flat_map(|header| ["-H", *header]).collect();
        let (status, body) = self.ask(client, &format!("/ticket/{id}"), &args).await;
        let json: Value = serde_json::from_str(&body).unwrap();
        (status, json["source"].clone())
    }

    /// A metric, which the client may read.
    async fn metric(&self, client: &str, series: &str) -> Option<f64> {
        let file = |kind| self.tls.path(&format!("{client}.{kind}"));
        let (ca, pem, key) = (self.tls.path("ca.pem"), file("pem"), file("key"));
        let url = format!("https://localhost:{}/metrics", self.address.port());
        let page = curl(&["--cacert", &ca, "--cert", &pem, "--key", &key, &url]).await;
        metric(&page.out, series)
    }
}

/// A certificate's name is a source, without any credentials: two tills send equal keys, which are two
/// tickets, and each is told of its own; tokens are ignored. Also on sessions that are resumed.
#[tokio::test]
async fn a_certificate_names_its_source() {
    let place = Namespace::new(TICKETD).await;
    let rig = Rig::start(&place, &["till-7", "till-8"], &[]).await;
    let key = "idempotency-key: 4711";
    let (seven, eight) = (
        rig.accepted("till-7", &[key]).await,
        rig.accepted(
            "till-8",
            &[key, "authorization: Bearer x", "webhook-signature: v1,x"],
        )
        .await,
    );
    assert_ne!(seven, eight);
    assert_eq!(rig.accepted("till-7", &[key]).await, seven);
    for (id, own, other) in [(seven, "till-7", "till-8"), (eight, "till-8", "till-7")] {
        place.row(id).await;
        assert_eq!(rig.state(own, id, &[]).await, (200, own.into()));
        assert_eq!(rig.state(other, id, &[]).await.0, 404);
    }
    let (_, list) = rig.ask("till-8", "/tickets", &[]).await;
    let list: Value = serde_json::from_str(&list).unwrap();
    let listed = list["tickets"].as_array().unwrap();
    assert!(
        listed.len() == 1 && listed[0]["id"] == eight.to_string(),
        "{list}"
    );
    let check = rig
        .ask("till-8", "/check", &["--data-binary", EXAMPLE])
        .await;
    assert_eq!(check.0, 200);
    let resumed = ["-H", "connection: close", "--data-binary", EXAMPLE];
    assert_eq!(rig.ask("till-7", "/ticket?[1-3]", &resumed).await.0, 202);
    place.stored(5).await;
    let sources = "select count(*) from tickets where source = 'till-7'";
    let row = place.database.query_one(sources, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 4);
    for (series, expected) in [
        ("ticketd_source_accepted_total{source=\"till-7\"}", 5.0),
        ("ticketd_source_accepted_total{source=\"till-8\"}", 1.0),
    ] {
        assert_eq!(
            rig.metric("till-7", series).await,
            Some(expected),
            "{series}"
        );
    }
    assert!(!rig.ticketd.log().contains("whoever reaches LISTEN"));
}

/// The DNS name counts, or else the common name; a certificate with no name that a source could have,
/// or several, is told so and logged, and lets nobody send. Sends with one of each kind.
#[tokio::test]
async fn a_certificate_without_a_source_is_refused() {
    let place = Namespace::new(TICKETD).await;
    let rig = Rig::start(&place, &[], &[]).await;
    for (number, (subject, names, source)) in [
        ("/O=Shop/CN=shop-1", "", "shop-1"),
        ("/CN=Shop One", "DNS:shop-2.example", "shop-2.example"),
        (
            "/O=Shop",
            "DNS:shop-3,URI:spiffe://shop/9,IP:10.0.0.9",
            "shop-3",
        ),
        ("/CN=shop-4", "URI:spiffe://shop/9,email:a@shop", "shop-4"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("good-{number}");
        rig.tls.client_named(&name, subject, names);
        let id = rig.accepted(&name, &[]).await;
        place.row(id).await;
        assert_eq!(rig.state(&name, id, &[]).await, (200, source.into()));
    }
    assert!(!rig.ticketd.log().contains("names no source"));
    let long = format!("/CN={}", "a".repeat(64));
    rig.tls.client_named("longest", &long, "");
    rig.accepted("longest", &[]).await;
    let bad = [
        ("/CN=Shop-1", "", "a name has 1 to 64 characters"),
        ("/CN=shop 1", "", "a name has 1 to 64 characters"),
        ("/CN=caf\u{e9}", "", "a name has 1 to 64 characters"),
        ("/CN=other", "", "the name other is taken"),
        ("/CN=shop-1", "DNS:*.shop", "a name has 1 to 64 characters"),
        (
            "/CN=shop-1",
            "DNS:shop-1,DNS:shop-2",
            "it has more than one name",
        ),
        ("/CN=shop-1/CN=shop-2", "", "it has more than one name"),
        ("/O=Shop", "", "it has neither a DNS name nor a common name"),
    ];
    for (number, (subject, names, why)) in bad.into_iter().enumerate() {
        let name = format!("bad-{number}");
        rig.tls.client_named(&name, subject, names);
        let (status, body) = rig.post(&name, &[]).await;
        assert_eq!(status, 403, "{subject} {names}: {body}");
        let told = format!("the client's certificate names no source: {why}");
        assert!(body.contains(&told), "{subject} {names}: {body}");
        let state = format!("/ticket/{}", Uuid::now_v7());
        for path in [state.as_str(), "/tickets"] {
            assert_eq!(rig.ask(&name, path, &[]).await.0, 403, "{path}");
        }
        let check = rig.ask(&name, "/check", &["--data-binary", EXAMPLE]).await;
        assert_eq!(check.0, 403);
        assert_eq!(
            rig.ask(&name, "/livez", &[]).await.0,
            200,
            "it is no ticket"
        );
    }
    let log = rig.ticketd.log();
    let lines = log.matches("certificate names no source").count();
    assert!((1..=3).contains(&lines), "in a line for many: {log}");
    assert!(log.contains("subject=\"CN=Shop-1\""), "{log}");
    let series = "ticketd_rejected_total{reason=\"no_source\"}";
    assert_eq!(rig.metric("good-0", series).await, Some(bad.len() as f64));
}

/// Beside credentials a certificate is enough, and a token or signature that comes with it has to be
/// right and of the same source, so that nobody posts as another by accident: sends with all pairs.
#[tokio::test]
async fn certificate_and_credential_agree() {
    let place = Namespace::new(TICKETD).await;
    let more = [("CREDENTIALS", LINES)];
    let rig = Rig::start(&place, &["shop-1", "shop-2", "shop-3", "shop-9"], &more).await;
    let lines = |id| signed(KEY_3, id, now_us() / 1_000_000, EXAMPLE);
    let (first, second) = (lines("m1"), lines("m2"));
    let of = |lines: &'_ [String]| -> Vec<String> { lines.to_vec() };
    let (first, second) = (of(&first), of(&second));
    let signature: Vec<_> = first.iter().map(String::as_str).collect();
    let second: Vec<_> = second.iter().map(String::as_str).collect();
    let key = "idempotency-key: 1";
    for (client, headers, source) in [
        ("shop-1", vec![key], "shop-1"),
        ("shop-1", vec![key, SHOP_1], "shop-1"),
        ("shop-1", vec!["webhook-id: 1"], "shop-1"),
        ("shop-2", vec![SHOP_2], "shop-2"),
        ("shop-3", signature.clone(), "shop-3"),
        ("shop-9", vec![key], "shop-9"),
    ] {
        let id = rig.accepted(client, &headers).await;
        place.row(id).await;
        assert_eq!(
            rig.state(client, id, &[]).await,
            (200, source.into()),
            "{headers:?}"
        );
        assert_eq!(
            rig.state(client, id, &[OPERATOR]).await,
            (200, source.into())
        );
    }
    let kept = place.count("tickets").await;
    for (client, headers) in [
        ("shop-1", vec![SHOP_2]),
        ("shop-2", vec![SHOP_1]),
        ("shop-9", vec![SHOP_1]),
        ("shop-1", vec![OPERATOR]),
        ("shop-1", vec!["authorization: Bearer x"]),
        ("shop-1", vec![SHOP_1, SHOP_2]),
        ("shop-1", second.clone()),
        ("shop-9", second.clone()),
        ("shop-3", vec!["webhook-signature: v1,x"]),
    ] {
        let (status, body) = rig.post(client, &headers).await;
        assert_eq!(status, 401, "{client} {headers:?}: {body}");
        assert!(body.contains("a valid credential is needed"), "{body}");
    }
    let (status, _) = rig
        .ask(
            "shop-3",
            "/ticket?source=shop-1",
            &["--data-binary", EXAMPLE],
        )
        .await;
    assert_eq!(status, 202, "nothing is signed, so nothing is named");
    let mut args = vec!["--data-binary", EXAMPLE];
    args.extend(second.iter().flat_map(|line| ["-H", *line]));
    assert_eq!(
        rig.ask("shop-3", "/ticket?source=shop-1", &args).await.0,
        401
    );
    assert_eq!(rig.state("shop-1", Uuid::now_v7(), &[SHOP_2]).await.0, 401);
    place.stored(kept + 1).await;
    assert_eq!(rig.ask("shop-1", "/metrics", &[]).await.0, 401);
    assert_eq!(rig.ask("shop-1", "/metrics", &["-H", SHOP_1]).await.0, 401);
    assert_eq!(
        rig.ask("shop-1", "/metrics", &["-H", OPERATOR]).await.0,
        200
    );
}

/// A source that a certificate names has its limit: RATE_LIMIT, which takes no credentials then, or
/// that of the credentials' file; a new connection is no new limit. Sends beyond it.
#[tokio::test]
async fn a_certificates_source_has_its_limit() {
    let place = Namespace::new(TICKETD).await;
    let lines = format!("till-8 bearer {} rate=off", "t".repeat(40));
    for (credentials, expected) in [(None, 429), (Some(("CREDENTIALS", lines.as_str())), 202)] {
        let limit = [("RATE_LIMIT", "1/s:2")];
        let more: Vec<_> = limit.into_iter().chain(credentials).collect();
        let rig = Rig::start(&place, &["till-7", "till-8"], &more).await;
        let closing = ["-H", "connection: close", "--data-binary", EXAMPLE];
        assert_eq!(rig.ask("till-7", "/ticket?[1-12]", &closing).await.0, 429);
        assert_eq!(rig.ask("till-8", "/ticket?[1-2]", &closing).await.0, 202);
        assert_eq!(
            rig.ask("till-8", "/ticket?[1-12]", &closing).await.0,
            expected
        );
    }
    let alone = Process::run(TICKETD, &["accept"], &[("RATE_LIMIT", "1/s")]).await;
    assert_eq!(alone.code(), Some(2), "{}", alone.log);
}

/// Whatever proves who sends, nothing of it is logged at any level: sends by certificate, by token and
/// by signature, right and wrong, asks as an operator, and has all files read again.
#[tokio::test]
async fn a_log_of_everything_holds_no_secret() {
    let place = Namespace::new(TICKETD).await;
    let file = std::env::temp_dir().join(format!("ticketd-secrets-{}", Uuid::now_v7()));
    std::fs::write(&file, LINES).unwrap();
    let credentials = ("CREDENTIALS_FILE", file.to_str().unwrap());
    let more = [credentials, ("RUST_LOG", "trace")];
    let rig = Rig::start(&place, &["shop-1", "shop-2", "shop-3"], &more).await;
    let signed = signed(KEY_3, "m1", now_us() / 1_000_000, EXAMPLE);
    let signature: Vec<_> = signed.iter().map(String::as_str).collect();
    rig.accepted("shop-1", &[]).await;
    rig.accepted("shop-1", &[SHOP_1]).await;
    rig.accepted("shop-3", &signature).await;
    for (client, headers) in [
        ("shop-2", vec![SHOP_1]),
        ("shop-1", signature.clone()),
        ("shop-1", vec![OPERATOR]),
    ] {
        assert_eq!(rig.post(client, &headers).await.0, 401);
    }
    assert_eq!(
        rig.ask("shop-1", "/metrics", &["-H", OPERATOR]).await.0,
        200
    );
    rig.ticketd.signal("HUP");
    rig.ticketd.logged("CREDENTIALS_FILE was read again").await;
    rig.ticketd.logged("TLS_CLIENT_CA were read again").await;
    std::fs::remove_file(&file).unwrap();
    let mut secrets = secrets(&rig.tls);
    secrets.push(signed[2].rsplit("v1,").next().unwrap().to_owned());
    let log = rig.ticketd.drained().await.log;
    assert!(
        log.contains("DEBUG") && log.contains("request_id"),
        "it is a log of everything"
    );
    for secret in secrets {
        assert!(!log.contains(&secret), "{secret} is in the log");
    }
}

/// Each secret of the credentials and of the certificates, as it is, as its bytes, and as its hash.
fn secrets(tls: &Certificates) -> Vec<String> {
    use sha2::Digest;
    let words = LINES.split_whitespace();
    let mut secrets: Vec<String> = Vec::new();
    for word in words.filter(|word| word.len() > 20) {
        let hash = sha2::Sha256::digest(word);
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let bytes = |bytes: &[u8]| format!("{bytes:?}").trim_matches(['[', ']']).to_owned();
        secrets.extend([
            word.to_owned(),
            hex,
            bytes(word.as_bytes()),
            bytes(&hash[..8]),
        ]);
    }
    assert_eq!(secrets.len(), 4 * 4, "three tokens and a webhook secret");
    secrets.push(str::from_utf8(KEY_3).unwrap().to_owned());
    for name in ["host.key", "shop-1.key", "ca.key"] {
        let key = std::fs::read_to_string(tls.path(name)).unwrap();
        secrets.extend(
            key.lines()
                .filter(|line| !line.starts_with("---"))
                .map(str::to_owned),
        );
    }
    secrets
}
