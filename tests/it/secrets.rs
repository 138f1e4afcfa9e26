//! Passwords in URLs: no part of one is shown, whatever is wrong with the URL and wherever it stands.
//! Nor are tickets: what a till prints of a customer is nobody's business who reads the log.

use ticketd_testing::*;

use crate::TICKETD;

/// What stands for a password: pieces of it are looked for in all that is shown.
const SECRET: &str = "Xq7ZvJ9wKr2Y";

/// Every wrong form of a database's URL; `{}` is the password or a piece of it.
const DATABASE_URLS: &[&str] = &[
    "postgres://till:{}@db:5432/x?sslmode=allow",
    "postgres://till:{}@db:5432/x?sslmode=verify-ca",
    "postgres://till:{}@db:5432/x?sslmode={}",
    "postgres://till:{}@db:5432/x?sslmode=require&sslrootcert=system",
    "postgres://till:{}@db:5432/x?sslkey={}",
    "postgres://till:{}@db:5432/x?sslcert=%ff",
    "postgress://till:{}@db:5432/x",
    "mysql://till:{}@db/x",
    "{}://till@db/x",
    "till:{}@db/x",
    "{}",
    "",
    "postgres://till:{}@db:99999/x",
    "postgres://till:{}@db:{}/x",
    "postgres://till:{}@db:5432,other:0x10/x",
    "postgres://till:{}@db/x?port=1,2,3",
    "postgres://till:{}@[::1/x",
    "postgres://till:{}@[::1]{}/x",
    "postgres://till:{}@/x",
    "postgres://till:{}@",
    "postgres://till:{}@%ff/x",
    "postgres://till:{}@{}@db/x",
    "postgres://till:{}/{}",
    "postgres://till:{}@db/%ff",
    "postgres://%ff:{}@db/x",
    "postgres://till:{}@db/x?colour=red",
    "postgres://till:{}@db/x?{}=1",
    "postgres://till:{}@db/x?{}",
    "postgres://till:{}@db/x?hostaddr={}",
    "postgres://till:{}@db/x?connect_timeout={}",
    "postgres://till:{}@db/x?target_session_attrs={}",
    "postgres://till:{}@%2Fvar%2Frun%2Fpostgresql/x?sslmode=verify-none",
    "host=db user=till password='{}' sslmode=verify-full sslcert=/{}",
    "host=db user=till password='{}' port=99999",
    "host=db user=till password='{}",
    "host=db user=till password='{}'{}",
    "host=db user=till password={} {}",
    "host=db user=till password={} {}=1",
    "host=db user=till password",
    "user=till password='{}' dbname=x",
    "host=db hostaddr=127.0.0.1,127.0.0.2 password='{}'",
];

/// Every wrong form of a broker's URL.
const AMQP_URLS: &[&str] = &[
    "amqps://till:{}@rabbit:99999/%2f",
    "amqp+ssl://till:{}@rabbit/%2f",
    "http://till:{}@rabbit/%2f",
    "{}://till@rabbit/%2f",
    "{}:till@rabbit",
    "amqp:till:{}@rabbit",
    "till:{}@rabbit:5672/%2f",
    "{}",
    "",
    "host=rabbit password='{}'",
    "amqp://till:{}@rabbit:99999/%2f",
    "amqp://till:{}@rabbit:{}/%2f",
    "amqp://till:{}@:5672/%2f",
    "amqp://till:{}@/%2f",
    "amqp://till:{}@[::1/%2f",
    "amqp://till:{}@rab bit/%2f",
    "amqp://till:{}#{}@rabbit/%2f",
    "amqp://till:12#{}@rabbit/%2f",
    "amqp://till:{}/{}@rabbit/%2f",
    "amqp://till:12/{}@rabbit/%2f",
    "amqp://till:{}?{}@rabbit/%2f",
    "amqp://till:12?{}@rabbit/%2f",
    "amqp://till:{}%ff@rabbit/%2f",
    "amqp://till%ff:{}@rabbit/%2f",
    "amqp://till:{}@rabbit/%ff",
    "amqp://till:{}@rabbit/%2f?heartbeat={}",
    "amqp://till:{}@rabbit/%2f?heartbeat=-1",
    "amqp://till:{}@rabbit/%2f?frame_max=many",
    "amqp://till:{}@rabbit/%2f?channel_max=65536",
    "amqp://till:{}@rabbit/%2f?connection_timeout=1s",
    "amqp://till:{}@rabbit/%2f?auth_mechanism={}",
    "amqp://till:{}@rabbit/%2f#{}",
    "amqp://till:{}@rabbit,amqps://till:{}@other",
    "amqp://till:{}@rabbit/{},amqp://till:{}@other/x",
    "amqp://till:{}@rabbit,,amqp://till:{}@other",
    "amqp://till:{}@rabbit/%2f,amqp://till:{}@other:99999/%2f",
    "amqp://till:{}@rabbit/%2f,till:{}@other",
    "amqp://till:{}@rabbit,{}",
];

/// What is shown has no four letters in a row of the password.
fn assert_hidden(shown: &str, of: &str) {
    let lower = shown.to_lowercase();
    let secret = SECRET.to_lowercase();
    for piece in secret.as_bytes().windows(4) {
        let piece = std::str::from_utf8(piece).unwrap();
        assert!(!lower.contains(piece), "{of} shows {piece}: {shown}");
    }
}

/// A wrong URL stops the start with a message that names the setting and holds nothing of the
/// password: starts with one wrong URL after the other, by flag and by environment.
#[tokio::test]
async fn a_wrong_url_is_refused_without_its_password() {
    let database = DATABASE_URLS
        .iter()
        .flat_map(|url| ["consume", "accept", "migrate"].map(|role| (role, "DATABASE_URL", *url)));
    let broker = AMQP_URLS
        .iter()
        .flat_map(|url| ["AMQP_URL", "RABBITMQ_URL"].map(|name| ("accept", name, *url)));
    for (role, name, url) in database.chain(broker) {
        let value = url.replace("{}", SECRET);
        let flag = format!("--{}", name.to_lowercase().replace('_', "-"));
        let none: [(&str, &str); 0] = [];
        let by_flag = Process::run(TICKETD, &[role, &format!("{flag}={value}")], &none).await;
        let by_environment = Process::run(TICKETD, &[role], &[(name, value)]).await;
        for ended in [by_flag, by_environment] {
            assert_eq!(ended.code(), Some(2), "{role} {url}: {}", ended.log);
            assert!(ended.log.contains(name), "{role} {url}: {}", ended.log);
            assert!(!ended.log.contains("panicked"), "{url}: {}", ended.log);
            assert_hidden(&format!("{}{}", ended.text(), ended.log), url);
        }
    }
}

/// A password that stands where it does not belong is not shown either: gives URLs as arguments,
/// commands and other settings.
#[tokio::test]
async fn a_url_in_the_wrong_place_is_not_shown() {
    let url = format!("postgres://till:{SECRET}@db/x");
    let cases: &[&[&str]] = &[
        &["consume", &url],
        &[&url],
        &["dead", &url],
        &["dead", "show", &url],
        &["consume", "--databse-url", &url],
        &["consume", &format!("--databse-url={url}")],
        &["consume", &format!("-d{url}")],
        &["consume", "--database-url", "postgres://till:a", SECRET],
        &["consume", "--database-url", "host=db password='a", SECRET],
        &["accept", "--body-max", &url],
        &["accept", "--log-format", &url],
    ];
    let none: [(&str, &str); 0] = [];
    for args in cases {
        let ended = Process::run(TICKETD, args, &none).await;
        assert_eq!(ended.code(), Some(2), "{args:?}: {}", ended.log);
        assert_hidden(&format!("{}{}", ended.text(), ended.log), &args.join(" "));
    }
    for setting in [
        "LISTEN",
        "BODY_MAX",
        "CONFIRM_TIMEOUT",
        "LOG_FORMAT",
        "RUST_LOG",
    ] {
        let ended = Process::run(TICKETD, &["accept"], &[(setting, &url)]).await;
        assert_ne!(ended.code(), Some(0), "{setting}");
        let flag = format!("--{}", setting.to_lowercase().replace('_', "-"));
        assert!(ended.log.contains(&flag), "{setting}: {}", ended.log);
        assert_hidden(&ended.log, setting);
    }
}

/// What is not secret stays in the message: mistypes a flag, a command and a value.
#[tokio::test]
async fn a_mistyped_word_is_shown() {
    for (args, word) in [
        (["consume", "--databse-url"].as_slice(), "--databse-url"),
        (&["serv"], "serv"),
        (&["consume", "now"], "now"),
        (&["accept", "--body-max", "lots"], "lots"),
    ] {
        let none: [(&str, &str); 0] = [];
        let ended = Process::run(TICKETD, args, &none).await;
        assert_eq!(ended.code(), Some(2), "{}", ended.log);
        assert!(ended.log.contains(&format!("'{word}'")), "{}", ended.log);
    }
}

/// A password in a URL is never logged: starts with URLs where nothing answers, and asks for help.
#[tokio::test]
async fn passwords_are_not_logged() {
    let amqp_url = format!("amqp://till:{SECRET}@127.0.0.1:1/%2f");
    let amqp_url = format!("{amqp_url},{amqp_url}");
    let database_url = format!("postgres://till:{SECRET}@127.0.0.1:1/x");
    let settings = [
        ("AMQP_URL", amqp_url.as_str()),
        ("DATABASE_URL", database_url.as_str()),
        ("LISTEN", "127.0.0.1:0"),
        ("RUST_LOG", "trace"),
    ];
    let ticketd = Process::start(TICKETD, &["serve"], &settings);
    ticketd.logged("no connection to RabbitMQ").await;
    ticketd.logged("schema migration failed").await;
    assert_hidden(&ticketd.log(), "the log");
    for role in ["serve", "accept", "consume", "migrate", "dead"] {
        let help = Process::run(TICKETD, &[role, "--help"], &settings).await;
        assert_hidden(help.text(), "the help");
    }
}

/// The AMQP client's own traces do not hold the password that it logs in with, neither as text nor
/// as the bytes that it writes numbers for: connects with every trace asked for.
#[tokio::test]
async fn a_password_in_use_is_not_traced() {
    let namespace = Namespace::new(TICKETD).await;
    let password = namespace.amqp_url();
    let password = password.split_once("://").unwrap().1;
    let (login, _) = password.split_once('@').expect("a login in AMQP_URL");
    let (_, password) = login.split_once(':').expect("a password in AMQP_URL");
    let numbers = format!("{:?}", password.as_bytes());
    let numbers = numbers.trim_matches(['[', ']']);
    for directives in [
        "trace",
        "info,lapin=trace",
        "info,lapin::io_loop,lapin::frames",
    ] {
        let ticketd = namespace.ready("serve", &[("RUST_LOG", directives)]).await;
        let log = ticketd.drained().await.log;
        assert!(!log.contains(numbers), "{directives}: {numbers}");
    }
}

/// No part of a ticket is logged or given as a reason where PostgreSQL refuses it, though its error
/// quotes the row: has it refuse one by a check, and one by a key of somebody else's.
#[tokio::test]
async fn no_part_of_a_refused_ticket_is_shown() {
    let place = Namespace::new(TICKETD).await;
    place.run(&["migrate"], &[]).await;
    let own = "alter table tickets add constraint no_check check (order_id not like 'checked%'); \
        create unique index no_twin on tickets (order_id)";
    place.database.batch_execute(own).await.unwrap();
    let mut serve = place.ready("serve", &[("RUST_LOG", "debug")]).await;
    let mut client = serve.client().await;
    let checked = format!("checked{SECRET}");
    for (order, dead) in [(SECRET, 0), (SECRET, 1), (&checked, 2)] {
        place.accepted(&mut client, &[], &ticket(order)).await;
        place.stored(1).await;
        place.filled("dead_tickets", dead).await;
    }
    let log = serve.drained().await.log;
    let reasons = place.dead().await.into_iter().map(|dead| dead.reason);
    let shown: String = reasons.chain([log]).collect();
    for name in ["no_check", "no_twin"] {
        assert!(shown.contains(name), "{name}: {shown}");
    }
    assert!(!shown.contains(SECRET), "{shown}");
}
