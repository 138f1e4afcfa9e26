//! The commands beside the roles, and settings that are wrong.

use std::net::TcpListener;

use serde_json::{Value, json};
use uuid::Uuid;

use ticketd_testing::*;

use crate::TICKETD;

/// `dead list` shows what was dead-lettered, `dead show` its exact bytes, and `dead replay` sends it
/// round again as a ticket: makes dead tickets and does all three.
#[tokio::test]
async fn dead_tickets_can_be_listed_shown_and_replayed() {
    let namespace = Namespace::new(TICKETD).await;
    let ticketd = namespace.ready("serve", &[]).await;
    let none = namespace.run(&["dead", "list"], &[]).await;
    assert_eq!((none.code(), none.text()), (Some(0), ""));
    let image = ticket_properties(Uuid::now_v7(), 1).with_content_type("image/png".into());
    namespace.publish(image.clone(), EXAMPLE.as_bytes()).await;
    namespace.filled("dead_tickets", 1).await;
    namespace.publish(image, b"\0\xff").await;
    namespace.filled("dead_tickets", 2).await;
    let dead = namespace.dead().await;

    let list = namespace.run(&["dead", "list"], &[]).await;
    let lines: Vec<_> = list.text().lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    for (line, dead) in lines.iter().zip(&dead) {
        let fields: Vec<_> = line.split('\t').collect();
        assert_eq!(fields[0], dead.number.to_string());
        assert_eq!(fields[1], dead.ticket_id.to_string());
        assert_eq!(fields[3], dead.reason);
    }
    for dead in &dead {
        let show = namespace
            .run(&["dead", "show", &dead.number.to_string()], &[])
            .await;
        assert_eq!((show.code(), show.out), (Some(0), dead.body.clone()));
    }

    let replay = namespace
        .run(&["dead", "replay", &dead[0].number.to_string()], &[])
        .await;
    assert_eq!(replay.code(), Some(0), "{}", replay.log);
    let row = namespace.row(replay.text().trim().parse().unwrap()).await;
    assert!(row.valid);
    assert_eq!((row.ticket_id, row.received_at_us), (dead[0].ticket_id, 1));
    assert_eq!(namespace.dead().await, dead[1..]);
    for action in ["show", "replay"] {
        let gone = namespace
            .run(&["dead", action, &dead[0].number.to_string()], &[])
            .await;
        assert_eq!(gone.code(), Some(1));
        assert!(gone.log.contains("no dead ticket"), "{}", gone.log);
    }
    ticketd.drained().await;
}

/// A replayed ticket is the one that was answered 202: it has its id and its time, so that its sender
/// may still repeat it, and its price replaces no newer one. Lets a constraint refuse a ticket, stores
/// a newer one of the same product, replays the first once the constraint is gone, and sends it again.
#[tokio::test]
async fn a_replayed_ticket_is_the_one_that_was_answered() {
    let namespace = Namespace::new(TICKETD).await;
    namespace.run(&["migrate"], &[]).await;
    let refuse = "alter table tickets add constraint poison check (order_id <> '444')";
    namespace.database.batch_execute(refuse).await.unwrap();
    let mut ticketd = namespace.ready("serve", &[]).await;
    let mut client = ticketd.client().await;
    let key = ["Idempotency-Key: till-7/1"];
    let refused = ticket("444");
    let before_us = now_us();
    let id = namespace.accepted(&mut client, &key, &refused).await;
    let answered_us = now_us();
    namespace.filled("dead_tickets", 1).await;
    let newer = ticket("445").replace("t-445", "t-444").replace("1.20", "9");
    let other = namespace.accepted(&mut client, &[], &newer).await;
    namespace.row(other).await;
    let allow = "alter table tickets drop constraint poison";
    namespace.database.batch_execute(allow).await.unwrap();

    let number = namespace.dead().await[0].number.to_string();
    let replay = namespace.run(&["dead", "replay", &number], &[]).await;
    assert_eq!(replay.code(), Some(0), "{}", replay.log);
    assert_eq!(replay.text().trim(), id.to_string());
    let row = namespace.row(id).await;
    assert!(
        (before_us..=answered_us).contains(&row.received_at_us),
        "{row:?}"
    );
    assert_eq!(namespace.accepted(&mut client, &key, &refused).await, id);
    let last = namespace.accepted(&mut client, &[], EXAMPLE).await;
    namespace.row(last).await;
    assert_eq!(namespace.count("tickets").await, 3);
    assert_eq!(namespace.count("dead_tickets").await, 0);
    let product = ("t-444".to_owned(), "Tea 445".to_owned(), "9".to_owned());
    assert!(namespace.products().await.contains(&product));
    ticketd.drained().await;
}

/// A ticket whose id another text has by now is replayed under an id made from both, and one that is
/// stored already is only taken off the list: replays a key's other text, and then again what was
/// replayed already, as after a crash between the two steps.
#[tokio::test]
async fn a_replayed_ticket_takes_no_id_from_another() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let mut client = ticketd.client().await;
    let key = ["Idempotency-Key: till-7/1"];
    let (first, other) = (ticket("first"), ticket("other"));
    let id = namespace.accepted(&mut client, &key, &first).await;
    namespace.row(id).await;
    namespace.accepted(&mut client, &key, &other).await;
    namespace.filled("dead_tickets", 1).await;
    let keep = "create table kept as select * from dead_tickets";
    namespace.database.batch_execute(keep).await.unwrap();

    let made = Uuid::new_v5(&id, other.as_bytes());
    for (text, expected) in [(&other, made), (&other, made), (&first, id)] {
        let dead = "delete from dead_tickets";
        namespace.database.batch_execute(dead).await.unwrap();
        let dead = "insert into dead_tickets (ticket_id, reason, body, received_at) \
            select ticket_id, reason, $1, received_at from kept";
        let body = text.as_bytes();
        namespace.database.execute(dead, &[&body]).await.unwrap();
        let number = namespace.dead().await[0].number.to_string();
        let replay = namespace.run(&["dead", "replay", &number], &[]).await;
        assert_eq!(replay.code(), Some(0), "{}", replay.log);
        assert_eq!(replay.text().trim(), expected.to_string());
        let row = namespace.row(expected).await;
        assert_eq!(row.ticket_text.as_ref(), Some(text));
        assert_eq!(namespace.count("dead_tickets").await, 0);
    }
    assert_eq!(namespace.count("tickets").await, 2);
    let time = "select tickets.received_at = kept.received_at from tickets, kept \
        where tickets.ticket_id = $1";
    let kept = namespace.database.query_one(time, &[&made]).await.unwrap();
    assert!(kept.get::<_, bool>(0), "its time is kept");
    ticketd.drained().await;
}

/// What cannot be a ticket is dead again when it is replayed, however quickly: replays a malformed
/// group many times.
#[tokio::test]
async fn a_replay_loses_nothing_that_dies_again() {
    let namespace = Namespace::new(TICKETD).await;
    let ticketd = namespace.ready("serve", &[]).await;
    namespace.publish(group_properties(), b"\0\xff").await;
    namespace.filled("dead_tickets", 1).await;
    for _ in 0..10 {
        let before = namespace.dead().await.remove(0);
        let number = before.number.to_string();
        let replay = namespace.run(&["dead", "replay", &number], &[]).await;
        assert_eq!(replay.code(), Some(0), "{}", replay.log);
        let after = wait_for("dead again", async || {
            let dead = namespace.dead().await;
            dead.into_iter().find(|dead| dead.number != before.number)
        });
        assert_eq!(after.await.body, before.body);
        assert_eq!(namespace.count("dead_tickets").await, 1);
    }
    ticketd.drained().await;
}

/// A replay that the broker does not confirm leaves the dead ticket where it is: replays without one.
#[tokio::test]
async fn a_replay_without_the_broker_keeps_the_dead_ticket() {
    let namespace = Namespace::new(TICKETD).await;
    namespace.run(&["migrate"], &[]).await;
    let insert =
        "insert into dead_tickets (ticket_id, reason, body) values (gen_random_uuid(), 'why', 'x')";
    namespace.database.batch_execute(insert).await.unwrap();
    let number = namespace.dead().await[0].number.to_string();
    let nowhere = [("AMQP_URL", "amqp://guest:guest@127.0.0.1:1/%2f")];
    let replay = namespace.run(&["dead", "replay", &number], &nowhere).await;
    assert_eq!(replay.code(), Some(1));
    assert!(replay.log.contains("RabbitMQ"), "{}", replay.log);
    assert_eq!(namespace.count("dead_tickets").await, 1);
}

/// `check` needs no server, says of each file whether it is valid or why not, and its exit code says
/// whether all are: checks every sample, and files that could not even be accepted.
#[tokio::test]
async fn check_says_what_is_wrong_with_a_ticket() {
    let none: [(&str, &str); 0] = [];
    let mut valid = Vec::new();
    for file in std::fs::read_dir(sample("valid")).unwrap() {
        valid.push(file.unwrap().path().display().to_string());
    }
    let args: Vec<&str> = std::iter::once("check")
        .chain(valid.iter().map(String::as_str))
        .collect();
    let ended = Process::run(TICKETD, &args, &none).await;
    assert_eq!(ended.code(), Some(0), "{}", ended.text());
    let expected: String = valid
        .iter()
        .map(|file| format!("{file}: valid\n"))
        .collect();
    assert_eq!(ended.text(), expected);

    for file in std::fs::read_dir(sample("invalid")).unwrap() {
        let file = file.unwrap().path();
        let reason = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let file = file.display().to_string();
        let ended = Process::run(TICKETD, &["check", &valid[0], &file], &none).await;
        assert_eq!(ended.code(), Some(1));
        assert!(ended.text().starts_with(&format!("{}: valid\n", valid[0])));
        assert!(
            ended.text().contains(&format!("{file}: {reason}:")),
            "{}",
            ended.text()
        );
    }

    let folder = std::env::temp_dir().join(format!("ticketd-check-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for (name, body, why) in [
        (
            "latin1",
            b"Caf\xe9".as_slice(),
            "not accepted: the ticket is not valid UTF-8",
        ),
        ("empty", b"", "not accepted: the ticket is empty"),
        ("nul", b"\0", "not accepted: the ticket holds a NUL"),
    ] {
        let file = folder.join(name);
        std::fs::write(&file, body).unwrap();
        let ended = Process::run(TICKETD, &["check", file.to_str().unwrap()], &none).await;
        assert_eq!(ended.code(), Some(1));
        assert!(ended.text().contains(why), "{}", ended.text());
    }
    let file = folder.join("comma");
    std::fs::write(&file, "Order: 1\nVAT: 3,10\n").unwrap();
    let file = file.to_str().unwrap();
    let invalid = Process::run(TICKETD, &["check", "--format=json", file], &none).await;
    assert_eq!(invalid.code(), Some(1));
    let verdict: Value = serde_json::from_str(invalid.text()).unwrap();
    let expected = json!({
        "file": file, "valid": false, "invalid_reason": "bad_vat:2", "reason": "bad_vat",
        "line": 2, "column": 6, "start": 14, "end": 18, "detail": verdict["detail"],
    });
    assert_eq!(verdict, expected);
    let shown = Process::run(TICKETD, &["check", file], &none).await;
    let shown = shown.text();
    assert!(
        shown.starts_with(&format!("{file}: bad_vat:2\nerror[bad_vat]: ")),
        "{shown}"
    );
    assert!(
        shown.contains("\n2 | VAT: 3,10\n  |      ^^^^\n"),
        "{shown}"
    );

    std::fs::remove_dir_all(&folder).unwrap();
    let ended = Process::run(TICKETD, &["check", "/no/such/file"], &none).await;
    assert_eq!(ended.code(), Some(1));
    assert!(ended.log.contains("/no/such/file"), "{}", ended.log);
}

/// A wrong setting stops the start, with a message that names it as the flag or the variable that it
/// came from: starts with one wrong setting after the other, both ways.
#[tokio::test]
async fn a_wrong_setting_is_named() {
    let wrong = [
        ("accept", "AMQP_URL", "http://broker"),
        ("accept", "AMQP_URL", "amqp+ssl://broker"),
        ("accept", "RABBITMQ_URL", "nonsense"),
        ("consume", "DATABASE_URL", "postgres://a:b@[::1"),
        ("migrate", "DATABASE_URL", "postgres://a/b?sslmode=allow"),
        ("accept", "LISTEN", "8080"),
        ("accept", "ADMIN_LISTEN", "localhost"),
        ("accept", "PUBLISH_GROUP_MAX", "0"),
        ("accept", "INFLIGHT_MAX", "many"),
        ("accept", "BODY_MAX", "-1"),
        ("accept", "CONFIRM_TIMEOUT", "5"),
        ("serve", "LAME_DUCK", "3"),
        ("consume", "PREFETCH", "65536"),
        ("consume", "BATCH_ROWS", "0"),
        ("consume", "BATCH_BYTES", "1"),
        ("consume", "BATCH_AGE", "soon"),
        ("consume", "WRITERS", "0"),
        ("consume", "HOLD_MAX", "0s"),
        ("serve", "SHUTDOWN_GRACE", "1y"),
        ("serve", "LOG_FORMAT", "xml"),
        ("accept", "QUEUE", ""),
        ("accept", "TOPOLOGY", "none"),
    ];
    for (role, name, value) in wrong {
        let mut settings = vec![("DATABASE_URL", "postgres://127.0.0.1:1/x")];
        settings.retain(|(known, _)| *known != name);
        let flag = format!("--{}", name.to_lowercase().replace('_', "-"));
        let by_flag = Process::run(TICKETD, &[role, &format!("{flag}={value}")], &settings).await;
        settings.push((name, value));
        let by_environment = Process::run(TICKETD, &[role], &settings).await;
        for ended in [by_flag, by_environment] {
            assert!(
                ended.code().is_some_and(|code| code != 0),
                "{name}={value}: {ended:?}"
            );
            assert!(
                ended.log.contains(&flag) || ended.log.contains(name),
                "{name}: {}",
                ended.log
            );
            assert!(!ended.log.contains("panicked"), "{name}: {}", ended.log);
        }
    }
    let none: [(&str, &str); 0] = [];
    let ended = Process::run(TICKETD, &["consume"], &none).await;
    assert_eq!(ended.code(), Some(2));
    assert!(ended.log.contains("--database-url"), "{}", ended.log);
}

/// An address that is taken stops the start with a message that names the setting and the address:
/// takes one first.
#[tokio::test]
async fn an_address_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for setting in ["LISTEN", "ADMIN_LISTEN"] {
        let mut settings = vec![
            ("LISTEN", "127.0.0.1:0"),
            ("AMQP_URL", "amqp://127.0.0.1:1/%2f"),
        ];
        settings.push((setting, &address));
        let ended = Process::run(TICKETD, &["accept"], &settings).await;
        assert_eq!(ended.code(), Some(1));
        let message = format!("cannot listen on {setting} {address}");
        assert!(ended.log.contains(&message), "{}", ended.log);
    }
}
