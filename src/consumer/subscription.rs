//! One subscription, from its first delivery to its last acknowledgement.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::{BoxStream, SelectAll, once};
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use tokio::time::sleep_until;

use super::ack_window::AckWindow;
use super::batch::{Batch, BatchLimits};
use super::delivery::{Delivered, DeliveredMessage};
use super::error::SubscriptionError;
use super::job::{Job, StoredBatch};
use super::received_at::AnomalyLog;
use crate::broker::{BrokerError, client_name, within};

/// A subscription that lasted for so long worked, even if there was nothing to store.
const LASTING: Duration = Duration::from_secs(60);

/// What its connection and its consumers are for, in RabbitMQ's own tools.
pub(super) const PURPOSE: &str = "consume";

/// The deliveries of all queues of a subscription.
pub(super) type Deliveries = SelectAll<BoxStream<'static, Delivered>>;

/// Subscribes to a queue, the `at`th of the subscription. At most `prefetch` messages are delivered
/// without being acknowledged.
pub(super) async fn subscribe(
    channel: &Channel,
    queue: ShortString,
    prefetch: u16,
    at: usize,
) -> Result<BoxStream<'static, Delivered>, BrokerError> {
    within(channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    // On one channel, each tag is another.
    let tag = format!("{} {}", client_name(PURPOSE), at + 1).into();
    let consumer = within(channel.basic_consume(queue, tag, options, arguments)).await?;
    // The stream of a consumer that RabbitMQ cancels just ends: say so.
    let ended = once(std::future::ready(Delivered::Ended(
        SubscriptionError::Cancelled,
    )));
    let delivered = consumer.map(move |delivery| Delivered::of(at, delivery));
    Ok(delivered.chain(ended).boxed())
}

/// One subscription: a channel and what was delivered on it.
pub(super) struct Subscription {
    number: u64,
    channel: Channel,
    /// What is gathered for the next transaction.
    batch: Batch<DeliveredMessage>,
    window: AckWindow,
    /// When each batch that is not yet stored was begun, by its number.
    under_way: BTreeMap<u64, Instant>,
    last_batch: u64,
    /// Set once nothing of it can be acknowledged any more.
    abandoned: Arc<AtomicBool>,
    begun: Instant,
    acknowledged: bool,
    /// It takes nothing new.
    draining: bool,
}

impl Subscription {
    /// Nothing was delivered yet. The channel is subscribed to queues with these prefetches.
    pub(super) fn new(
        number: u64,
        channel: Channel,
        limits: BatchLimits,
        prefetches: &[u16],
    ) -> Self {
        Self {
            number,
            channel,
            batch: Batch::new(limits),
            window: AckWindow::new(prefetches),
            under_way: BTreeMap::new(),
            last_batch: 0,
            abandoned: Arc::default(),
            begun: Instant::now(),
            acknowledged: false,
            draining: false,
        }
    }

    /// Whether another delivery may be taken.
    pub(super) fn has_room(&self) -> bool {
        !self.draining && !self.batch.is_full()
    }

    /// Takes a delivery into the batch; an error if no more can come.
    pub(super) fn take(
        &mut self,
        delivered: Delivered,
        anomalies: &mut AnomalyLog,
    ) -> Result<(), SubscriptionError> {
        match delivered {
            Delivered::Message(queue, message) => {
                let (tickets, bytes) = (message.tickets, message.bytes());
                anomalies.add(message.anomaly);
                self.window.deliver(message.tag, queue, message.oldest_us());
                self.batch.push(message, tickets, bytes, Instant::now());
                self.batch.complete(self.window.is_exhausted());
                Ok(())
            }
            Delivered::Ended(error) => Err(error),
        }
    }

    /// Waits until the batch is due; for ever while it is empty.
    pub(super) async fn due(&self) {
        match self.batch.due() {
            Some(at) => sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
    }

    /// The batch, if it is due or nothing can be added to it any more.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Job> {
        let begun = self.batch.begun()?;
        let due = self.batch.due().is_some_and(|due| due <= now);
        if !due && !self.draining {
            return None;
        }
        self.last_batch += 1;
        self.under_way.insert(self.last_batch, begun);
        Some(Job {
            subscription: self.number,
            batch: self.last_batch,
            pacing: self.batch.pacing_budget(),
            messages: self.batch.take(),
            abandoned: self.abandoned.clone(),
        })
    }

    /// Acknowledges all that is stored without a gap, unless this batch is another subscription's.
    /// Only here, and only after a writer reported a COMMIT.
    pub(super) async fn acknowledge(
        &mut self,
        stored: &StoredBatch,
    ) -> Result<(), SubscriptionError> {
        if stored.subscription != self.number {
            return Ok(());
        }
        self.under_way.remove(&stored.batch);
        let Some(tag) = self.window.store(&stored.tags) else {
            return Ok(());
        };
        self.batch.complete(self.window.is_exhausted());
        let options = BasicAckOptions { multiple: true };
        within(self.channel.basic_ack(tag, options)).await?;
        self.acknowledged = true;
        Ok(())
    }

    /// Nothing new is taken from now on.
    pub(super) fn drain(&mut self) {
        self.draining = true;
    }

    /// Whether nothing new is taken.
    pub(super) fn is_draining(&self) -> bool {
        self.draining
    }

    /// Whether nothing new is taken and everything that was taken is acknowledged.
    pub(super) fn is_drained(&self) -> bool {
        self.draining && self.under_way.is_empty() && self.batch.begun().is_none()
    }

    /// Whether the next one may follow at once. One that fails as soon as it is subscribed counts
    /// one more delivery of all that was prefetched.
    pub(super) fn worked(&self) -> bool {
        self.acknowledged || self.begun.elapsed() > LASTING
    }

    /// When the oldest ticket was received that was delivered and is not stored, in µs since the Unix
    /// epoch; none while there is none.
    pub(super) fn oldest_us(&self) -> Option<i64> {
        self.window.oldest_us()
    }

    /// RabbitMQ ends a subscription whose deliveries wait for too long; before it does, they go
    /// back to the queue on our own terms.
    pub(super) fn check_age(&self, hold_max: Duration) -> Result<(), SubscriptionError> {
        let mut under_way = self.under_way.values();
        if under_way.any(|since| since.elapsed() > hold_max) {
            return Err(SubscriptionError::HeldTooLong);
        }
        Ok(())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // What a writer still holds of it will be delivered again.
        self.abandoned.store(true, Ordering::Relaxed);
    }
}
