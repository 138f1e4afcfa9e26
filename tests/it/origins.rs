//! Who sent a ticket and when it was issued: on the way, in the tables, and back.

use lapin::types::AMQPValue;
use serde_json::Value;
use uuid::Uuid;

use ticketd_testing::*;

use crate::TICKETD;

/// The header, the time in it, and how the table shows it.
const ISSUED_AT: &str = "Ticket-Issued-At: 2026-11-20T23:30:00.123456+01:00";
const ISSUED_AT_US: i64 = 1_795_213_800_123_456;
const SHOWN: &str = "2026-11-20 22:30:00.123456";

fn shown(
    source: Option<&str>,
    issued_at: Option<&str>,
) -> Option<(Option<String>, Option<String>)> {
    Some((source.map(str::to_owned), issued_at.map(str::to_owned)))
}

fn sourced<'a>(source: &'a str, issued_at_us: i64, body: &'a str) -> SourcedRecord<'a> {
    SourcedRecord {
        id: Uuid::now_v7(),
        received_at_us: 1_000_000,
        source,
        issued_at_us,
        body: body.as_bytes(),
    }
}

/// Posts tickets, each of them with these header lines at every other place.
async fn send(
    mut client: Client,
    sender: usize,
    count: usize,
    headers: &'static [&str],
) -> Vec<Uuid> {
    let mut ids = Vec::new();
    for n in 0..count {
        let body = ticket(&format!("{sender}-{n}"));
        let headers = if n % 2 == 0 { headers } else { &[] };
        ids.push(client.ask(post(headers, body)).await.id());
    }
    ids
}

/// Posts many tickets at once, half of them with a time of issue; returns those, and the others.
async fn send_many(ticketd: &mut Process) -> (Vec<Uuid>, Vec<Uuid>) {
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..30 {
        senders.spawn(send(ticketd.client().await, sender, 10, &[ISSUED_AT]));
    }
    let ids = senders.join_all().await.into_iter().flatten().enumerate();
    let (issued, plain): (Vec<_>, Vec<_>) = ids.partition(|(n, _)| n % 2 == 0);
    let ids = |numbered: Vec<(usize, Uuid)>| numbered.into_iter().map(|(_, id)| id).collect();
    (ids(issued), ids(plain))
}

/// The time of issue reaches the table and the ticket's state, and without one both are null: posts
/// a ticket of each kind.
#[tokio::test]
async fn the_time_of_issue_is_stored_and_shown() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let mut client = ticketd.client().await;
    let issued = namespace.accepted(&mut client, &[ISSUED_AT], EXAMPLE).await;
    let plain = namespace.accepted(&mut client, &[], EXAMPLE).await;
    for (id, time) in [(issued, Some(SHOWN)), (plain, None)] {
        namespace.row(id).await;
        assert_eq!(namespace.origin("tickets", id).await, shown(None, time));
        let state = client.ask(get(&format!("/ticket/{id}"))).await.json();
        assert_eq!(state["source"], Value::Null);
        assert_eq!(state["issued_at"].is_null(), time.is_none(), "{state}");
    }
    let state = client.ask(get(&format!("/ticket/{issued}"))).await.json();
    let same = "select $1::text::timestamptz = '2026-11-20T23:30:00.123456+01:00'";
    let told = state["issued_at"].as_str().unwrap();
    let row = namespace.database.query_one(same, &[&told]).await.unwrap();
    assert!(row.get::<_, bool>(0), "{told}");
}

/// A time of issue that is none is 400, and nothing is stored: posts some, and then a good one.
#[tokio::test]
async fn a_wrong_time_of_issue_is_400() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let mut client = ticketd.client().await;
    for headers in [
        &["Ticket-Issued-At: yesterday"][..],
        &["Ticket-Issued-At: 2026-11-20T23:30:00"],
        &["Ticket-Issued-At:"],
        &["ticket-issued-at: 1795213800"],
        &[ISSUED_AT, ISSUED_AT],
    ] {
        let answer = client.ask(post(headers, EXAMPLE)).await;
        let problem = answer.problem(400);
        assert!(problem.contains("Ticket-Issued-At"), "{problem}");
    }
    let id = namespace.accepted(&mut client, &[ISSUED_AT], EXAMPLE).await;
    namespace.row(id).await;
    assert_eq!(namespace.count("tickets").await, 1);
}

/// Tickets with a time of issue share messages with others, and each keeps its own: posts many of
/// both kinds at once.
#[tokio::test]
async fn tickets_of_both_kinds_share_messages() {
    let namespace = Namespace::new(TICKETD).await;
    let mut accept = namespace.ready("accept", &[]).await;
    let (issued, plain) = send_many(&mut accept).await;
    accept.drained().await;
    let messages = namespace.depth(namespace.queue()).await;
    assert!(messages < 250, "{messages}");
    let consume = namespace.ready("consume", &[]).await;
    namespace.stored((issued.len() + plain.len()) as i64).await;
    for (ids, time) in [(issued, Some(SHOWN)), (plain, None)] {
        for id in ids {
            assert_eq!(namespace.origin("tickets", id).await, shown(None, time));
        }
    }
    consume.drained().await;
    assert_eq!(namespace.count("dead_tickets").await, 0);
}

/// What a consumer of before version 2 can read is all that is written with `WIRE_FORMAT=1`, and for
/// tickets without a time of issue whatever the setting: posts many at once and looks at each message.
#[tokio::test]
async fn an_older_consumer_can_read_what_is_written_for_it() {
    for (format, with_times) in [("1", true), ("2", false)] {
        let namespace = Namespace::new(TICKETD).await;
        let settings = [("WIRE_FORMAT", format)];
        let mut accept = namespace.ready("accept", &settings).await;
        let (issued, plain) = if with_times {
            send_many(&mut accept).await
        } else {
            (vec![], send(accept.client().await, 1, 20, &[]).await)
        };
        accept.drained().await;
        let (mut tickets, mut with_header) = (0, 0);
        for _ in 0..namespace.depth(namespace.queue()).await {
            let message = namespace.take().await;
            let properties = message.properties;
            let name = properties.content_type().as_ref().unwrap().as_str();
            if name == "text/plain" {
                tickets += 1;
                let headers = properties.headers().as_ref().unwrap().inner();
                let issued_at = headers.get("x-issued-at-us");
                with_header +=
                    usize::from(issued_at == Some(&AMQPValue::LongLongInt(ISSUED_AT_US)));
                continue;
            }
            assert_eq!(name, "application/x-ticket-group");
            tickets += in_group_of_version_1(&message.data);
        }
        assert_eq!(
            (tickets, with_header),
            (issued.len() + plain.len(), issued.len())
        );
    }
}

/// How many tickets there are in it, as a consumer of before version 2 counts.
fn in_group_of_version_1(mut payload: &[u8]) -> usize {
    let mut tickets = 0;
    while let Some((head, rest)) = payload.split_at_checked(28) {
        let length = u32::from_be_bytes(head[24..].try_into().unwrap());
        payload = &rest[length as usize..];
        tickets += 1;
    }
    assert_eq!(payload, b"");
    tickets
}

/// A group of version 2 made from the documented layout is stored, ticket by ticket, and so is a
/// ticket with the documented headers: publishes one of each.
#[tokio::test]
async fn foreign_messages_with_a_source_are_stored() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let longest = "s".repeat(64);
    let records = [
        sourced("shop-1.till_2", ISSUED_AT_US, EXAMPLE),
        sourced(&longest, i64::MIN, "nonsense"),
        sourced("", ISSUED_AT_US, EXAMPLE),
        sourced("", i64::MIN, EXAMPLE),
        // Before all calendars.
        sourced("a", i64::MIN + 1, EXAMPLE),
        sourced("a", i64::MAX, EXAMPLE),
    ];
    let payload = sourced_group(records);
    namespace
        .publish(sourced_group_properties(), &payload)
        .await;
    let single = Uuid::now_v7();
    let properties = sourced_properties(single, "shop-1", ISSUED_AT_US);
    namespace.publish(properties, EXAMPLE.as_bytes()).await;
    namespace.stored(7).await;
    let mut client = ticketd.client().await;
    let expected = [
        (Some("shop-1.till_2"), Some(SHOWN)),
        (Some(longest.as_str()), None),
        (None, Some(SHOWN)),
        (None, None),
        (Some("a"), None),
    ];
    for (record, (source, time)) in records.iter().zip(expected) {
        assert_eq!(
            namespace.origin("tickets", record.id).await,
            shown(source, time)
        );
        let state = client.ask(get(&format!("/ticket/{}", record.id))).await;
        assert_eq!(state.json()["source"].as_str(), source);
    }
    let last = namespace.origin("tickets", records[5].id).await.unwrap();
    assert!(last.1.is_some(), "any time that is to come is kept");
    assert_eq!(
        namespace.origin("tickets", single).await,
        shown(Some("shop-1"), Some(SHOWN))
    );
    ticketd.drained().await;
    assert_eq!(namespace.depth(namespace.queue()).await, 0);
}

/// What is wrong with a group of version 2 makes one dead row of it, and a header that is wrong is
/// logged and not used: publishes some of each, each followed by a good ticket.
#[tokio::test]
async fn malformed_messages_with_a_source_hold_up_nothing() {
    let namespace = Namespace::new(TICKETD).await;
    let ticketd = namespace.ready("serve", &[]).await;
    let good = sourced_group([sourced("shop-1", 1, "abc")]);
    let changed = |at: usize, byte: u8| {
        let mut payload = good.clone();
        payload[at] = byte;
        payload
    };
    let cases = [
        changed(24, 128 + 65),
        changed(24, 6),
        changed(33, 0xff),
        changed(37, b'S'),
        good[..good.len() - 1].to_vec(),
        [good.as_slice(), b"more"].concat(),
        sourced_group([sourced("shop-1", 1, "")]),
        group([(Uuid::now_v7(), 1, b"abc".as_slice())]),
        vec![],
    ];
    for (n, payload) in cases.iter().enumerate() {
        namespace.publish(sourced_group_properties(), payload).await;
        namespace.filled("dead_tickets", n as i64 + 1).await;
    }
    for (dead, payload) in namespace.dead().await.iter().zip(&cases) {
        assert_eq!(&dead.body, payload);
        assert!(
            dead.reason.starts_with("malformed group"),
            "{}",
            dead.reason
        );
    }
    let id = Uuid::now_v7();
    let properties = sourced_properties(id, "Shop 1", ISSUED_AT_US);
    namespace.publish(properties, EXAMPLE.as_bytes()).await;
    namespace.row(id).await;
    assert_eq!(
        namespace.origin("tickets", id).await,
        shown(None, Some(SHOWN))
    );
    ticketd.logged("x-source").await;
    assert_eq!(namespace.count("tickets").await, 1);
}

/// A dead ticket keeps its source and time, and a replay gives both back: publishes a ticket that a
/// constraint refuses, in a group and alone, and replays both once the constraint is gone; and two
/// texts of one id.
#[tokio::test]
async fn a_dead_ticket_keeps_its_source_and_time() {
    let namespace = Namespace::new(TICKETD).await;
    namespace.run(&["migrate"], &[]).await;
    let refuse = "alter table tickets add constraint poison check (order_id not in ('444', '445'))";
    namespace.database.batch_execute(refuse).await.unwrap();
    let ticketd = namespace.ready("serve", &[]).await;
    let (first, second) = (ticket("444"), ticket("445"));
    let good = ticket("446");
    let records = ["a", "b"].map(|source| sourced(source, ISSUED_AT_US, &good));
    let refused = sourced("shop-1", ISSUED_AT_US, &first);
    let payload = sourced_group([records[0], refused, records[1]]);
    namespace
        .publish(sourced_group_properties(), &payload)
        .await;
    namespace.filled("dead_tickets", 1).await;
    let alone = Uuid::now_v7();
    let properties = sourced_properties(alone, "shop-1", ISSUED_AT_US);
    namespace
        .publish(properties.clone(), second.as_bytes())
        .await;
    namespace.filled("dead_tickets", 2).await;
    let expected = shown(Some("shop-1"), Some(SHOWN));
    for id in [refused.id, alone] {
        assert_eq!(namespace.origin("dead_tickets", id).await, expected);
    }
    let allow = "alter table tickets drop constraint poison";
    namespace.database.batch_execute(allow).await.unwrap();
    for dead in namespace.dead().await {
        let number = dead.number.to_string();
        let replay = namespace.run(&["dead", "replay", &number], &[]).await;
        assert_eq!(replay.code(), Some(0), "{}", replay.log);
        namespace.row(dead.ticket_id).await;
        assert_eq!(namespace.origin("tickets", dead.ticket_id).await, expected);
    }
    // Another text of the same id.
    namespace.publish(properties, good.as_bytes()).await;
    namespace.filled("dead_tickets", 1).await;
    assert_eq!(namespace.origin("dead_tickets", alone).await, expected);
    ticketd.drained().await;
    assert_eq!(namespace.count("tickets").await, 4);
}

/// A consumer of before version 2 sets a group of version 2 aside whole, and a replay brings its
/// tickets back, each once: puts one into `dead_tickets` as that does, with a ticket that is stored
/// already.
#[tokio::test]
async fn a_group_that_an_older_consumer_set_aside_is_replayed() {
    let namespace = Namespace::new(TICKETD).await;
    let ticketd = namespace.ready("serve", &[]).await;
    let records = [
        sourced("shop-1", ISSUED_AT_US, EXAMPLE),
        sourced("shop-2", i64::MIN, "nonsense"),
    ];
    let stored = sourced_group([records[1]]);
    namespace.publish(sourced_group_properties(), &stored).await;
    namespace.stored(1).await;
    let payload = sourced_group(records);
    // What its code finds: no record, at the first byte.
    assert!(u32::from_be_bytes(payload[24..28].try_into().unwrap()) > i32::MAX as u32);
    let set_aside = "insert into dead_tickets (ticket_id, reason, body, received_at) \
        values (gen_random_uuid(), 'malformed group at byte 0', $1, now())";
    let inserted = namespace.database.execute(set_aside, &[&payload]).await;
    assert_eq!(inserted.unwrap(), 1);
    let number = namespace.dead().await[0].number.to_string();
    let replay = namespace.run(&["dead", "replay", &number], &[]).await;
    assert_eq!(replay.code(), Some(0), "{}", replay.log);
    let ids: Vec<Uuid> = replay
        .text()
        .lines()
        .map(|id| id.parse().unwrap())
        .collect();
    assert_eq!(ids, records.map(|record| record.id));
    namespace.row(records[0].id).await;
    let expected = [(Some("shop-1"), Some(SHOWN)), (Some("shop-2"), None)];
    for (record, (source, time)) in records.iter().zip(expected) {
        assert_eq!(
            namespace.origin("tickets", record.id).await,
            shown(source, time)
        );
    }
    assert_eq!(namespace.count("tickets").await, 2);
    assert_eq!(namespace.count("dead_tickets").await, 0);
    ticketd.drained().await;
}
