//! The log says what an operator must know in a line a second, however many tickets it is about.

use std::time::Instant;

use uuid::Uuid;

use ticketd_testing::*;

use crate::TICKETD;
use crate::senders::LINES;

/// How many tickets the lines of a log with this message stand for, and how many lines there are.
fn summed(log: &str, message: &str) -> (u64, u64) {
    let lines = log.lines().filter(|line| line.contains(message));
    let tickets = lines.map(|line| {
        let (_, rest) = line.split_once("tickets=").unwrap();
        rest.split_whitespace()
            .next()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    });
    tickets.fold((0, 0), |(sum, lines), tickets| (sum + tickets, lines + 1))
}

/// Rejected tickets are summed up for each reason and second, those of the last moment included: sends
/// many without a credential, some that are not text, and ends the process.
#[tokio::test]
async fn rejections_are_summed_up_in_the_log() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[("CREDENTIALS", LINES)]).await;
    let address = ticketd.address("LISTEN").await;
    let started = Instant::now();
    for _ in 0..200 {
        let mut client = Client::connect(address).await.unwrap();
        assert_eq!(client.ask(post(&[], EXAMPLE)).await.status, 401);
    }
    let seconds = started.elapsed().as_secs() + 2;
    let log = ticketd.drained().await.log;
    let line = "tickets were rejected reason=\"unauthorized\"";
    let (tickets, lines) = summed(&log, line);
    assert_eq!(tickets, 200, "{log}");
    assert!((1..=seconds).contains(&lines), "{lines} in {seconds} s");
}

/// Dead tickets are, likewise: publishes many messages that no consumer can read.
#[tokio::test]
async fn dead_tickets_are_summed_up_in_the_log() {
    let namespace = Namespace::new(TICKETD).await;
    let consume = namespace.ready("consume", &[]).await;
    let started = Instant::now();
    for _ in 0..40 {
        let properties = ticket_properties(Uuid::now_v7(), 1_000_000);
        let properties = properties.with_content_type("image/png".into());
        namespace.publish(properties, b"\x89PNG").await;
    }
    namespace.filled("dead_tickets", 40).await;
    let seconds = started.elapsed().as_secs() + 2;
    let log = consume.drained().await.log;
    let (tickets, lines) = summed(&log, "went to dead_tickets");
    assert_eq!(tickets, 40, "{log}");
    assert!((1..=seconds).contains(&lines), "{lines} in {seconds} s");
    assert!(log.contains("unknown content type"), "{log}");
}
