//! AMQP_URL with several servers: one that is silent or away costs little.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use ticketd_testing::*;

use crate::TICKETD;

/// What a silent server may cost at most, with room for a slow machine.
const SILENT_MAX: Duration = Duration::from_secs(3 + 2);

/// The URL, by way of a listener that takes connections and says nothing.
fn silent(url: &str) -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (start, rest) = url.rsplit_once(':').unwrap();
    let (_, vhost) = rest.split_once('/').unwrap();
    (listener, format!("{start}:{port}/{vhost}"))
}

/// A server that takes the connection and says nothing is left after three seconds, and all are told
/// of if none will do: one process has no other but one that is away, three have a real one.
#[tokio::test]
async fn a_silent_server_costs_three_seconds() {
    let place = Namespace::new(TICKETD).await;
    let (_silent, silent) = silent(&place.amqp_url());
    let away = Forwarder::shut().url(&place.amqp_url());
    let none = [silent.as_str(), &away].join(",");
    let one = [silent.as_str(), &place.amqp_url()].join(",");
    let start = Instant::now();
    let without = place.start("accept", &[("AMQP_URL", &none)]);
    let with: Vec<_> = (0..3)
        .map(|_| place.start("accept", &[("AMQP_URL", &one)]))
        .collect();
    for mut ticketd in with {
        ticketd.ready().await;
        assert!(start.elapsed() < SILENT_MAX, "{:?}", start.elapsed());
    }
    without
        .logged("none of RabbitMQ's servers can be used")
        .await;
    assert!(start.elapsed() < SILENT_MAX, "{:?}", start.elapsed());
    for url in [silent, away] {
        let (_, server) = url.rsplit_once('@').unwrap();
        let named = format!("{}: ", server.replace("/%2f", ""));
        assert!(without.log().contains(&named), "{}", without.log());
    }
    assert!(!without.log().contains("guest"), "{}", without.log());
}

/// When the server of a connection goes away, another is found: takes one of two ways away under a
/// process that publishes and consumes, and then its commands.
#[tokio::test]
async fn the_other_server_is_used_when_one_goes() {
    let place = Namespace::new(TICKETD).await;
    let (mut first, mut second) = (Forwarder::shut(), Forwarder::shut());
    let urls = [&first, &second].map(|way| way.url(&place.amqp_url()));
    first.open(&place.amqp_url());
    second.open(&place.amqp_url());
    let both = urls.join(",");
    let mut ticketd = place.ready("serve", &[("AMQP_URL", &both)]).await;
    let mut client = ticketd.client().await;
    first.cut();
    drop(first);
    let answer = wait_for("a ticket is taken", async || {
        let answer = client.ask(post(&[], EXAMPLE)).await;
        (answer.status == 202).then_some(answer)
    });
    place.row(answer.await.id()).await;
    let listed = place
        .run(&["dead", "collect"], &[("AMQP_URL", &both)])
        .await;
    assert_eq!(listed.code(), Some(0), "{}", listed.log);
    ticketd.drained().await;
}
