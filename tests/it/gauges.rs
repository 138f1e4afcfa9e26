//! What alarms rest on: how old the backlog is, what is dead, who is silent, and who is on its way out.

use uuid::Uuid;

use ticketd_testing::*;

use crate::TICKETD;
use crate::senders::{LINES, OPERATOR, SHOP_1, get_with};

const AGE: &str = "ticketd_backlog_age_seconds";

/// A gauge, as the admin listener has it.
async fn shown(admin: &mut Client, series: &str) -> f64 {
    let page = admin.ask(get("/metrics")).await;
    metric(page.text(), series).expect("the gauge")
}

/// Publishes a ticket that was received so many seconds ago.
async fn publish(namespace: &Namespace, seconds: i64) {
    let received_at_us = now_us() - seconds * 1_000_000;
    let properties = ticket_properties(Uuid::now_v7(), received_at_us);
    namespace.publish(properties, EXAMPLE.as_bytes()).await;
}

/// The age of the backlog is that of its oldest ticket, goes on growing when PostgreSQL is away for
/// longer than `HOLD_MAX` and when the consumer has lost RabbitMQ, and is 0 once all is stored; it is
/// not known before PostgreSQL was there. Cuts both ways off, with tickets that came before.
#[tokio::test]
async fn the_backlog_is_as_old_as_its_oldest_ticket() {
    let namespace = Namespace::new(TICKETD).await;
    namespace.run(&["migrate"], &[]).await;
    let mut way = Forwarder::shut();
    let url = way.url(&namespace.database_url());
    let settings = [("DATABASE_URL", url.as_str()), ("HOLD_MAX", "1s")];
    let mut consume = namespace.start("consume", &settings);
    let mut admin = consume.admin().await;
    wait_until("not known", async || shown(&mut admin, AGE).await.is_nan()).await;
    way.open(&namespace.database_url());
    wait_until("none", async || shown(&mut admin, AGE).await == 0.0).await;

    way.cut();
    drop(way);
    for seconds in [50, 100, 70] {
        publish(&namespace, seconds).await;
    }
    wait_until("the oldest", async || shown(&mut admin, AGE).await >= 100.0).await;
    let connected = "ticketd_amqp_connected{role=\"consume\"}";
    wait_until("the deliveries go back", async || {
        shown(&mut admin, connected).await == 0.0
    })
    .await;
    let before = shown(&mut admin, AGE).await;
    wait_until("it grows older", async || {
        shown(&mut admin, AGE).await >= before + 1.0
    })
    .await;

    let mut other = namespace.ready("consume", &[]).await;
    namespace.filled("tickets", 3).await;
    let mut admin = other.admin().await;
    wait_until("stored", async || shown(&mut admin, AGE).await == 0.0).await;
}

/// What the tables refuse, and so is held, has its age: adds a constraint that nothing meets.
#[tokio::test]
async fn what_is_held_grows_older() {
    let namespace = Namespace::new(TICKETD).await;
    namespace.run(&["migrate"], &[]).await;
    let refuse = "alter table tickets add constraint nothing_fits check (ticket_text is null)";
    namespace.database.batch_execute(refuse).await.unwrap();
    let mut consume = namespace.ready("consume", &[]).await;
    let mut admin = consume.admin().await;
    for _ in 0..5 {
        publish(&namespace, 1_000).await;
    }
    wait_until("old", async || shown(&mut admin, AGE).await >= 1_000.0).await;
    let held = "ticketd_pg_refusing";
    wait_until("held", async || shown(&mut admin, held).await > 0.0).await;
    assert!(shown(&mut admin, AGE).await >= 1_000.0);
    let accept = "alter table tickets drop constraint nothing_fits";
    namespace.database.batch_execute(accept).await.unwrap();
    wait_until("stored", async || shown(&mut admin, AGE).await == 0.0).await;
}

/// Dead tickets are counted over a connection of its own, up to a maximum, and nobody is waited for:
/// adds some, then more than are counted, and then locks the table.
#[tokio::test]
async fn dead_tickets_are_counted_up_to_a_maximum() {
    const DEAD: &str = "ticketd_dead_tickets";
    let namespace = Namespace::new(TICKETD).await;
    namespace.run(&["migrate"], &[]).await;
    let add = |count: u32| {
        format!(
            "insert into dead_tickets (ticket_id, body, reason) \
            select gen_random_uuid(), 'x', 'for a test' from generate_series(1, {count})"
        )
    };
    namespace.database.batch_execute(&add(3)).await.unwrap();
    let mut consume = namespace.ready("consume", &[]).await;
    let mut admin = consume.admin().await;
    wait_until("three", async || shown(&mut admin, DEAD).await == 3.0).await;
    let many = add(12_000) + "; begin; lock table dead_tickets";
    namespace.database.batch_execute(&many).await.unwrap();
    wait_until("not known", async || shown(&mut admin, DEAD).await.is_nan()).await;
    publish(&namespace, 0).await;
    wait_until("stored", async || shown(&mut admin, AGE).await == 0.0).await;
    namespace.database.batch_execute("commit").await.unwrap();
    wait_until("the maximum", async || {
        shown(&mut admin, DEAD).await == 10_000.0
    })
    .await;
}

/// When the last ticket was accepted is told of each source, and of all together, in seconds since
/// 1970, and 0 before: sends one by a shop, and one that is rejected.
#[tokio::test]
async fn the_last_ticket_of_each_source_has_its_time() {
    const LAST: &str = "ticketd_last_ticket_timestamp_seconds";
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[("CREDENTIALS", LINES)]).await;
    let before = now_us() / 1_000_000;
    let mut last = async |headers: &[&str], body: &str| {
        // One that is not authorized is closed.
        let _answer = ticketd.client().await.ask(post(headers, body)).await;
        let page = ticketd
            .client()
            .await
            .ask(get_with("/metrics", OPERATOR))
            .await;
        let of = |label: &str| metric(page.text(), &format!("{LAST}{label}")).expect("the gauge");
        let labels = ["", "{source=\"shop-1\"}", "{source=\"shop-2\"}"];
        labels.map(|label| of(label) as i64)
    };
    assert_eq!(last(&[], EXAMPLE).await, [0, 0, 0], "unauthorized");
    assert_eq!(last(&[SHOP_1], "\0").await, [0, 0, 0], "not text");
    let [all, first, second] = last(&[SHOP_1], EXAMPLE).await;
    assert!((before..=now_us() / 1_000_000).contains(&first), "{first}");
    assert_eq!((all, second), (first, 0));
}

/// A shutdown shows for as long as the process answers: ends one that has a lame duck.
#[tokio::test]
async fn a_shutdown_shows() {
    let namespace = Namespace::new(TICKETD).await;
    let settings = [("LAME_DUCK", "2s"), ("ADMIN_LISTEN", "127.0.0.1:0")];
    let mut ticketd = namespace.ready("serve", &settings).await;
    let mut admin = ticketd.admin().await;
    assert_eq!(shown(&mut admin, "ticketd_draining").await, 0.0);
    ticketd.signal("TERM");
    wait_until("shutting down", async || {
        shown(&mut admin, "ticketd_draining").await == 1.0
    })
    .await;
    drop(admin);
    assert_eq!(ticketd.ended().await.code(), Some(0));
}
