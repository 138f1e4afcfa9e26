//! Whole groups of one submitter on their way, and what became of them.

use std::collections::VecDeque;

use tokio::sync::oneshot;
use tokio::sync::oneshot::error::{RecvError, TryRecvError};

use super::error::{PublishError, PublishResult};

/// Maximum of groups of one submitter that wait for their results, so that one never holds all that
/// whole groups may.
const PENDING_MAX: usize = 6;

/// The groups of one submitter, and how many tickets of them are confirmed.
#[derive(Default)]
pub(crate) struct Outcomes {
    pending: VecDeque<(usize, oneshot::Receiver<PublishResult>)>,
    /// Tickets that are confirmed.
    pub confirmed: u64,
    /// Tickets that are not, and the first reason.
    pub failed: Option<(PublishError, u64)>,
}

impl Outcomes {
    /// Adds a group of so many tickets that was submitted.
    pub(crate) fn add(&mut self, tickets: usize, outcome: oneshot::Receiver<PublishResult>) {
        self.pending.push_back((tickets, outcome));
    }

    /// A group of so many tickets was not even submitted.
    pub(crate) fn fail(&mut self, tickets: usize, error: PublishError) {
        let (_, failed) = self.failed.get_or_insert((error, 0));
        *failed += tickets as u64;
    }

    /// Waits until another group may be submitted; an error if one has failed.
    pub(crate) async fn room(&mut self) -> Result<(), PublishError> {
        while self.pending.len() >= PENDING_MAX {
            self.next().await;
        }
        while let Some((_, outcome)) = self.pending.front_mut() {
            let result = match outcome.try_recv() {
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Closed) => Err(PublishError::Draining),
                Ok(result) => result,
            };
            self.settle(result);
        }
        self.failed.map_or(Ok(()), |(error, _)| Err(error))
    }

    /// Waits for all, which their deadlines bound.
    pub(crate) async fn all(&mut self) {
        while !self.pending.is_empty() {
            self.next().await;
        }
    }

    async fn next(&mut self) {
        if let Some((_, outcome)) = self.pending.front_mut() {
            // A publisher that ends without an answer has not seen a confirm.
            let result: Result<PublishResult, RecvError> = outcome.await;
            self.settle(result.unwrap_or(Err(PublishError::Draining)));
        }
    }

    fn settle(&mut self, result: PublishResult) {
        let Some((tickets, _)) = self.pending.pop_front() else {
            return;
        };
        match result {
            Ok(()) => self.confirmed += tickets as u64,
            Err(error) => self.fail(tickets, error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tickets_are_counted_by_the_result_of_their_group() {
        let mut outcomes = Outcomes::default();
        let (replies, results): (Vec<_>, Vec<_>) =
            (0..PENDING_MAX).map(|_| oneshot::channel()).unzip();
        results
            .into_iter()
            .for_each(|result| outcomes.add(10, result));
        let mut replies = replies.into_iter();
        let mut next = || replies.next().expect("a reply");
        next().send(Ok(())).expect("waits");
        assert_eq!(outcomes.room().await, Ok(()));
        assert_eq!(
            (outcomes.confirmed, outcomes.pending.len()),
            (10, PENDING_MAX - 1)
        );
        next().send(Err(PublishError::Nacked)).expect("waits");
        next().send(Ok(())).expect("waits");
        assert_eq!(outcomes.room().await, Err(PublishError::Nacked));
        outcomes.fail(5, PublishError::Overloaded);
        drop(replies);
        outcomes.all().await;
        assert_eq!(outcomes.confirmed, 20);
        let failed = 10 + 5 + 10 * (PENDING_MAX as u64 - 3);
        assert_eq!(outcomes.failed, Some((PublishError::Nacked, failed)));
    }
}
