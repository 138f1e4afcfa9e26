//! Messages that another producer published, or that come twice: each ends as a row or as a dead
//! row, and never holds up the others.

use std::time::{Duration, Instant};

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use uuid::Uuid;

use ticketd_testing::*;

use crate::TICKETD;

/// One ticket as text/plain with a message id is stored like our own: publishes it with several
/// ways to give its type and its time.
#[tokio::test]
async fn a_foreign_ticket_is_stored() {
    let namespace = Namespace::new(TICKETD).await;
    let _ticketd = namespace.ready("serve", &[]).await;
    let id = Uuid::now_v7();
    namespace
        .publish(
            ticket_properties(id, 1_500_000_000_123_456),
            EXAMPLE.as_bytes(),
        )
        .await;
    let row = namespace.row(id).await;
    assert!(row.valid);
    assert_eq!(row.received_at_us, 1_500_000_000_123_456);

    let seconds = Uuid::now_v7();
    let properties = BasicProperties::default()
        .with_content_type("Text/Plain; charset=utf-8".into())
        .with_message_id(seconds.simple().to_string().into())
        .with_timestamp(1_500_000_000);
    namespace.publish(properties, EXAMPLE.as_bytes()).await;
    assert_eq!(
        namespace.row(seconds).await.received_at_us,
        1_500_000_000_000_000
    );

    let bare = Uuid::now_v7();
    let properties = BasicProperties::default().with_message_id(bare.to_string().into());
    namespace.publish(properties, EXAMPLE.as_bytes()).await;
    let now = "select received_at > now() - interval '1 minute' from tickets where ticket_id = $1";
    namespace.row(bare).await;
    let row = namespace.database.query_one(now, &[&bare]).await.unwrap();
    assert!(row.get::<_, bool>(0));
}

/// A producer whose clock is ahead pins nothing: publishes prices that were received in a year, as a
/// ticket and in a group, and then the same products of tickets that came later.
#[tokio::test]
async fn a_clock_that_is_ahead_pins_no_product() {
    const YEAR_US: i64 = 365 * 86_400 * 1_000_000;
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let priced = |product: &str, price: &str| {
        format!(
            "Order: 1\nVAT: 0\nTotal: {price}\n\nproduct,product_id,price\nTea,{product},{price}\n"
        )
    };
    let ahead_us = now_us() + YEAR_US;
    let (single, grouped) = (priced("single", "1.00"), priced("grouped", "1.00"));
    let id = Uuid::now_v7();
    namespace
        .publish(ticket_properties(id, ahead_us), single.as_bytes())
        .await;
    let records = [(Uuid::now_v7(), ahead_us, grouped.as_bytes())];
    namespace.publish(group_properties(), &group(records)).await;
    namespace.stored(2).await;
    let stored_us: Vec<_> = namespace
        .rows()
        .await
        .iter()
        .map(|r| r.received_at_us)
        .collect();
    assert!(stored_us.iter().all(|us| *us <= now_us()), "{stored_us:?}");

    let mut client = ticketd.client().await;
    for product in ["single", "grouped"] {
        let dearer = priced(product, "2.00");
        let later = namespace.accepted(&mut client, &[], &dearer).await;
        namespace.row(later).await;
    }
    let prices: Vec<_> = namespace
        .products()
        .await
        .into_iter()
        .map(|p| p.2)
        .collect();
    assert_eq!(prices, ["2.00", "2.00"]);
    ticketd.logged("ahead").await;
    let ended = ticketd.drained().await;
    let told = ended.log.matches(" ahead").count();
    // Two, if the second message came after the first was told.
    assert!((1..=2).contains(&told), "{}", ended.log);
    assert!(ended.log.contains("ahead=3153"), "{}", ended.log);
}

/// A time of receipt of another type than the documented one is taken where it is a whole number,
/// and otherwise another time is taken and the log says so: publishes several.
#[tokio::test]
async fn a_time_of_receipt_of_a_wrong_type_is_not_passed_over() {
    let namespace = Namespace::new(TICKETD).await;
    let ticketd = namespace.ready("serve", &[]).await;
    let publish = async |value: AMQPValue| {
        let id = Uuid::now_v7();
        let mut headers = FieldTable::default();
        headers.insert("x-received-at-us".into(), value);
        let properties = ticket_properties(id, 0)
            .with_headers(headers)
            .with_timestamp(1_500_000_000);
        namespace.publish(properties, EXAMPLE.as_bytes()).await;
        namespace.row(id).await.received_at_us
    };
    assert_eq!(publish(AMQPValue::LongInt(-7)).await, -7);
    assert_eq!(publish(AMQPValue::ShortShortUInt(200)).await, 200);
    assert_eq!(
        publish(AMQPValue::LongUInt(3_000_000_000)).await,
        3_000_000_000
    );
    assert!(!ticketd.log().contains("x-received-at-us"));
    let text = AMQPValue::LongString("1500000000123456".into());
    for value in [text, AMQPValue::Timestamp(1), AMQPValue::Double(1.5e15)] {
        assert_eq!(publish(value).await, 1_500_000_000_000_000);
    }
    ticketd.logged("x-received-at-us").await;
    ticketd.logged("LongString").await;
    ticketd.drained().await;
}

/// A group made from the documented layout is stored, ticket by ticket: publishes one of valid and
/// invalid tickets.
#[tokio::test]
async fn a_foreign_group_is_stored() {
    let namespace = Namespace::new(TICKETD).await;
    let _ticketd = namespace.ready("serve", &[]).await;
    let bodies = [ticket("a"), "nonsense".to_owned(), ticket("b")];
    let records: Vec<_> = (1..)
        .zip(&bodies)
        .map(|(n, body)| (Uuid::now_v7(), n * 1_000_000, body.as_bytes()))
        .collect();
    namespace
        .publish(group_properties(), &group(records.clone()))
        .await;
    namespace.stored(3).await;
    for (id, received_at_us, body) in records {
        let row = namespace.row(id).await;
        assert_eq!(row.received_at_us, received_at_us);
        assert_eq!(row.ticket_text.unwrap().as_bytes(), body);
        assert_eq!(row.valid, body != b"nonsense");
    }
}

/// What can never be stored becomes a dead row with its bytes and the reason, and what comes after
/// it is stored: publishes one of each kind, each followed by a good ticket.
#[tokio::test]
async fn what_can_never_be_stored_is_a_dead_row() {
    let namespace = Namespace::new(TICKETD).await;
    let ticketd = namespace.ready("serve", &[]).await;
    let plain = |id: Uuid| ticket_properties(id, 1);
    let (empty, whole) = (group([]), group([(Uuid::now_v7(), 1, b"abc".as_slice())]));
    let cut = &whole[..whole.len() - 1];
    let lying = [&whole[..24], &u32::MAX.to_be_bytes(), b"abc"].concat();
    let id = Uuid::now_v7();
    let image = plain(id).with_content_type("image/png".into());
    let (good, empty_one) = (
        (Uuid::now_v7(), 1, b"abc".as_slice()),
        (id, 1, b"".as_slice()),
    );
    let hollow = group([good, empty_one, good]);
    let cases: [(BasicProperties, &[u8], &str); 11] = [
        (plain(Uuid::now_v7()), b"Caf\xe9", "UTF-8"),
        (plain(Uuid::now_v7()), b"a\0b", "NUL"),
        (plain(Uuid::now_v7()), b"", "empty"),
        (BasicProperties::default(), EXAMPLE.as_bytes(), "message_id"),
        (
            BasicProperties::default().with_message_id("4711".into()),
            b"x",
            "message_id",
        ),
        (image, b"\x89PNG\0", "image/png"),
        (group_properties(), &empty, "malformed group at byte 0"),
        (group_properties(), cut, "malformed group at byte 0"),
        (group_properties(), &lying, "malformed group at byte 0"),
        (
            group_properties(),
            &[whole.as_slice(), b"more"].concat(),
            "malformed group at byte 31",
        ),
        (group_properties(), &hollow, "empty ticket at byte 31"),
    ];
    for (n, (properties, body, _)) in cases.iter().enumerate() {
        namespace.publish(properties.clone(), body).await;
        let next = Uuid::now_v7();
        namespace
            .publish(plain(next), ticket(&n.to_string()).as_bytes())
            .await;
        namespace.row(next).await;
    }
    let dead = namespace.dead().await;
    assert_eq!(dead.len(), cases.len());
    for (dead, (_, body, why)) in dead.iter().zip(&cases) {
        assert_eq!(dead.body, *body);
        assert!(dead.reason.contains(why), "{}", dead.reason);
    }
    assert_eq!(dead[5].ticket_id, id, "the id is kept where there is one");
    assert_eq!(namespace.count("tickets").await, cases.len() as i64);
    ticketd.drained().await;
    assert_eq!(namespace.depth(namespace.queue()).await, 0);
}

/// A group has 65,536 tickets at most, and of a larger one none is stored: publishes one of each, of
/// the smallest tickets that can be accepted.
#[tokio::test]
async fn a_group_of_too_many_tickets_is_a_dead_row() {
    const TICKETS_MAX: usize = 65_536;
    let namespace = Namespace::new(TICKETD).await;
    let ticketd = namespace.ready("serve", &[]).await;
    let tickets = |count| group((0..count).map(|_| (Uuid::now_v7(), 1, b"x".as_slice())));
    let too_many = tickets(TICKETS_MAX + 1);
    namespace.publish(group_properties(), &too_many).await;
    namespace
        .publish(group_properties(), &tickets(TICKETS_MAX))
        .await;
    namespace.stored(TICKETS_MAX as i64).await;
    let dead = namespace.dead().await;
    assert_eq!(dead.len(), 1);
    assert!(dead[0].body == too_many && dead[0].reason.contains("65536"));
    ticketd.drained().await;
    assert_eq!(namespace.depth(namespace.queue()).await, 0);
}

/// A batch that did not fill leaves the cores to others while it is written: lets one batch say that
/// load is high, so that the next one waits for its age, and looks how long PostgreSQL is given for
/// its six megabytes. At once they take a few hundredths of a second.
#[tokio::test]
async fn a_batch_that_did_not_fill_is_written_in_pieces() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[("BATCH_AGE", "2s")]).await;
    let body = vec![b'x'; 1500];
    let records = |tickets, bytes| {
        let body = &body[..bytes];
        group((0..tickets).map(|_| (Uuid::now_v7(), 0, body)))
    };
    namespace
        .publish(group_properties(), &records(300, 1))
        .await;
    for _ in 0..24 {
        namespace
            .publish(group_properties(), &records(160, 1500))
            .await;
    }
    wait_until("all stored", async || {
        namespace.count("tickets").await == 300 + 24 * 160
    })
    .await;
    let page = ticketd.client().await.ask(get("/metrics")).await;
    let copied = metric(page.text(), "ticketd_flush_seconds_sum{stage=\"copy\"}");
    assert!(copied.is_some_and(|seconds| seconds > 0.15), "{copied:?}");
}

/// A backlog of small groups drains as fast as it can be stored, though no batch of what may be held
/// at once reaches a limit: fills each of the queues that are read, so that waiting for `BATCH_AGE`
/// with everything in hand would take it four times. The rest of a backlog may wait for it once.
#[tokio::test]
async fn a_backlog_of_small_groups_does_not_wait_to_fill() {
    const BATCH_AGE: Duration = Duration::from_secs(3);
    let namespace = Namespace::new(TICKETD).await;
    namespace.ready("accept", &[]).await.drained().await;
    let mut stored = 0;
    // Of the second queue 8 messages are held, whatever the setting.
    for (queue, messages, tickets) in [(namespace.queue(), 300, 8), (&namespace.unrouted(), 40, 40)]
    {
        for _ in 0..messages {
            let records = (0..tickets).map(|_| (Uuid::now_v7(), 0, b"x".as_slice()));
            namespace
                .publish_to(queue, group_properties(), &group(records))
                .await;
        }
        let settings = [("BATCH_AGE", "3s"), ("PREFETCH", "64")];
        let ticketd = namespace.ready("consume", &settings).await;
        let started = Instant::now();
        stored += messages * tickets;
        namespace.stored(stored).await;
        let took = started.elapsed();
        assert!(took < 2 * BATCH_AGE, "{took:?}");
        ticketd.drained().await;
    }
}

/// A time that PostgreSQL cannot hold makes a dead row, one that is yet to come counts as now, any
/// other is kept, and none stops the consumer: publishes the extremes as tickets and in one group.
#[tokio::test]
async fn no_time_of_receipt_stops_the_consumer() {
    let namespace = Namespace::new(TICKETD).await;
    let ticketd = namespace.ready("serve", &[]).await;
    let times_us = [
        i64::MIN,
        i64::MIN + 1,
        -1,
        0,
        i64::MAX - 1,
        i64::MAX,
        946_684_800_000_000,
    ];
    let mut records = Vec::new();
    for time_us in times_us {
        let id = Uuid::now_v7();
        namespace
            .publish(ticket_properties(id, time_us), EXAMPLE.as_bytes())
            .await;
        records.push((Uuid::now_v7(), time_us, EXAMPLE.as_bytes()));
    }
    let seconds = ticket_properties(Uuid::now_v7(), 0)
        .with_headers(FieldTable::default())
        .with_timestamp(u64::MAX);
    namespace.publish(seconds, EXAMPLE.as_bytes()).await;
    namespace.publish(group_properties(), &group(records)).await;
    let sent = 2 * times_us.len() as i64 + 1;
    wait_until("each a row or a dead row", async || {
        namespace.count("tickets").await + namespace.count("dead_tickets").await == sent
    })
    .await;
    let stored: Vec<_> = namespace
        .rows()
        .await
        .into_iter()
        .map(|row| row.received_at_us)
        .collect();
    for time_us in [-1, 0, 946_684_800_000_000] {
        assert_eq!(
            stored.iter().filter(|&&t| t == time_us).count(),
            2,
            "{time_us}"
        );
    }
    assert!(!stored.contains(&i64::MIN));
    assert!(stored.iter().all(|&time_us| time_us <= now_us()));
    let timeless = "select bool_and(received_at is null) from dead_tickets";
    let row = namespace.database.query_one(timeless, &[]).await.unwrap();
    assert!(row.get::<_, bool>(0), "no other time is made up");
    ticketd.drained().await;
    assert_eq!(namespace.depth(namespace.queue()).await, 0);
}

/// A message that comes twice is stored once: publishes a ticket and a group twice each, and a group
/// that holds a ticket twice.
#[tokio::test]
async fn a_repeated_message_is_stored_once() {
    let namespace = Namespace::new(TICKETD).await;
    let ticketd = namespace.ready("serve", &[]).await;
    let bodies: Vec<String> = (0..50).map(|n| ticket(&n.to_string())).collect();
    let records: Vec<_> = bodies
        .iter()
        .map(|body| (Uuid::now_v7(), 1_000_000, body.as_bytes()))
        .collect();
    let single = ticket_properties(Uuid::now_v7(), 1);
    for _ in 0..2 {
        namespace.publish(single.clone(), EXAMPLE.as_bytes()).await;
        namespace
            .publish(group_properties(), &group(records.clone()))
            .await;
    }
    let with_new = [(Uuid::now_v7(), 1, EXAMPLE.as_bytes())];
    let doubled = records.iter().chain(&records).chain(&with_new).copied();
    namespace.publish(group_properties(), &group(doubled)).await;
    namespace.row(with_new[0].0).await;
    assert_eq!(namespace.count("tickets").await, 52);
    assert_eq!(namespace.count("dead_tickets").await, 0);
    ticketd.drained().await;
    assert_eq!(namespace.depth(namespace.queue()).await, 0);
}

/// Writers that store the same tickets at the same time store each once, in whatever order they meet
/// them: publishes one group many times, every other time backwards, to several writers.
#[tokio::test]
async fn writers_may_meet_the_same_tickets() {
    let namespace = Namespace::new(TICKETD).await;
    let settings = [("WRITERS", "3"), ("BATCH_ROWS", "100")];
    let ticketd = namespace.ready("serve", &settings).await;
    let bodies: Vec<String> = (0..100).map(|n| ticket(&n.to_string())).collect();
    let records: Vec<_> = bodies
        .iter()
        .map(|body| (Uuid::now_v7(), 1_000_000, body.as_bytes()))
        .collect();
    let forwards = group(records.iter().copied());
    let backwards = group(records.iter().rev().copied());
    for _ in 0..15 {
        namespace.publish(group_properties(), &forwards).await;
        namespace.publish(group_properties(), &backwards).await;
    }
    let last = Uuid::now_v7();
    namespace
        .publish(ticket_properties(last, 1), EXAMPLE.as_bytes())
        .await;
    namespace.row(last).await;
    ticketd.drained().await;
    assert_eq!(namespace.depth(namespace.queue()).await, 0);
    assert_eq!(namespace.count("tickets").await, 101);
    assert_eq!(namespace.dead().await, []);
}
