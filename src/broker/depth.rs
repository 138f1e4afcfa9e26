//! How many messages wait in the queues, for people.

use std::convert::Infallible;
use std::time::Duration;

use lapin::types::ShortString;
use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;

use super::link::Link;
use crate::metrics::QueueMetrics;

/// How often RabbitMQ is asked: more often than metrics are usually collected.
const ASK_EVERY: Duration = Duration::from_secs(10);

/// Counts the messages of these queues again and again, for as long as it is polled. A failure is
/// no reason to stop consuming.
pub(crate) async fn watch(
    link: &Link,
    queues: [ShortString; 3],
    metrics: &QueueMetrics,
) -> Infallible {
    let mut tick = interval(ASK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let mut messages = [None; 3];
        for (queue, messages) in queues.iter().zip(&mut messages) {
            *messages = waiting(link, queue).await;
        }
        metrics.waiting(messages);
    }
}

async fn waiting(link: &Link, queue: &ShortString) -> Option<u32> {
    let waiting = link.waiting(queue.clone()).await;
    let logged = waiting.inspect_err(|error| {
        debug!(%queue, error = %format_args!("{error:#}"), "counting the messages of a queue failed");
    });
    logged.ok()
}
