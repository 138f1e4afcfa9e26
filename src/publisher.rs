//! Group commit: tickets in, one message for many of them, an answer for each
//! when the message is confirmed.
//!
//! One task owns the channel, every publish on it and every confirm: lapin
//! numbers a publish and puts it on the wire under two different locks, so two
//! tasks publishing on one channel could swap each other's confirms. It serves
//! all workers, as what RabbitMQ spends on a message hardly grows with the
//! tickets in it: a channel for each worker would mean twice the messages.
//!
//! A group leaves when it is full, when no other is waiting for its confirm, or
//! behind a single other once it holds half of the tickets. So a lone ticket
//! waits for nobody, and the busier it is the larger groups grow, without a
//! timer. When the link fails, what was not confirmed is published again on the
//! next one with the same ids, as long as its deadline allows; the store keeps
//! one row an id.
//!
//! A body is handed over as it lies in hyper's buffer, and gathered from there
//! into the group's payload at once: to hold on to it would cost hyper a new
//! buffer for each request. lapin copies the payload once more, into its frames.

mod group;
mod queue;
mod replies;
mod session;

pub use group::Group;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::broker::Broker;
use crate::health::Health;
use crate::message::Record;
use queue::Intake;
use replies::desks;
use session::Actor;

/// Why a ticket was not confirmed. Its sender may try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no link to RabbitMQ.
    Away,
    /// RabbitMQ takes no messages for want of memory or disk.
    Blocked,
    /// RabbitMQ refused the message.
    Nacked,
    /// RabbitMQ had nowhere to put the message.
    Returned,
    /// No confirm came in time; the ticket may be stored all the same.
    Deadline,
    /// Too many tickets are waiting already.
    Overloaded,
    /// The process is ending.
    Draining,
}

impl Refusal {
    /// The label in metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Away => "broker_away",
            Self::Blocked => "broker_blocked",
            Self::Nacked => "nack",
            Self::Returned => "returned",
            Self::Deadline => "confirm_timeout",
            Self::Overloaded => "overloaded",
            Self::Draining => "draining",
        }
    }
}

/// What became of a ticket.
pub type Outcome = Result<(), Refusal>;

/// What a publisher may hold and how long it may wait.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most tickets in one message.
    pub group: usize,
    /// Most tickets between arrival and confirm.
    pub inflight: usize,
    /// Most bytes of them.
    pub inflight_bytes: usize,
    /// Longest from the hand-over of a ticket to its confirm, and from the
    /// publishing of a message to its own.
    pub confirm_timeout: Duration,
}

/// The way in for the request handlers of one worker.
pub struct Publisher {
    intake: Arc<Intake>,
    desk: usize,
}

impl Publisher {
    /// Hands a ticket over. The outcome comes through the receiver; dropping
    /// the receiver changes nothing for the ticket.
    pub fn submit(&self, record: Record<'_>) -> Result<oneshot::Receiver<Outcome>, Refusal> {
        // However long the ticket took to come, its confirm has all of its time.
        self.intake.submit(record, Instant::now(), self.desk)
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.intake.close();
    }
}

/// Makes a publisher for each worker, and the task that belongs beside its
/// handlers; the first of these tasks owns the channel too. They end when all
/// publishers are gone and every ticket has its answer.
pub fn publishers(
    broker: Broker,
    limits: Limits,
    health: Arc<Health>,
    workers: usize,
) -> impl Iterator<Item = (Publisher, impl Future<Output = ()> + Send)> {
    let (desks, served) = desks(workers);
    let intake = Arc::new(Intake::new(limits, desks, workers));
    let mut actor = Some(Actor::new(broker, intake.clone(), health));
    served.into_iter().enumerate().map(move |(number, desk)| {
        let publisher = Publisher {
            intake: intake.clone(),
            desk: number,
        };
        let actor = actor.take();
        let task = async {
            let publishing = actor.map(|actor| tokio::spawn(actor.run()));
            desk.serve().await;
            if let Some(publishing) = publishing {
                // Its end is what ended the desk.
                let _ended = publishing.await;
            }
        };
        (publisher, task)
    })
}
