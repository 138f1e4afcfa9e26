//! `ticketd import --direct`: without RabbitMQ, with the same ids and the same rules.

use std::time::Duration;

use super::*;

/// Nothing listens there.
const NO_BROKER: (&str, &str) = ("AMQP_URL", "amqp://127.0.0.1:1");

/// Imports past RabbitMQ, which must end with this exit code; returns how it ended.
async fn direct(place: &Namespace, args: &[&str], code: i32) -> Ended {
    let args = [&["import", "--direct"], args].concat();
    let ended = place.run(&args, &[NO_BROKER]).await;
    assert_eq!(ended.code(), Some(code), "{}{}", ended.text(), ended.log);
    ended
}

/// Whichever way comes first, and however often each comes: a ticket is one row. What was already
/// there is told as stored.
#[tokio::test]
async fn either_way_stores_the_same_ticket_once() {
    let place = Namespace::new(TICKETD).await;
    let ticketd = place.ready("consume", &[]).await;
    let files = Files::new();
    let lines =
        "{\"ticket\":\"Order: 4\\n\",\"key\":\"till/4\",\"issued_at\":\"2026-11-27T12:00:00Z\"}";
    let first = [
        files.put("1.txt", tickets(1..=3)),
        files.put("2.jsonl", lines),
    ];
    let second = files.put("3.txt", tickets(5..=6));
    let source = ["--source", "shop-1"];
    let published = [&source[..], &[&first[0], &first[1]]].concat();
    import(&place, &published, 0).await;
    place.stored(4).await;
    for _ in 0..2 {
        let all = [&source[..], &[files.path()]].concat();
        assert_eq!(direct(&place, &all, 0).await.text(), "6\t0\n");
        assert_eq!(place.count("tickets").await, 6);
    }
    import(&place, &[&source[..], &[&second]].concat(), 0).await;
    ticketd.drained().await;
    assert_eq!(place.depth(place.queue()).await, 0);
    assert_eq!(place.count("tickets").await, 6);
    let shop = Source::parse("shop-1").unwrap();
    let keyed = id_of_key(Some(&shop), b"till/4");
    let mut expected = vec![keyed];
    for (path, numbers) in [(&first[0], 1..=3), (&second, 1..=2)] {
        let file = id_of_key(Some(&shop), key(path).as_bytes());
        expected.extend(numbers.map(|number| id_of_nth(file, number)));
    }
    expected.sort_unstable();
    assert_eq!(ids(&place).await, expected);
    let (source, issued_at) = place.origin("tickets", keyed).await.unwrap();
    assert_eq!(source.as_deref(), Some("shop-1"));
    assert!(issued_at.unwrap().starts_with("2026-11-27"));
}

/// Rows, products and dead tickets are those that a consumer makes of the same file: valid and invalid
/// tickets, and a key that has another text.
#[tokio::test]
async fn rows_are_those_that_a_consumer_makes() {
    let files = Files::new();
    let lines: Vec<_> = [
        ticket("1"),
        "Order: 2\nVAT: x\n".into(),
        EXAMPLE.into(),
        "nothing".into(),
    ]
    .iter()
    .map(|ticket| serde_json::json!({ "ticket": ticket }).to_string())
    .collect();
    let mut file = lines.join("\n");
    for order in ["3", "4"] {
        let line = serde_json::json!({ "key": "k", "ticket": ticket(order) });
        file += &format!("\n{line}");
    }
    let file = files.put("1.ndjson", file);
    let published = Namespace::new(TICKETD).await;
    let ticketd = published.ready("consume", &[]).await;
    import(&published, &[&file], 0).await;
    published.filled("dead_tickets", 1).await;
    ticketd.drained().await;
    let stored = Namespace::new(TICKETD).await;
    let ended = direct(&stored, &[&file], 0).await;
    assert_eq!(ended.text(), "6\t0\n");
    assert!(ended.log.contains("went to dead_tickets"), "{}", ended.log);
    let rows = async |place: &Namespace| {
        let mut rows = place.rows().await;
        rows.sort_unstable_by_key(|row| row.ticket_id);
        rows.iter_mut().for_each(|row| row.received_at_us = 0);
        format!("{rows:#?}")
    };
    assert_eq!(rows(&stored).await, rows(&published).await);
    assert_eq!(stored.products().await, published.products().await);
    let dead = (stored.dead().await, published.dead().await);
    assert_eq!(dead.0[0].ticket_id, dead.1[0].ticket_id);
    assert_eq!((dead.0.len(), &dead.0[0].body), (1, &dead.1[0].body));
}

/// Several batches, of which the first are there already: all are stored once, also those behind.
#[tokio::test]
async fn what_was_stored_up_to_its_middle_is_stored_to_its_end() {
    let place = Namespace::new(TICKETD).await;
    let files = Files::new();
    for (tickets_in_it, stored) in [(8_500, 8_500), (12_000, 12_000), (300, 12_000)] {
        let file = files.put("journal", tickets(0..tickets_in_it));
        let ended = direct(&place, &["--key=day-1", &file], 0).await;
        assert_eq!(ended.text(), format!("{tickets_in_it}\t0\n"));
        assert_eq!(place.count("tickets").await, stored);
    }
    let orders = "select count(distinct order_id) from tickets where valid";
    let orders: i64 = place.database.query_one(orders, &[]).await.unwrap().get(0);
    assert_eq!((orders, place.count("dead_tickets").await), (12_000, 0));
}

/// PostgreSQL away: it ends in time, and says that it may be repeated. One whose connection is cut goes on.
#[tokio::test]
async fn postgresql_may_be_away_for_a_while() {
    let place = Namespace::new(TICKETD).await;
    let files = Files::new();
    files.put("1.txt", tickets(0..9_000));
    let mut link = Forwarder::shut();
    let settings = [("DATABASE_URL", link.url(&place.database_url()))];
    let settings: Vec<_> = settings
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let args = ["import", "--direct", files.path(), "--timeout=300ms"];
    let ended = place.run(&args, &settings).await;
    assert_eq!((ended.code(), ended.text()), (Some(1), "0\t0\n"));
    for said in ["PostgreSQL stored nothing in time", "import the same again"] {
        assert!(ended.log.contains(said), "{}", ended.log);
    }
    let settings = place.settings("import", &settings);
    let importing = Process::start(TICKETD, &args[..3], &settings);
    link.open(&place.database_url());
    wait_until("it is connected", async || !link.connections().is_empty()).await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        link.cut();
    }
    let ended = importing.ended().await;
    assert_eq!(
        (ended.code(), ended.text()),
        (Some(0), "9000\t0\n"),
        "{}",
        ended.log
    );
    assert_eq!(place.count("tickets").await, 9_000);
}

/// Tables that take no ticket: they are neither lost nor dead, and the constraint is named.
#[tokio::test]
async fn tables_that_take_nothing_end_it() {
    let place = Namespace::new(TICKETD).await;
    place.run(&["migrate"], NONE).await;
    let none = "alter table tickets add constraint none_at_all check (order_id is null)";
    place.database.batch_execute(none).await.unwrap();
    let files = Files::new();
    let file = files.put("1.txt", tickets(0..100));
    let ended = direct(&place, &["--timeout=1s", &file], 1).await;
    assert!(ended.log.contains("none_at_all"), "{}", ended.log);
    assert_eq!(place.count("dead_tickets").await, 0);
    let all = "alter table tickets drop constraint none_at_all";
    place.database.batch_execute(all).await.unwrap();
    direct(&place, &[&file], 0).await;
    assert_eq!(place.count("tickets").await, 100);
}

/// Only with `--direct` is there a need for `DATABASE_URL`, and none for RabbitMQ's settings then.
#[tokio::test]
async fn it_needs_postgresql_alone() {
    let args = ["import", "--direct", "/none"];
    let ended = Process::run(TICKETD, &args, NONE).await;
    assert_eq!(ended.code(), Some(2));
    assert!(
        ended
            .log
            .contains("DATABASE_URL>': it is not set, and --direct needs it"),
        "{}",
        ended.log
    );
    let settings = [
        ("DATABASE_URL", "postgres://127.0.0.1:1/x"),
        ("AMQP_TLS_CA", "/none"),
    ];
    let ended = Process::run(TICKETD, &args, &settings).await;
    assert_eq!(
        (ended.code(), ended.text().lines().last()),
        (Some(1), Some("0\t1"))
    );
    let ended = Process::run(TICKETD, &["import", "/none"], &settings).await;
    assert_eq!(ended.code(), Some(2), "{}", ended.log);
}
