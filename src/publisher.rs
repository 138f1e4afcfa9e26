//! Group commit: tickets in, one message for many of them, an answer for each
//! when the message is confirmed.
//!
//! One task owns the channel, every publish on it and every confirm: lapin
//! numbers a publish and puts it on the wire under two different locks, so two
//! tasks publishing on one channel could swap each other's confirms.
//!
//! A group leaves when no other is waiting for its confirm, or when it is full.
//! So a lone ticket waits for nobody, and the busier it is the larger groups
//! grow, without a timer. When the link fails, what was not confirmed is
//! published again on the next one with the same ids, as long as its deadline
//! allows; the store keeps one row an id.
//!
//! A body stays the `Bytes` that hyper read until it is gathered into the
//! group's payload; lapin copies that once more into its frames.

mod actor;
mod gate;
mod group;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::broker::Broker;
use crate::health::Health;
use actor::Actor;
use gate::Gate;

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
    /// Longest from arrival to confirm.
    pub confirm_timeout: Duration,
}

/// The way in, for any number of request handlers.
#[derive(Clone)]
pub struct Publisher {
    submissions: mpsc::Sender<Submission>,
    gate: Arc<Gate>,
}

impl Publisher {
    /// Hands a ticket over. The outcome comes through the receiver; dropping
    /// the receiver changes nothing for the ticket.
    pub fn submit(
        &self,
        id: Uuid,
        received_at_us: i64,
        body: Bytes,
    ) -> Result<oneshot::Receiver<Outcome>, Refusal> {
        self.gate.enter(body.len())?;
        let (reply, outcome) = oneshot::channel();
        let deadline = Instant::now() + self.gate.limits().confirm_timeout;
        let submission = Submission {
            id,
            received_at_us,
            body,
            deadline,
            reply,
        };
        match self.submissions.try_send(submission) {
            Ok(()) => Ok(outcome),
            Err(mpsc::error::TrySendError::Full(submission)) => {
                self.gate.leave(submission.body.len());
                Err(Refusal::Overloaded)
            }
            Err(mpsc::error::TrySendError::Closed(submission)) => {
                self.gate.leave(submission.body.len());
                Err(Refusal::Draining)
            }
        }
    }
}

/// One ticket between its handler and its confirm.
struct Submission {
    id: Uuid,
    received_at_us: i64,
    body: Bytes,
    deadline: Instant,
    reply: oneshot::Sender<Outcome>,
}

/// Makes a publisher and the task behind it, which ends when every handle is
/// gone and every ticket has its answer.
pub fn publisher(
    broker: Broker,
    limits: Limits,
    health: Arc<Health>,
) -> (Publisher, impl Future<Output = ()> + Send) {
    let (submissions, received) = mpsc::channel(limits.inflight.max(1));
    let gate = Arc::new(Gate::new(limits));
    let actor = Actor::new(broker, received, gate.clone(), health);
    (Publisher { submissions, gate }, actor.run())
}
