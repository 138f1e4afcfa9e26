//! How many messages wait in the queues, for people.

use std::convert::Infallible;
use std::time::Duration;

use lapin::types::ShortString;
use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;

use crate::broker::{Broker, Link};
use crate::metrics::QueueMetrics;

/// How often RabbitMQ is asked: more often than metrics are usually collected.
const ASK_EVERY: Duration = Duration::from_secs(10);

/// Asks again and again, for as long as it is polled. Whatever becomes of that is
/// no reason to stop consuming.
pub async fn watch(broker: &Broker, link: &Link, metrics: &QueueMetrics) -> Infallible {
    let [main, unrouted] = broker.queues();
    let queues = [main, unrouted, broker.dead_queue()];
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
    link.waiting(queue.clone())
        .await
        .inspect_err(|error| debug!(%queue, "it is not known how many messages wait: {error}"))
        .ok()
}
