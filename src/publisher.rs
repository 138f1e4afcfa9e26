//! Group commit: tickets in, one message for many of them, a result for each when the message is
//! confirmed.
//!
//! One task owns the channel, every publish on it and every confirm: lapin numbers a publish and
//! puts it on the wire under two different locks, so two tasks publishing on one channel could swap
//! each other's confirms. It serves all workers, as what RabbitMQ spends on a message hardly grows
//! with the tickets in it: a channel for each worker would mean twice the messages.
//!
//! A group is published when it is full, when no other is waiting for its confirm, or behind a
//! single other once it holds half of the tickets. So a lone ticket is published immediately, and
//! under load the groups grow, without a timer. When the connection fails, what was not confirmed
//! is published again on the next one with the same ids, as long as its deadline allows; the store
//! keeps one row an id.
//!
//! A body is copied from hyper's buffer into the group's payload at once: to keep the buffer would
//! cost hyper a new one for each request. lapin copies the payload once more, into its frames.
//!
//! Who has many tickets at once submits whole groups. They wait in a lane of their own, behind all
//! single tickets, and few of them are unconfirmed at a time, so that a single ticket never waits
//! behind many. What they hold together is bounded, and who submits more waits.
//!
//! - [`PublishQueue`](queue): where handlers put tickets and groups are gathered.
//! - [`ChannelActor`](session): publishes groups and awaits their confirms.
//! - [`ReplyRouter`](replies): the results back to each worker's handlers.

mod bulk;
mod bulk_budget;
mod channel;
mod error;
mod group;
mod limits;
mod outcomes;
mod queue;
mod replies;
mod session;

pub(crate) use bulk::GroupBuilder;
pub(crate) use error::{PublishError, PublishResult};
pub use group::Group;
pub(crate) use limits::PublishLimits;
pub(crate) use outcomes::Outcomes;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::broker::{Broker, BrokerError};
use crate::health::Health;
use crate::message::{Record, Traceparent};
use queue::PublishQueue;
use replies::reply_channels;
use session::ChannelActor;

/// Accepts tickets from the request handlers of one worker.
pub(crate) struct Publisher {
    queue: Arc<PublishQueue>,
    worker: usize,
}

/// Between two checks whether RabbitMQ accepts messages.
const CONNECT_TICK: Duration = Duration::from_millis(10);

impl Publisher {
    /// Connects for a command, which publishes without workers: resolves once RabbitMQ accepts
    /// messages, however long that takes. Fails if it never will, as a right is missing.
    pub(crate) async fn connect(
        broker: Broker,
        limits: PublishLimits,
    ) -> Result<Self, BrokerError> {
        let health = Arc::new(Health::new(true, false));
        let mut made = publishers(broker, limits, health.clone(), 1);
        let (publisher, task) = made.next().ok_or(BrokerError::Timeout)?;
        tokio::spawn(task);
        let ready = async {
            while !health.readiness().is_ready() {
                sleep(CONNECT_TICK).await;
            }
        };
        tokio::select! {
            () = ready => Ok(publisher),
            missing = health.given_up() => Err(BrokerError::Forbidden(missing)),
        }
    }

    /// Submits a ticket. Its trace is told only where it gets a message of its own. The result comes
    /// through the receiver; dropping the receiver changes nothing for the ticket.
    pub(crate) fn submit(
        &self,
        record: Record<'_>,
        trace: Option<Box<Traceparent>>,
    ) -> Result<oneshot::Receiver<PublishResult>, PublishError> {
        // However long the ticket took to come, its confirm has all of its time.
        self.queue
            .submit(record, trace, Instant::now(), self.worker)
    }
}

impl Publisher {
    /// Gathers tickets for [`Self::submit_group`].
    pub(crate) fn group_builder(&self) -> GroupBuilder {
        GroupBuilder::new(self.queue.clone(), self.queue.limits())
    }

    /// Waits until RabbitMQ accepts messages; an error if that takes longer.
    pub(crate) async fn ready(&self, wait_max: Duration) -> Result<(), PublishError> {
        let until = Instant::now() + wait_max;
        while let Err(error) = self.queue.check_link() {
            if Instant::now() >= until {
                return Err(error);
            }
            sleep(CONNECT_TICK).await;
        }
        Ok(())
    }

    /// Submits a whole group as soon as there is room for it; an error if that takes as long as a
    /// confirm may. All of its tickets have one result, which comes through the receiver; dropping
    /// the receiver changes nothing for them.
    pub(crate) async fn submit_group(
        &self,
        group: Group,
    ) -> Result<oneshot::Receiver<PublishResult>, PublishError> {
        self.queue.submit_group(group, self.worker).await
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// Makes a publisher for each worker, and the task that belongs beside its handlers; the first of
/// these tasks owns the channel too. They end when all publishers are gone and every ticket has its
/// result.
pub(crate) fn publishers(
    broker: Broker,
    limits: PublishLimits,
    health: Arc<Health>,
    workers: usize,
) -> impl Iterator<Item = (Publisher, impl Future<Output = ()> + Send)> {
    let (router, replies) = reply_channels(workers);
    let queue = Arc::new(PublishQueue::new(limits, router, workers));
    let mut actor = Some(ChannelActor::new(broker, queue.clone(), health));
    replies
        .into_iter()
        .enumerate()
        .map(move |(worker, replies)| {
            let publisher = Publisher {
                queue: queue.clone(),
                worker,
            };
            let actor = actor.take();
            let task = async {
                let publishing = actor.map(|actor| tokio::spawn(actor.run()));
                replies.forward().await;
                if let Some(publishing) = publishing {
                    // The replies end with it, so it has ended too.
                    let _ended = publishing.await;
                }
            };
            (publisher, task)
        })
}
