//! How ticketd reads its queues: how soon it comes back to them, and what it tells of them.

use std::process::Command;
use std::time::{Duration, Instant};

use uuid::Uuid;

use ticketd_testing::*;

use crate::TICKETD;

/// What begins the broker's answer to a subscription: basic.consume-ok is class 60, method 21 (AMQP
/// 0-9-1, section 1.8).
const SUBSCRIBED: &[u8] = &[0, 60, 0, 21];

/// A subscription that ends before it has stored anything is followed by the next one after growing
/// waits, since each counts a delivery of all that was prefetched; one that has stored something, at
/// once: cuts the link whenever both queues are subscribed to, then lets something be stored.
#[tokio::test]
async fn subscriptions_that_end_at_once_come_with_growing_waits() {
    const SESSIONS: usize = 9;
    // At the least half of 50, 100, 200, 400, 800, 1600 and twice 2000 ms.
    const WAITS: Duration = Duration::from_millis(3575);
    let namespace = Namespace::new(TICKETD).await;
    let mut way = Forwarder::shut();
    way.cut_after(SUBSCRIBED, 2);
    way.open(&namespace.amqp_url());
    let url = way.url(&namespace.amqp_url());
    let ticketd = namespace.start("consume", &[("AMQP_URL", &url)]);
    wait_until("many sessions", async || {
        way.connections().len() >= SESSIONS
    })
    .await;
    let connections = way.connections();
    let took = connections[SESSIONS - 1] - connections[0];
    assert!(took >= WAITS, "{SESSIONS} sessions within {took:?}");
    let subscribed = ticketd.log().matches("consuming from RabbitMQ").count();
    assert!(subscribed >= SESSIONS - 1, "{}", ticketd.log());

    way.cut_none();
    for stored in 1..=2 {
        // The second one comes after the first is acknowledged.
        let properties = ticket_properties(Uuid::now_v7(), 1);
        namespace.publish(properties, EXAMPLE.as_bytes()).await;
        namespace.stored(stored).await;
    }
    let (before, cut) = (way.connections().len(), Instant::now());
    way.cut();
    wait_until("another session", async || way.connections().len() > before).await;
    let waited = way.connections()[before] - cut;
    assert!(waited < Duration::from_millis(900), "{waited:?}");
    ticketd.drained().await;
}

/// Operators see how many messages wait in the queues that nobody should have to read, and being
/// asked about a queue that is not there disturbs nothing: fills the queue of dead messages, deletes
/// it, and makes it again.
#[tokio::test]
async fn the_depth_of_each_queue_is_told() {
    let namespace = Namespace::new(TICKETD).await;
    namespace.ready("accept", &[]).await.drained().await;
    let dead = namespace.dead_queue();
    for _ in 0..3 {
        let properties = ticket_properties(Uuid::now_v7(), 1);
        namespace.publish_to(&dead, properties, b"x").await;
    }
    let mut ticketd = namespace.ready("consume", &[]).await;
    let mut admin = ticketd.admin().await;
    let mut depth = async |queue: &str| {
        let page = admin.ask(get("/metrics")).await;
        let series = format!("ticketd_queue_messages{{queue=\"{queue}\"}}");
        metric(page.text(), &series).expect("the gauge")
    };
    wait_until("three dead messages", async || depth("dead").await == 3.0).await;
    for queue in ["main", "unrouted"] {
        assert_eq!(depth(queue).await, 0.0, "{queue}");
    }

    namespace.delete_queue(&dead).await;
    wait_until("nobody knows", async || depth("dead").await.is_nan()).await;
    for queue in ["main", "unrouted"] {
        assert_eq!(depth(queue).await, 0.0, "{queue}");
    }
    let id = Uuid::now_v7();
    namespace
        .publish(ticket_properties(id, 1), EXAMPLE.as_bytes())
        .await;
    namespace.row(id).await;
    let ended = ticketd.drained().await;
    assert_eq!(ended.log.matches("consuming from RabbitMQ").count(), 1);
}

/// Whoever looks at RabbitMQ sees which process of which machine a connection and a consumer belong
/// to: asks rabbitmqctl.
#[tokio::test]
async fn rabbitmq_shows_whose_connections_and_consumers_they_are() {
    let namespace = Namespace::new(TICKETD).await;
    let ticketd = namespace.ready("serve", &[]).await;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let of = |purpose: &str| format!("ticketd {purpose}@{} {}", host.trim(), ticketd.pid());
    let connections = ctl(&["list_connections", "client_properties"]);
    for purpose in ["publish", "consume"] {
        let name = format!("{{\"connection_name\",\"{}\"}}", of(purpose));
        assert!(connections.contains(&name), "{name}: {connections}");
    }
    let consumers = ctl(&["list_consumers", "queue_name", "consumer_tag"]);
    for (number, queue) in [(1, namespace.queue()), (2, &namespace.unrouted())] {
        let line = format!("{queue}\t{} {number}", of("consume"));
        assert!(
            consumers.lines().any(|it| it == line),
            "{line}: {consumers}"
        );
    }
    ticketd.drained().await;
}

/// What rabbitmqctl of this checkout's RabbitMQ says.
fn ctl(args: &[&str]) -> String {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/stack.sh"));
    let ended = command
        .args(["ctl", "--quiet"])
        .args(args)
        .output()
        .unwrap();
    assert!(ended.status.success(), "{ended:?}");
    String::from_utf8(ended.stdout).unwrap()
}

/// What is stored is compared with what comes in no more memory than that takes: stores large
/// tickets, and publishes small ones under their ids.
#[tokio::test]
async fn large_stored_tickets_are_not_fetched_for_small_ones() {
    const TICKETS: usize = 96;
    const GROWTH_KIB: u64 = 32 * 1024;
    let namespace = Namespace::new(TICKETD).await;
    namespace.run(&["migrate"], &[]).await;
    let insert = "insert into tickets (ticket_id, valid, ticket_text, received_at) \
        select unnest($1::uuid[]), false, repeat('x', 1048576), now()";
    // As if made from keys, so that they are asked for first.
    let ids: Vec<_> = (0..TICKETS)
        .map(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, Uuid::now_v7().as_bytes()))
        .collect();
    namespace.database.execute(insert, &[&ids]).await.unwrap();

    let ticketd = namespace.ready("consume", &[]).await;
    let before_kib = peak_memory_kib(ticketd.pid());
    let records = ids.iter().map(|id| (*id, 1, b"x".as_slice()));
    namespace.publish(group_properties(), &group(records)).await;
    namespace.filled("dead_tickets", TICKETS as i64).await;
    let grown_kib = peak_memory_kib(ticketd.pid()) - before_kib;
    assert!(grown_kib < GROWTH_KIB, "{grown_kib} KiB");
    ticketd.drained().await;
    assert!(
        namespace
            .dead()
            .await
            .iter()
            .all(|dead| dead.reason.contains("another body"))
    );
    assert_eq!(namespace.count("tickets").await, TICKETS as i64);
}

fn peak_memory_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}
