//! The way back from the publisher's task to the handlers.
//!
//! A handler is woken on its own worker: waking it from another thread costs a system call, so the
//! publisher's task wakes each worker once for all of its tickets in a group.

use std::time::Instant;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::error::PublishResult;

/// The handler that waits for one ticket's result.
pub struct Waiter {
    /// When it must have the result.
    pub deadline: Instant,
    /// The index of its worker.
    pub worker: usize,
    /// Where the result goes.
    pub reply: oneshot::Sender<PublishResult>,
}

/// Maximum of replies that wait for one worker.
const REPLIES_MAX: usize = 64;

/// Handlers of one worker that get the same result.
struct Reply {
    handlers: Vec<oneshot::Sender<PublishResult>>,
    result: PublishResult,
}

impl Reply {
    fn send(self) {
        for handler in self.handlers {
            // The handler is gone when its client hung up; the ticket is no less stored.
            let _unheard = handler.send(self.result);
        }
    }
}

/// The publisher's end: a channel to each worker, by its index.
pub struct ReplyRouter(Vec<mpsc::Sender<Reply>>);

/// The end of one worker.
pub(super) struct WorkerReplies(mpsc::Receiver<Reply>);

/// Makes a reply channel for each of so many workers.
pub(super) fn reply_channels(workers: usize) -> (ReplyRouter, Vec<WorkerReplies>) {
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..workers).map(|_| mpsc::channel(REPLIES_MAX)).unzip();
    let workers = receivers.into_iter().map(WorkerReplies).collect();
    (ReplyRouter(senders), workers)
}

impl ReplyRouter {
    /// Sends all of these their result.
    pub fn reply(&self, waiters: impl Iterator<Item = Waiter>, result: PublishResult) {
        let mut by_worker: Vec<Vec<_>> = self.0.iter().map(|_| Vec::new()).collect();
        for Waiter { worker, reply, .. } in waiters {
            if let Some(handlers) = by_worker.get_mut(worker) {
                handlers.push(reply);
            }
        }
        for (worker, handlers) in self.0.iter().zip(by_worker) {
            if handlers.is_empty() {
                continue;
            }
            if let Err(TrySendError::Full(reply) | TrySendError::Closed(reply)) =
                worker.try_send(Reply { handlers, result })
            {
                // This costs more, but a worker that is behind must not delay the others.
                reply.send();
            }
        }
    }
}

impl WorkerReplies {
    /// Wakes the handlers of this worker, until the publisher's task has ended.
    pub(super) async fn forward(mut self) {
        while let Some(reply) = self.0.recv().await {
            reply.send();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publisher::error::PublishError;
    use tokio::sync::oneshot::error::TryRecvError;

    fn waiter(worker: usize) -> (Waiter, oneshot::Receiver<PublishResult>) {
        let (reply, result) = oneshot::channel();
        let deadline = Instant::now();
        let waiter = Waiter {
            deadline,
            worker,
            reply,
        };
        (waiter, result)
    }

    #[tokio::test]
    async fn each_worker_wakes_its_own_handlers_and_ends_with_the_publisher() {
        let (router, workers) = reply_channels(2);
        let (waiters, mut results): (Vec<_>, Vec<_>) = [0, 1, 0].map(waiter).into_iter().unzip();
        router.reply(waiters.into_iter(), Err(PublishError::Nacked));
        drop(router);
        let mut workers = workers.into_iter();
        workers.next().expect("the first worker").forward().await;
        assert_eq!(results[0].try_recv(), Ok(Err(PublishError::Nacked)));
        assert_eq!(results[1].try_recv(), Err(TryRecvError::Empty));
        assert_eq!(results[2].try_recv(), Ok(Err(PublishError::Nacked)));
        workers.next().expect("the second worker").forward().await;
        assert_eq!(results[1].try_recv(), Ok(Err(PublishError::Nacked)));
    }

    #[test]
    fn a_worker_that_is_behind_or_gone_delays_nobody() {
        let (router, workers) = reply_channels(1);
        let reply = || {
            let (waiter, result) = waiter(0);
            router.reply(std::iter::once(waiter), Ok(()));
            result
        };
        let mut results: Vec<_> = (0..=REPLIES_MAX).map(|_| reply()).collect();
        let last = results.last_mut().map(oneshot::Receiver::try_recv);
        assert_eq!(last, Some(Ok(Ok(()))));
        drop(workers);
        assert_eq!(reply().try_recv(), Ok(Ok(())));
    }
}
