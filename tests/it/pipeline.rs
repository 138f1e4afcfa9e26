//! From POST to the rows: what a ticket becomes, and that it does so once.

use std::collections::HashSet;

use uuid::Uuid;

use ticketd_testing::*;

use crate::TICKETD;

/// The documented ticket becomes exactly the documented rows: posts it and compares every column.
#[tokio::test]
async fn the_example_becomes_its_rows() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let mut client = ticketd.client().await;
    let before_us = now_us();
    let id = namespace.accepted(&mut client, &[], EXAMPLE).await;
    let row = namespace.row(id).await;
    let received_at_us = row.received_at_us;
    assert!((before_us..=now_us()).contains(&received_at_us));
    let expected = Row {
        ticket_id: id,
        order_id: Some("123456".into()),
        vat: Some("3.10".into()),
        total: Some("16.90".into()),
        valid: true,
        invalid_reason: None,
        ticket_text: Some(EXAMPLE.into()),
        received_at_us,
    };
    assert_eq!(namespace.rows().await, [expected]);
    let products = [("IZ8z", "Café", "2"), ("aZde", "Formule(s) midi", "14.90")];
    assert_eq!(namespace.products().await, owned(&products));
    let source = "select bool_and(ticket_id = $1 and created_at <= now() and updated_at <= now() \
        and ticket_received_at = 'epoch'::timestamptz + $2 * interval '1 microsecond') from products";
    let micros = received_at_us as f64;
    let row = namespace.database.query_one(source, &[&id, &micros]).await;
    assert!(row.unwrap().get::<_, bool>(0));
    assert_eq!(namespace.count("dead_tickets").await, 0);
}

/// Every valid sample is stored as valid with its values, whatever its line ends, marks, blanks and
/// quotes: posts them all and compares.
#[tokio::test]
async fn valid_tickets_are_stored_with_their_values() {
    let samples = [
        ("example-crlf", "123456", "3.10", "16.90"),
        ("byte-order-mark", "123456", "3.10", "16.90"),
        ("no-line-end", "123456", "3.10", "16.90"),
        ("blanks-everywhere", "55", "0.20", "1.20"),
        ("discount", "é-2041", "1.27", "6.50"),
        ("quotes", "A-77", "0.00", "359.40"),
        ("refund", "R-9", "-0.83", "-5.00"),
        (
            "28-digits",
            "28",
            "0.0000000000000000000000000000",
            "9999999999999999999999999999",
        ),
    ];
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let mut client = ticketd.client().await;
    for (name, order_id, vat, total) in samples {
        let body = std::fs::read_to_string(sample(&format!("valid/{name}.txt"))).unwrap();
        let id = namespace.accepted(&mut client, &[], &body).await;
        let row = namespace.row(id).await;
        assert!(row.valid && row.invalid_reason.is_none(), "{name}: {row:?}");
        let values = (row.order_id.unwrap(), row.vat.unwrap(), row.total.unwrap());
        assert_eq!(
            (values.0.as_str(), values.1.as_str(), values.2.as_str()),
            (order_id, vat, total)
        );
        assert_eq!(row.ticket_text.unwrap(), body, "{name}");
    }
    let products = namespace.products().await;
    for product in [
        ("fish-1", "Fish, chips", "12.50"),
        ("menu-2", "Menu \"du jour\"", "17.00"),
        ("tv-40", "40\" screen", "299.90"),
        ("the,vert", "  Thé  ", "30.00"),
        ("pain", "Pain", "1.20"),
        ("cafe", "Café", "2.00"),
        ("remise", "Remise fidélité", "-2.00"),
        ("v", "Vis rendue", "-0.0000000000000000000000000001"),
    ] {
        assert!(
            products.contains(&owned(&[product])[0]),
            "{product:?} in {products:?}"
        );
    }
}

/// Every invalid sample is kept with its reason, its line, its text and the parts that could be
/// read, and names no product: posts them all and compares.
#[tokio::test]
async fn invalid_tickets_are_kept_with_their_reason() {
    let (order, vat, total) = (Some("123456"), Some("3.10"), Some("16.90"));
    let samples = [
        ("bad_order", "bad_order:1", None, vat, total),
        (
            "bad_product_header",
            "bad_product_header:5",
            order,
            vat,
            total,
        ),
        ("bad_product_line", "bad_product_line:6", order, vat, total),
        ("bad_total", "bad_total:3", order, vat, None),
        ("bad_vat", "bad_vat:2", order, None, total),
        (
            "missing_blank_line",
            "missing_blank_line:4",
            order,
            vat,
            total,
        ),
        ("missing_order", "missing_order:1", None, vat, total),
        ("no_products", "no_products:6", order, vat, total),
        (
            "total_mismatch",
            "total_mismatch:3",
            order,
            vat,
            Some("16.91"),
        ),
    ];
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let mut client = ticketd.client().await;
    for (name, reason, order_id, vat, total) in samples {
        let body = std::fs::read_to_string(sample(&format!("invalid/{name}.txt"))).unwrap();
        let id = namespace.accepted(&mut client, &[], &body).await;
        let row = namespace.row(id).await;
        assert_eq!(
            (row.valid, row.invalid_reason.as_deref()),
            (false, Some(reason))
        );
        assert_eq!(row.order_id.as_deref(), order_id, "{name}");
        assert_eq!(
            (row.vat.as_deref(), row.total.as_deref()),
            (vat, total),
            "{name}"
        );
        assert_eq!(row.ticket_text.unwrap(), body, "{name}");
    }
    assert_eq!(namespace.products().await, []);
    assert_eq!(namespace.count("ticket_lines").await, 0);
}

/// Name and price of a product are those of the newest ticket, and of two at the same time those of
/// the greater id, whatever the order of arrival: publishes every order of three tickets, one by
/// one and as a group.
#[tokio::test]
async fn the_newest_ticket_names_a_product() {
    let namespace = Namespace::new(TICKETD).await;
    let _ticketd = namespace.ready("serve", &[]).await;
    let orders = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ];
    let mut expected = Vec::new();
    for (case, order) in orders.iter().enumerate() {
        for grouped in [false, true] {
            let product = format!("p-{case}-{grouped}");
            let mut ids = [Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7()];
            ids.sort_unstable();
            // The last two were received at the same time.
            let times_us = [1_000_000, 2_000_000, 2_000_000];
            let bodies = ["10", "20", "30"].map(|price| priced(&product, price));
            let records: Vec<_> = order
                .iter()
                .map(|&n| (ids[n], times_us[n], bodies[n].as_bytes()))
                .collect();
            if grouped {
                namespace.publish(group_properties(), &group(records)).await;
            } else {
                for (id, time_us, body) in records {
                    namespace
                        .publish(ticket_properties(id, time_us), body)
                        .await;
                    namespace.row(id).await;
                }
            }
            expected.push((product, "Named 30".to_owned(), "30".to_owned()));
        }
    }
    namespace.stored(36).await;
    assert_eq!(namespace.products().await, expected);
}

/// A ticket near the largest size is stored whole: posts one of 60 KB with a thousand lines.
#[tokio::test]
async fn a_large_ticket_is_stored_whole() {
    const LINES: usize = 1_000;
    let name = "n".repeat(40);
    let lines: String = (0..LINES)
        .map(|n| format!("{name},large-{n},0.01\n"))
        .collect();
    let body = format!("Order: large\nVAT: 1\nTotal: 10.00\n\nproduct,product_id,price\n{lines}");
    assert!(body.len() > 55_000 && body.len() < 65_536, "{}", body.len());
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let id = namespace
        .accepted(&mut ticketd.client().await, &[], &body)
        .await;
    let row = namespace.row(id).await;
    assert!(row.valid, "{:?}", row.invalid_reason);
    assert_eq!(row.ticket_text.unwrap(), body);
    assert_eq!(namespace.count("products").await, LINES as i64);
    assert_eq!(namespace.count("ticket_lines").await, LINES as i64);
}

/// Everything answered 202 is stored once: posts 5,000 tickets over 64 connections and compares ids.
#[tokio::test]
async fn every_accepted_ticket_is_stored_once() {
    stored_once(64, 5_000, &[]).await;
}

/// The same without groups.
#[tokio::test]
async fn every_accepted_ticket_is_stored_once_without_groups() {
    stored_once(16, 1_000, &[("PUBLISH_GROUP_MAX", "1")]).await;
}

/// The same with several writers that finish in any order, and small batches.
#[tokio::test]
async fn every_accepted_ticket_is_stored_once_by_several_writers() {
    let settings = [
        ("WRITERS", "3"),
        ("BATCH_ROWS", "20"),
        ("PUBLISH_GROUP_MAX", "7"),
        ("PREFETCH", "50"),
    ];
    stored_once(32, 1_000, &settings).await;
}

async fn stored_once(connections: usize, tickets: usize, settings: &[(&str, &str)]) {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", settings).await;
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..connections {
        let client = ticketd.client().await;
        let count = tickets / connections + usize::from(sender < tickets % connections);
        senders.spawn(send(client, sender, count));
    }
    let accepted: HashSet<Uuid> = senders.join_all().await.into_iter().flatten().collect();
    assert_eq!(accepted.len(), tickets);
    namespace.stored(tickets as i64).await;
    let stored: HashSet<Uuid> = namespace
        .rows()
        .await
        .into_iter()
        .map(|row| row.ticket_id)
        .collect();
    assert_eq!(stored, accepted);
    assert_eq!(namespace.count("products").await, tickets as i64);
    assert_eq!(namespace.count("dead_tickets").await, 0);
    ticketd.drained().await;
    assert_eq!(
        namespace.depth(namespace.queue()).await,
        0,
        "not acknowledged"
    );
}

/// Posts tickets that must all be accepted.
async fn send(mut client: Client, sender: usize, count: usize) -> Vec<Uuid> {
    let mut ids = Vec::with_capacity(count);
    for n in 0..count {
        let body = ticket(&format!("{sender}-{n}"));
        ids.push(client.ask(post(&[], body)).await.id());
    }
    ids
}

/// With `PUBLISH_GROUP_MAX=1` every message is one ticket, and by default tickets that come together
/// share one: sends many at once without a consumer and looks at the messages.
#[tokio::test]
async fn groups_are_as_large_as_they_may_be() {
    const TICKETS: usize = 200;
    for (max, grouped) in [("1", false), ("1024", true)] {
        let namespace = Namespace::new(TICKETD).await;
        let mut ticketd = namespace
            .ready("accept", &[("PUBLISH_GROUP_MAX", max)])
            .await;
        let mut senders = tokio::task::JoinSet::new();
        for sender in 0..TICKETS / 10 {
            senders.spawn(send(ticketd.client().await, sender, 10));
        }
        let ids: HashSet<Uuid> = senders.join_all().await.into_iter().flatten().collect();
        assert_eq!(ids.len(), TICKETS);
        let messages = namespace.depth(namespace.queue()).await;
        assert_eq!(messages < TICKETS as u32, grouped, "{messages} messages");
        if !grouped {
            let content_type = namespace.take().await.properties.content_type().clone();
            assert_eq!(content_type.unwrap().as_str(), "text/plain");
        }
    }
}

/// A queue that loses its binding loses no ticket: what cannot be routed waits in another queue,
/// which is read too. Cuts the binding under load.
#[tokio::test]
async fn tickets_that_cannot_be_routed_are_stored() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let (early, late) = (ticketd.client().await, ticketd.client().await);
    let sending = tokio::spawn(send(early, 0, 300));
    namespace.filled_at_least("tickets", 20).await;
    namespace.unbind().await;
    let mut accepted = send(late, 1, 100).await;
    accepted.extend(sending.await.unwrap());
    namespace.stored(400).await;
    let stored: HashSet<Uuid> = namespace
        .rows()
        .await
        .into_iter()
        .map(|row| row.ticket_id)
        .collect();
    assert!(accepted.iter().all(|id| stored.contains(id)));
    ticketd.drained().await;
    assert_eq!(namespace.depth(&namespace.unrouted()).await, 0);
}

/// The view gives the lines of valid tickets: it is compared with the products of many tickets, of
/// which each names its own.
#[tokio::test]
async fn the_view_of_lines_agrees_with_the_products() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let mut client = ticketd.client().await;
    let mut sent = 0;
    for folder in ["valid", "invalid"] {
        for file in std::fs::read_dir(sample(folder)).unwrap() {
            let body = std::fs::read_to_string(file.unwrap().path()).unwrap();
            namespace.accepted(&mut client, &[], &body).await;
            sent += 1;
        }
    }
    namespace.stored(sent).await;
    let latest = "select product_id, name, price::text from ( \
            select distinct on (product_id) ticket_lines.* \
            from ticket_lines join tickets using (ticket_id) \
            order by product_id, received_at desc, ticket_id desc, line_number desc \
        ) as latest order by product_id collate \"C\"";
    let rows = namespace.database.query(latest, &[]).await.unwrap();
    let lines: Vec<(String, String, String)> = rows
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    assert!(lines.len() > 10, "{lines:?}");
    assert_eq!(lines, namespace.products().await);
    let totals = "select count(*) from tickets where valid and total is distinct from \
        (select sum(price) from ticket_lines where ticket_lines.ticket_id = tickets.ticket_id)";
    let wrong = namespace.database.query_one(totals, &[]).await.unwrap();
    assert_eq!(
        wrong.get::<_, i64>(0),
        0,
        "tickets whose lines do not add up"
    );
}

/// A valid ticket that names one product at that price.
fn priced(product_id: &str, price: &str) -> String {
    format!(
        "Order: 1\nVAT: 1\nTotal: {price}\n\nproduct,product_id,price\nNamed {price},{product_id},{price}\n"
    )
}
