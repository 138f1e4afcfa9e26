//! Every bound that a sender or an operator can meet: what lies on it is taken whole, and what lies
//! beyond it is refused.

use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::types::ShortString;

use crate::http::chunked;
use ticketd_testing::*;

use crate::TICKETD;

/// The default of `BODY_MAX`, and the most that it may be.
const BODY_MAX: usize = 65_536;
const BODY_MAX_MOST: usize = 1_048_576;

/// The longest key, in bytes.
const KEY_BYTES_MAX: usize = 255;

/// The longest order id, product name and product id, in characters.
const CHARACTERS_MAX: usize = 255;

/// The longest head of a request, in bytes.
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// So many characters, of four bytes each but for the last one.
fn wide(characters: usize, last: char) -> String {
    format!("{}{last}", "𝄞".repeat(characters - 1))
}

/// Of two keys of the greatest length every character counts, the last one too: posts a ticket each,
/// by both headers, and then both again.
#[tokio::test]
async fn keys_may_differ_only_at_their_end() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let mut client = ticketd.client().await;
    let mut ids = Vec::new();
    for last in ["a", "b", "a", "b"] {
        let key = format!("{}{last}", "k".repeat(KEY_BYTES_MAX - 1));
        let header = ["Idempotency-Key", "webhook-id"][ids.len() / 2];
        let header = format!("{header}: {key}");
        ids.push(
            namespace
                .accepted(&mut client, &[&header], &ticket(last))
                .await,
        );
    }
    assert_ne!(ids[0], ids[1]);
    assert_eq!(ids[..2], ids[2..]);
    namespace.filled("tickets", 2).await;
    ticketd.drained().await;
    let texts = namespace
        .rows()
        .await
        .into_iter()
        .map(|row| row.ticket_text.unwrap());
    let mut texts: Vec<_> = texts.collect();
    texts.sort();
    assert_eq!(texts, [ticket("a"), ticket("b")]);
    assert_eq!(namespace.count("dead_tickets").await, 0);
}

/// Of two bodies of the greatest size every byte counts, the last one too: posts both with one key,
/// of which the second goes to `dead_tickets`.
#[tokio::test]
async fn bodies_may_differ_only_at_their_end() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let mut client = ticketd.client().await;
    let key = ["Idempotency-Key: till-7/1"];
    let body = |last: &str| format!("{}{last}", "x".repeat(BODY_MAX - 1));
    let id = namespace.accepted(&mut client, &key, &body("1")).await;
    for last in ["1", "2"] {
        assert_eq!(namespace.accepted(&mut client, &key, &body(last)).await, id);
    }
    namespace.filled("dead_tickets", 1).await;
    ticketd.drained().await;
    assert_eq!(namespace.row(id).await.ticket_text, Some(body("1")));
    assert_eq!(namespace.dead().await[0].body, body("2").as_bytes());
    assert_eq!(namespace.count("tickets").await, 1);
}

/// An order id, a name and a product id may have 255 characters, however many bytes those are, are
/// stored whole and are told apart by the last one; with 256 the ticket is invalid. Posts both.
#[tokio::test]
async fn names_are_bounded_in_characters() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let mut client = ticketd.client().await;
    let ticket = |order: &str, products: [(&str, &str); 2]| {
        let line = |(name, id): (&str, &str)| format!("{name},{id},1\n");
        let lines = products.map(line).concat();
        format!("Order: {order}\nVAT: 0\nTotal: 2\n\nproduct,product_id,price\n{lines}")
    };
    let [a, b, too_long] = [
        wide(CHARACTERS_MAX, 'a'),
        wide(CHARACTERS_MAX, 'b'),
        wide(CHARACTERS_MAX + 1, 'a'),
    ];
    let longest = ticket(&a, [(&a, &a), (&b, &b)]);
    let id = namespace.accepted(&mut client, &[], &longest).await;
    let row = namespace.row(id).await;
    assert_eq!(
        (row.valid, row.order_id.as_deref()),
        (true, Some(a.as_str()))
    );
    let product = |text: &String| (text.clone(), text.clone(), "1".to_owned());
    assert_eq!(namespace.products().await, [product(&a), product(&b)]);
    for (order, products, reason) in [
        (&too_long, [("a", "a"), ("b", "b")], "bad_order:1"),
        (&a, [("a", "a"), (&*too_long, "b")], "bad_product_line:7"),
        (&a, [("a", "a"), ("b", &*too_long)], "bad_product_line:7"),
    ] {
        let id = namespace
            .accepted(&mut client, &[], &ticket(order, products))
            .await;
        assert_eq!(
            namespace.row(id).await.invalid_reason.as_deref(),
            Some(reason)
        );
    }
}

/// A head of exactly 16 KiB is taken and one byte more is 431: sends both.
#[tokio::test]
async fn the_limit_of_a_head_is_exact() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[]).await;
    let around = "GET /livez HTTP/1.1\r\nhost: test\r\nx: \r\n\r\n".len();
    for (bytes, status) in [(HEADER_BYTES_MAX, 200), (HEADER_BYTES_MAX + 1, 431)] {
        let mut client = ticketd.client().await;
        let padding = "y".repeat(bytes - around);
        let head = format!("GET /livez HTTP/1.1\r\nhost: test\r\nx: {padding}\r\n\r\n");
        assert_eq!(client.ask(head).await.status, status, "{bytes} bytes");
    }
}

/// No more messages are held unacknowledged than `PREFETCH`: locks the table of tickets, publishes
/// more, and looks at what is left in the queue.
#[tokio::test]
async fn no_more_messages_are_held_than_prefetch() {
    let namespace = Namespace::new(TICKETD).await;
    let ticketd = namespace.ready("consume", &[("PREFETCH", "7")]).await;
    let lock = "begin; lock table tickets in access exclusive mode";
    namespace.database.batch_execute(lock).await.unwrap();
    for (published, left) in [(20, 13), (1, 14)] {
        for _ in 0..published {
            let properties = ticket_properties(uuid::Uuid::now_v7(), 1);
            namespace.publish(properties, EXAMPLE.as_bytes()).await;
        }
        wait_until(&format!("{left} left in the queue"), async || {
            namespace.depth(namespace.queue()).await == left
        })
        .await;
    }
    namespace.database.batch_execute("rollback").await.unwrap();
    namespace.stored(21).await;
    ticketd.drained().await;
}

/// With every setting at its least a ticket of one byte gets through, and another: runs that.
#[tokio::test]
async fn the_least_settings_work() {
    let namespace = Namespace::new(TICKETD).await;
    // Not the least: what must pass within 100 ms, or end at once, depends on the machine.
    let settings = [
        ("PUBLISH_GROUP_MAX", "1"),
        ("INFLIGHT_MAX", "1"),
        ("BODY_MAX", "1"),
        ("PREFETCH", "1"),
        ("BATCH_ROWS", "1"),
        ("BATCH_BYTES", "1024"),
        ("BATCH_AGE", "0s"),
        ("PRODUCT_REFRESH", "0s"),
        ("WRITERS", "1"),
        ("HOLD_MAX", "1s"),
        ("LAME_DUCK", "0s"),
    ];
    let mut ticketd = namespace.ready("serve", &settings).await;
    let mut client = ticketd.client().await;
    for _ in 0..3 {
        namespace.accepted(&mut client, &[], "x").await;
    }
    client.ask(post(&[], "xy")).await.problem(413);
    namespace.stored(3).await;
    ticketd.drained().await;
}

/// With every setting at its most, names of 200 bytes among them, the largest ticket gets through
/// whole, and one byte more is refused: runs that.
#[tokio::test]
async fn the_most_settings_work() {
    let namespace = Namespace::new(TICKETD).await;
    let name = format!(
        "{}{}",
        namespace.queue(),
        "x".repeat(200 - namespace.queue().len())
    );
    let settings = [
        ("PUBLISH_GROUP_MAX", "16384"),
        ("INFLIGHT_MAX", "4194304"),
        ("BODY_MAX", "1048576"),
        ("CONFIRM_TIMEOUT", "1day"),
        ("PREFETCH", "2000"),
        ("BATCH_ROWS", "1000000"),
        ("BATCH_BYTES", "268435456"),
        ("BATCH_AGE", "1day"),
        ("PRODUCT_REFRESH", "1day"),
        ("WRITERS", "64"),
        ("HOLD_MAX", "1day"),
        ("SHUTDOWN_GRACE", "1day"),
        ("LAME_DUCK", "0s"),
        ("QUEUE", name.as_str()),
    ];
    let mut ticketd = namespace.ready("serve", &settings).await;
    let mut client = ticketd.client().await;
    let body = "x".repeat(BODY_MAX_MOST);
    let mut ids = vec![namespace.accepted(&mut client, &[], &body).await];
    ids.push(client.ask(chunked(&[&body])).await.id());
    for request in [post(&[], format!("{body}x")), chunked(&[&body, "x"])] {
        let mut client = ticketd.client().await;
        assert_eq!(client.ask(request).await.status, 413);
    }
    for id in ids {
        assert_eq!(
            namespace.row(id).await.ticket_text.as_deref(),
            Some(body.as_str())
        );
    }
    ticketd.drained().await;
    let channel = namespace.channel().await;
    for name in [
        name.clone(),
        format!("{name}.unrouted"),
        format!("{name}.dead"),
    ] {
        let name = ShortString::from(name);
        let queue = channel.queue_delete(name.clone(), QueueDeleteOptions::default());
        queue.await.unwrap();
        let exchange = channel.exchange_delete(name, ExchangeDeleteOptions::default());
        exchange.await.unwrap();
    }
}
