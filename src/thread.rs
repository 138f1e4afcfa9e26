//! Parts of the process on threads of their own, each with a runtime of its own.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;

use tokio::runtime::Builder;
use tokio::sync::{oneshot, watch};

/// The threads that were started, and which of them still answer.
///
/// A thread answers between two pieces of its work, so one that does not is stuck: in an endless
/// loop, or waiting for what never comes, with everything on it. One whose tasks all wait for a
/// server answers.
#[derive(Clone, Default)]
pub(crate) struct Threads {
    /// How often they were asked.
    asked: watch::Sender<u64>,
    /// The last question that each has answered; gone with the thread.
    answered: Arc<Mutex<Vec<Weak<AtomicU64>>>>,
}

impl Threads {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Runs a part to its end, which the receiver learns: as an error if the part
    /// panicked. Fails where no more threads or files can be had.
    pub(crate) fn run<F>(&self, name: &str, part: F) -> std::io::Result<oneshot::Receiver<()>>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.spawn(self.answers());
        let (end, ended) = oneshot::channel();
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                runtime.block_on(part);
                let _unheard = end.send(());
            })?;
        Ok(ended)
    }

    /// Asks each thread for an answer, which it gives as soon as it can.
    pub(crate) fn ask(&self) {
        self.asked.send_modify(|asked| *asked += 1);
    }

    /// Whether all threads that have not ended have answered the last question.
    pub(crate) fn have_answered(&self) -> bool {
        let asked = *self.asked.borrow();
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        answered.retain(|last| last.strong_count() > 0);
        let mut last = answered.iter().filter_map(Weak::upgrade);
        last.all(|last| last.load(Ordering::Relaxed) >= asked)
    }

    /// What answers on one thread.
    fn answers(&self) -> impl Future<Output = Infallible> + Send + 'static {
        let mut asked = self.asked.subscribe();
        let last = Arc::new(AtomicU64::new(*asked.borrow()));
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        answered.push(Arc::downgrade(&last));
        async move {
            while asked.changed().await.is_ok() {
                last.store(*asked.borrow_and_update(), Ordering::Relaxed);
            }
            // Nobody is left who could ask.
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use super::*;

    fn answer(threads: &Threads) -> bool {
        threads.ask();
        let since = Instant::now();
        while !threads.have_answered() {
            if since.elapsed() > Duration::from_millis(200) {
                return false;
            }
            thread::yield_now();
        }
        true
    }

    #[test]
    fn a_thread_that_waits_answers_and_one_that_is_stuck_does_not() {
        let threads = Threads::new();
        assert!(answer(&threads), "there are none");
        let (end, ended) = oneshot::channel::<()>();
        let _waits = threads.run("waits", async { drop(ended.await) }).unwrap();
        assert!(answer(&threads), "it waits for a message");
        let (release, stuck) = mpsc::channel::<()>();
        let part = async move { stuck.recv().unwrap() };
        let released = threads.run("stuck", part).unwrap();
        assert!(!answer(&threads), "one of two is stuck");
        release.send(()).unwrap();
        released.blocking_recv().unwrap();
        assert!(
            answer(&threads),
            "a thread that has ended is not waited for"
        );
        drop(end);
    }
}
