//! An answer in the making.
//!
//! Written out as a future by hand, because thousands of tickets wait for their
//! confirms at a time, and what each of them holds should fit a few cache lines:
//! an async block would hold the whole request until its end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use hyper::body::Incoming;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::Service;
use super::response::Reply;
use crate::publisher::Outcome;

/// The answer to one request.
pub struct Answer {
    service: Arc<Service>,
    started: Instant,
    step: Step,
}

/// What an answer waits for.
pub enum Step {
    /// A ticket's body, of which nothing was looked at yet: hyper hands a request
    /// over before what came of its body, and has that when the answer is polled.
    Arrived(Head, Incoming),
    /// The confirm of the ticket of this id.
    Published(Uuid, oneshot::Receiver<Outcome>),
    /// Anything that is rare.
    Apart(Pin<Box<dyn Future<Output = Reply> + Send>>),
    /// Nothing: it is being decided on, or given.
    Decided,
}

/// What the head of a ticket's request tells.
#[derive(Clone, Copy)]
pub struct Head {
    /// The ticket's id, or why it cannot have one.
    pub id: Result<Uuid, &'static str>,
    /// When the ticket arrived, in µs since the Unix epoch.
    pub received_at_us: i64,
}

impl Step {
    /// An answer that is known already.
    pub fn known(reply: Reply) -> Self {
        Self::Apart(Box::pin(std::future::ready(reply)))
    }
}

impl Answer {
    /// An answer to a request that was begun at this time.
    pub fn new(service: Arc<Service>, started: Instant, step: Step) -> Self {
        Self {
            service,
            started,
            step,
        }
    }
}

impl Future for Answer {
    type Output = Reply;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reply> {
        let Self {
            service,
            started,
            step,
        } = self.get_mut();
        if matches!(step, Step::Arrived(..))
            && let Step::Arrived(head, body) = std::mem::replace(step, Step::Decided)
        {
            *step = service.take(head, body);
        }
        let reply = match step {
            Step::Published(id, outcome) => {
                let outcome = ready!(Pin::new(outcome).poll(cx));
                service.settled(*id, outcome)
            }
            Step::Apart(reply) => ready!(reply.as_mut().poll(cx)),
            Step::Arrived(..) | Step::Decided => return Poll::Pending,
        };
        service.metrics.answered(reply.status().as_u16());
        service.metrics.duration.record(started.elapsed());
        Poll::Ready(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_small() {
        assert!(size_of::<Answer>() <= 128, "{}", size_of::<Answer>());
    }
}
