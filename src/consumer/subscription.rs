//! One subscription, from its first delivery to its last acknowledgement.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use lapin::Channel;
use lapin::options::BasicAckOptions;

use super::ack_window::Window;
use super::batch::{Batch, Limits};
use super::delivery::{Delivered, Message};
use super::job::Stored;
use super::received_at::Oddities;
use crate::broker::within;

/// A subscription that lasted for so long worked, even if there was nothing to store.
const LASTING: Duration = Duration::from_secs(60);

/// One subscription: a channel and what was delivered on it.
pub struct Session {
    channel: Channel,
    /// What is gathered for the next transaction.
    pub batch: Batch<Message>,
    window: Window,
    /// When each batch that is not yet stored was begun, by its number.
    pub under_way: BTreeMap<u64, Instant>,
    /// The number of the batch that was begun last.
    pub last_batch: u64,
    /// Set once nothing of it can be acknowledged any more.
    pub abandoned: Arc<AtomicBool>,
    begun: Instant,
    acknowledged: bool,
    /// It takes nothing new.
    pub draining: bool,
}

impl Session {
    /// Nothing was delivered yet. The channel is subscribed to queues with these prefetches.
    pub fn new(channel: Channel, limits: Limits, prefetches: &[u16]) -> Self {
        Self {
            channel,
            batch: Batch::new(limits),
            window: Window::new(prefetches),
            under_way: BTreeMap::new(),
            last_batch: 0,
            abandoned: Arc::default(),
            begun: Instant::now(),
            acknowledged: false,
            draining: false,
        }
    }

    /// Takes a delivery into the batch; an error if no more can come.
    pub fn take(&mut self, delivered: Delivered, oddities: &mut Oddities) -> Result<(), String> {
        match delivered {
            Delivered::Message(queue, message) => {
                let (tickets, bytes) = (message.tickets, message.bytes());
                oddities.note(message.odd);
                self.window.deliver(message.tag, queue);
                self.batch.push(message, tickets, bytes, Instant::now());
                self.batch.complete(self.window.is_exhausted());
                Ok(())
            }
            Delivered::Ended(why) => Err(why),
        }
    }

    /// Acknowledges all that is stored without a gap. Only here, and only
    /// after a writer reported a COMMIT.
    pub async fn acknowledge(&mut self, stored: &Stored) -> Result<(), String> {
        self.under_way.remove(&stored.batch);
        let Some(tag) = self.window.store(&stored.tags) else {
            return Ok(());
        };
        self.batch.complete(self.window.is_exhausted());
        let acknowledged = self
            .channel
            .basic_ack(tag, BasicAckOptions { multiple: true });
        within(acknowledged)
            .await
            .map_err(|error| format!("{error:#}"))?;
        self.acknowledged = true;
        Ok(())
    }

    /// Whether the next one may follow at once. One that fails as soon as it is
    /// subscribed counts one more delivery of all that was prefetched.
    pub fn worked(&self) -> bool {
        self.acknowledged || self.begun.elapsed() > LASTING
    }

    /// RabbitMQ ends a subscription whose deliveries wait for too long; before
    /// it does, they go back to the queue on our own terms.
    pub fn check_age(&self, hold_max: Duration) -> Result<(), String> {
        let oldest = self
            .under_way
            .values()
            .any(|since| since.elapsed() > hold_max);
        if oldest {
            Err("PostgreSQL has stored nothing for too long to hold deliveries".into())
        } else {
            Ok(())
        }
    }
}
