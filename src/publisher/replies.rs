//! The way back from the publisher's task to the handlers.
//!
//! A handler is woken on its own worker: waking it from another thread costs a
//! system call, so the publisher's task wakes each worker once for all of its
//! tickets in a group.

use std::time::Instant;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::Outcome;

/// The handler of one ticket.
pub struct Waiting {
    /// When it must have its answer.
    pub deadline: Instant,
    /// The desk of its worker.
    pub desk: usize,
    /// Where it waits.
    pub reply: oneshot::Sender<Outcome>,
}

/// Answers that may wait at a desk.
const ANSWERS_MAX: usize = 64;

/// Handlers of one worker that get the same answer.
struct Answer {
    replies: Vec<oneshot::Sender<Outcome>>,
    outcome: Outcome,
}

impl Answer {
    fn give(self) {
        for reply in self.replies {
            // The handler is gone when its client hung up; the ticket is no less stored.
            let _unheard = reply.send(self.outcome);
        }
    }
}

/// The publisher's end: a desk for each worker, by its number.
pub struct Desks(Vec<mpsc::Sender<Answer>>);

/// A worker's end.
pub struct Desk(mpsc::Receiver<Answer>);

/// Makes so many desks.
pub fn desks(count: usize) -> (Desks, Vec<Desk>) {
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..count).map(|_| mpsc::channel(ANSWERS_MAX)).unzip();
    let desks = receivers.into_iter().map(Desk).collect();
    (Desks(senders), desks)
}

impl Desks {
    /// Gives all of these their answer.
    pub fn answer(&self, waiting: impl Iterator<Item = Waiting>, outcome: Outcome) {
        let mut replies: Vec<Vec<_>> = self.0.iter().map(|_| Vec::new()).collect();
        for Waiting { desk, reply, .. } in waiting {
            if let Some(replies) = replies.get_mut(desk) {
                replies.push(reply);
            }
        }
        for (desk, replies) in self.0.iter().zip(replies) {
            if replies.is_empty() {
                continue;
            }
            if let Err(TrySendError::Full(answer) | TrySendError::Closed(answer)) =
                desk.try_send(Answer { replies, outcome })
            {
                // Dearer, but a worker that is behind must not hold up the others.
                answer.give();
            }
        }
    }
}

impl Desk {
    /// Answers the handlers of this worker, until the publisher's task has ended.
    pub async fn serve(mut self) {
        while let Some(answer) = self.0.recv().await {
            answer.give();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publisher::Refusal;
    use tokio::sync::oneshot::error::TryRecvError;

    fn waiting(desk: usize) -> (Waiting, oneshot::Receiver<Outcome>) {
        let (reply, outcome) = oneshot::channel();
        let deadline = Instant::now();
        let waiting = Waiting {
            deadline,
            desk,
            reply,
        };
        (waiting, outcome)
    }

    #[tokio::test]
    async fn each_desk_answers_its_own_handlers_and_ends_with_the_publisher() {
        let (desks, served) = desks(2);
        let (waiting, mut outcomes): (Vec<_>, Vec<_>) = [0, 1, 0].map(waiting).into_iter().unzip();
        desks.answer(waiting.into_iter(), Err(Refusal::Nacked));
        drop(desks);
        let mut served = served.into_iter();
        served.next().expect("the first desk").serve().await;
        assert_eq!(outcomes[0].try_recv(), Ok(Err(Refusal::Nacked)));
        assert_eq!(outcomes[1].try_recv(), Err(TryRecvError::Empty));
        assert_eq!(outcomes[2].try_recv(), Ok(Err(Refusal::Nacked)));
        served.next().expect("the second desk").serve().await;
        assert_eq!(outcomes[1].try_recv(), Ok(Err(Refusal::Nacked)));
    }

    #[test]
    fn a_worker_that_is_behind_or_gone_holds_up_nobody() {
        let (desks, served) = desks(1);
        let answer = || {
            let (waiting, outcome) = waiting(0);
            desks.answer(std::iter::once(waiting), Ok(()));
            outcome
        };
        let mut outcomes: Vec<_> = (0..=ANSWERS_MAX).map(|_| answer()).collect();
        let last = outcomes.last_mut().map(oneshot::Receiver::try_recv);
        assert_eq!(last, Some(Ok(Ok(()))));
        drop(served);
        assert_eq!(answer().try_recv(), Ok(Ok(())));
    }
}
