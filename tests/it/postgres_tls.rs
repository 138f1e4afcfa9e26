//! TLS to PostgreSQL, in libpq's terms: what each `sslmode` lets through, and what is said otherwise.

use std::net::SocketAddr;

use ticketd_testing::servers::stack_certificate;
use ticketd_testing::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::TICKETD;
use crate::openssl::OpensslServer;

/// What a client asks first, if it can do TLS (PostgreSQL, "SSL Session Encryption").
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// A user of the server's that may come in only so, as deploy/postgres.sh has it; each in a role
/// that may do everything, in the schema of the test.
struct Way<'a> {
    place: &'a Namespace,
    user: &'static str,
    host: String,
    port: u16,
}

impl<'a> Way<'a> {
    async fn new(place: &'a Namespace, user: &'static str) -> Self {
        let create = format!(
            "do $$ begin create role {user} superuser login password 'secret word'; \
            exception when duplicate_object or unique_violation then null; end $$"
        );
        place.database.batch_execute(&create).await.unwrap();
        let port = place.database.query_one("show port", &[]).await.unwrap();
        Self {
            place,
            user,
            host: "localhost".into(),
            port: port.get::<_, String>(0).parse().unwrap(),
        }
    }

    fn by(self, address: SocketAddr) -> Self {
        Self {
            host: address.ip().to_string(),
            port: address.port(),
            ..self
        }
    }

    /// Runs `migrate` by this way, with these options in the URL.
    async fn migrate(&self, options: &str, more: &[(&str, &str)]) -> Ended {
        let Self {
            user, host, port, ..
        } = self;
        let schema = self.place.schema();
        let url = format!(
            "host={host} port={port} user={user} password='secret word' dbname=ticketd \
            options='-c search_path={schema}' {options}"
        );
        let mut settings = more.to_vec();
        settings.push(("DATABASE_URL", &url));
        let ended = Process::run(TICKETD, &["migrate"], &settings).await;
        assert!(!ended.log.contains("secret word"), "{}", ended.log);
        ended
    }

    async fn lets_in(&self, options: &str, more: &[(&str, &str)]) {
        let ended = self.migrate(options, more).await;
        assert_eq!(ended.code(), Some(0), "{options}: {}", ended.log);
    }

    /// It is refused, and these words are said.
    async fn refuses(&self, options: &str, more: &[(&str, &str)], words: &[&str]) {
        let ended = self.migrate(options, more).await;
        assert_eq!(ended.code(), Some(1), "{options}: {}", ended.log);
        for word in words {
            assert!(
                ended.log.contains(word),
                "{options}: no {word:?}: {}",
                ended.log
            );
        }
    }
}

/// Each mode is encrypted or not as it says, and checks what it says: connects as a user that the
/// server lets in only with TLS, with right and wrong CAs and names.
#[tokio::test]
async fn each_mode_protects_as_it_says() {
    let place = Namespace::new(TICKETD).await;
    let way = Way::new(&place, "tls_only").await;
    let others = Certificates::new();
    let (ours, theirs) = (stack_certificate("ca.pem"), others.path("ca.pem"));
    let ours_too = format!("sslrootcert={ours}");
    let theirs_too = format!("sslrootcert={theirs}");
    let own = format!("sslrootcert={}", stack_certificate("localhost.pem"));

    way.lets_in("", &[]).await;
    way.lets_in("sslmode=prefer", &[]).await;
    way.lets_in("sslmode=require", &[]).await;
    way.lets_in(&format!("sslmode=require {ours_too}"), &[])
        .await;
    way.lets_in(&format!("sslmode=verify-ca {ours_too}"), &[])
        .await;
    way.lets_in(&format!("sslmode=verify-full {ours_too}"), &[])
        .await;
    way.lets_in(&format!("sslmode=verify-full {own}"), &[])
        .await;
    let both = [("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", &*ours)];
    way.lets_in("", &both).await;
    way.lets_in(
        &ours_too,
        &[("PGSSLMODE", "verify-ca"), ("PGSSLROOTCERT", &theirs)],
    )
    .await;

    way.refuses("sslmode=disable", &[], &["DATABASE_URL", "sslmode"])
        .await;
    way.refuses("", &[("PGSSLMODE", "disable")], &["sslmode"])
        .await;
    for mode in ["prefer", "require", "verify-ca", "verify-full"] {
        let options = format!("sslmode={mode} {theirs_too}");
        way.refuses(&options, &[], &["sslrootcert", &theirs]).await;
    }
    let both = [("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", &*theirs)];
    way.refuses("", &both, &["PGSSLROOTCERT", &theirs]).await;
    way.refuses("sslmode=verify-full", &[], &["sslrootcert", "this machine"])
        .await;
    way.refuses("sslrootcert=system", &[], &["sslrootcert", "this machine"])
        .await;

    let way = Way {
        host: "127.0.0.1".into(),
        ..way
    };
    way.lets_in(&format!("sslmode=verify-ca {ours_too}"), &[])
        .await;
    let name = ["host names", "127.0.0.1", "localhost"];
    way.refuses(&format!("sslmode=verify-full {ours_too}"), &[], &name)
        .await;
}

/// A server that has no TLS is taken by `prefer` alone, and one that wants none by `disable`.
#[tokio::test]
async fn only_prefer_goes_without() {
    let place = Namespace::new(TICKETD).await;
    let way = Way::new(&place, "plain_only").await;
    way.lets_in("sslmode=disable", &[]).await;
    // It has TLS, so there is none without.
    way.refuses("sslmode=prefer", &[], &["pg_hba.conf", "sslmode=disable"])
        .await;

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("127.0.0.1:{}", way.port);
    let address = listener.local_addr().unwrap();
    let without = tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(without_tls(client, server.clone()));
        }
    });
    let way = way.by(address);
    way.lets_in("", &[]).await;
    way.lets_in("sslmode=prefer", &[]).await;
    way.lets_in("sslmode=disable", &[]).await;
    let words = ["sslmode asks for it", "does not support TLS"];
    way.refuses("sslmode=require", &[], &words).await;
    let ca = stack_certificate("ca.pem");
    let options = format!("sslmode=verify-full sslrootcert={ca}");
    way.refuses(&options, &[], &words).await;
    without.abort();
}

/// The way to the real server, for which somebody says that it has no TLS.
async fn without_tls(mut client: TcpStream, server: String) {
    let mut server = TcpStream::connect(server).await.unwrap();
    let mut first = [0; 8];
    client.read_exact(&mut first).await.unwrap();
    if first == SSL_REQUEST {
        client.write_all(b"N").await.unwrap();
    } else {
        server.write_all(&first).await.unwrap();
    }
    let _ended = copy_bidirectional(&mut client, &mut server).await;
}

/// A certificate of ours is shown to a server that asks for one, and one that it does not know is
/// refused; a login by password is bound to the server's certificate where that is asked for.
#[tokio::test]
async fn logins_may_rest_on_certificates() {
    let place = Namespace::new(TICKETD).await;
    let others = Certificates::new();
    others.client("certified");
    let way = Way::new(&place, "certified").await;
    let shown = |pem: &str, key: &str| format!("sslmode=require sslcert={pem} sslkey={key}");
    let [pem, key] = ["certified.pem", "certified.key"].map(stack_certificate);
    way.lets_in(&shown(&pem, &key), &[]).await;
    way.lets_in(
        "sslmode=require",
        &[("PGSSLCERT", &pem), ("PGSSLKEY", &key)],
    )
    .await;
    way.refuses("sslmode=require", &[], &["valid client certificate"])
        .await;
    let unknown = shown(&others.path("certified.pem"), &others.path("certified.key"));
    way.refuses(&unknown, &[], &["see sslcert"]).await;

    let way = Way::new(&place, "with_password").await;
    let ca = stack_certificate("ca.pem");
    let bound = format!("sslmode=verify-full sslrootcert={ca} channel_binding=require");
    way.lets_in(&bound, &[]).await;
    way.refuses(
        "sslmode=disable channel_binding=require",
        &[],
        &["DATABASE_URL"],
    )
    .await;
}

/// What can be known at the start stops it, and names the file; what changes later is in the log of
/// the next attempt.
#[tokio::test]
async fn wrong_files_stop_the_start() {
    let tls = Certificates::new();
    tls.client("one");
    tls.client("two");
    let path = |file| tls.path(file);
    let cases = [
        (
            format!("sslmode=verify-ca sslrootcert={}", path("none")),
            "sslrootcert",
            path("none"),
        ),
        (
            format!("sslmode=verify-ca sslrootcert={}", path("one.key")),
            "sslrootcert",
            path("one.key"),
        ),
        (
            format!("sslcert={} sslkey={}", path("none"), path("one.key")),
            "sslcert",
            path("none"),
        ),
        (
            format!("sslcert={} sslkey={}", path("one.pem"), path("one.pem")),
            "sslkey",
            path("one.pem"),
        ),
        (
            format!("sslcert={} sslkey={}", path("one.pem"), path("two.key")),
            "sslkey",
            path("two.key"),
        ),
    ];
    let secret = std::fs::read_to_string(path("one.key")).unwrap();
    let secret = secret.lines().nth(1).unwrap();
    for (options, setting, file) in cases {
        let url = format!("host=localhost port=1 user=x {options}");
        for role in ["serve", "accept", "consume", "migrate"] {
            let settings = [
                ("DATABASE_URL", url.as_str()),
                ("LISTEN", "127.0.0.1:0"),
                ("ADMIN_LISTEN", "127.0.0.1:0"),
            ];
            let ended = Process::run(TICKETD, &[role], &settings).await;
            assert_eq!(ended.code(), Some(1), "{role} {options}: {}", ended.log);
            for word in ["DATABASE_URL", setting, &file] {
                assert!(ended.log.contains(word), "{role} {options}: {}", ended.log);
            }
            assert!(!ended.log.contains(secret), "{}", ended.log);
        }
    }
}

/// A server whose certificate has expired is not talked to.
#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let place = Namespace::new(TICKETD).await;
    let tls = Certificates::new();
    tls.expired("localhost", &["localhost"]);
    let server = OpensslServer::start(&tls, "localhost").await;
    let way = Way::new(&place, "tls_only").await;
    let way = Way {
        port: server.port,
        ..way
    };
    // By its CA, and where it is listed itself.
    let [ca, own] = ["ca.pem", "localhost.pem"].map(|file| tls.path(file));
    for (mode, known) in [
        ("require", &ca),
        ("verify-full", &ca),
        ("verify-full", &own),
    ] {
        let options = format!("sslnegotiation=direct sslmode={mode} sslrootcert={known}");
        way.refuses(&options, &[], &["DATABASE_URL", "has expired"])
            .await;
    }
}
