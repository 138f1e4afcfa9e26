//! The order of starting does not matter: whichever server is missing, ticketd starts without it, is
//! alive and not ready, and gets there by itself once the server is back.

use serde_json::Value;

use ticketd_testing::*;

use crate::TICKETD;

/// Starts a role with one of its servers missing, checks that it is alive and not ready for that
/// reason, opens the way to the server, and checks that it becomes ready without help. The way must
/// be kept for as long as the process runs.
async fn becomes_ready(
    namespace: &Namespace,
    role: &str,
    setting: &str,
    check: &str,
) -> (Process, Forwarder) {
    let server = match setting {
        "AMQP_URL" => namespace.amqp_url(),
        _ => namespace.database_url(),
    };
    let mut way = Forwarder::shut();
    let url = way.url(&server);
    let settings = [(setting, url.as_str()), ("ADMIN_LISTEN", "127.0.0.1:0")];
    let mut ticketd = namespace.start(role, &settings);
    let mut admin = ticketd.admin().await;
    ticketd.logged("WARN").await;
    assert_eq!(admin.ask(get("/livez")).await.status, 200);
    if role == "serve" && setting == "DATABASE_URL" {
        takes_without_a_database(&mut ticketd).await;
    } else {
        let ready = admin.ask(get("/readyz")).await;
        assert_eq!(ready.status, 503);
        assert_eq!(ready.json()["status"], "not ready");
        assert_eq!(ready.json()["checks"][check], "down", "{}", ready.json());
    }
    way.open(&server);
    let ready: Value = wait_for("ready", async || {
        let answer = admin.ask(get("/readyz")).await;
        answer.lacks_nothing().then(|| answer.json())
    })
    .await;
    assert_eq!(ready["checks"][check], "up");
    (ticketd, way)
}

/// The broker alone is enough to take tickets, which then wait: it is ready, and says what is missing.
async fn takes_without_a_database(ticketd: &mut Process) {
    let mut client = ticketd.client().await;
    let ready = wait_for("ready without a database", async || {
        let answer = client.ask(get("/readyz")).await;
        (answer.status == 200).then(|| answer.json())
    })
    .await;
    assert_eq!(ready["status"], "ready");
    assert_eq!(ready["checks"]["publishing"], "up");
    assert_eq!(ready["checks"]["database"], "down");
    let metrics = ticketd.admin().await.ask(get("/metrics")).await;
    assert_eq!(metric(metrics.text(), "ticketd_pg_connected"), Some(0.0));
    let answer = client.ask(post(&[], ticket("early"))).await;
    assert_eq!(answer.status, 202);
}

/// serve before the broker: then a ticket goes all the way.
#[tokio::test]
async fn serve_waits_for_the_broker() {
    let namespace = Namespace::new(TICKETD).await;
    let (mut ticketd, _way) = becomes_ready(&namespace, "serve", "AMQP_URL", "publishing").await;
    let id = namespace
        .accepted(&mut ticketd.client().await, &[], EXAMPLE)
        .await;
    namespace.row(id).await;
    ticketd.drained().await;
}

/// serve before the database: tickets taken meanwhile are stored too.
#[tokio::test]
async fn serve_waits_for_the_database() {
    let namespace = Namespace::new(TICKETD).await;
    let (mut ticketd, _way) = becomes_ready(&namespace, "serve", "DATABASE_URL", "database").await;
    let id = namespace
        .accepted(&mut ticketd.client().await, &[], EXAMPLE)
        .await;
    namespace.row(id).await;
    let orders: Vec<_> = namespace
        .rows()
        .await
        .into_iter()
        .filter_map(|row| row.order_id)
        .collect();
    assert!(orders.contains(&"early".to_owned()), "{orders:?}");
    ticketd.drained().await;
}

/// accept before the broker: then tickets are taken.
#[tokio::test]
async fn accept_waits_for_the_broker() {
    let namespace = Namespace::new(TICKETD).await;
    let (mut ticketd, _way) = becomes_ready(&namespace, "accept", "AMQP_URL", "publishing").await;
    namespace
        .accepted(&mut ticketd.client().await, &[], EXAMPLE)
        .await;
    assert_eq!(namespace.depth(namespace.queue()).await, 1);
    ticketd.drained().await;
}

/// consume before the broker: then what is published is stored.
#[tokio::test]
async fn consume_waits_for_the_broker() {
    let namespace = Namespace::new(TICKETD).await;
    let (ticketd, _way) = becomes_ready(&namespace, "consume", "AMQP_URL", "consuming").await;
    store_one(&namespace).await;
    ticketd.drained().await;
}

/// consume before the database: then what is published is stored.
#[tokio::test]
async fn consume_waits_for_the_database() {
    let namespace = Namespace::new(TICKETD).await;
    let (ticketd, _way) = becomes_ready(&namespace, "consume", "DATABASE_URL", "database").await;
    store_one(&namespace).await;
    ticketd.drained().await;
}

async fn store_one(namespace: &Namespace) {
    let id = uuid::Uuid::now_v7();
    namespace
        .publish(ticket_properties(id, 1), EXAMPLE.as_bytes())
        .await;
    namespace.row(id).await;
}

/// A process that is told to end before its servers were ever there ends at once and well: starts
/// each role without any.
#[tokio::test]
async fn without_servers_it_still_ends_well() {
    for role in ["serve", "accept", "consume"] {
        let settings = [
            ("AMQP_URL", "amqp://guest:guest@127.0.0.1:1/%2f"),
            ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing"),
            ("LISTEN", "127.0.0.1:0"),
            ("LAME_DUCK", "0"),
        ];
        let ticketd = Process::start(TICKETD, &[role], &settings);
        ticketd.logged("WARN").await;
        ticketd.drained().await;
    }
}
