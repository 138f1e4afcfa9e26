//! Files under way, as many at once as the server's state allows.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tracing::{info, warn};

use super::pace::Pace;
use super::sender::{Attempt, FileSender};

/// A file whose attempt has ended.
pub(super) struct Attempted {
    /// Where it was.
    pub path: PathBuf,
    /// How that ended.
    pub end: Attempt,
    round: u64,
}

/// Files under way.
pub(super) struct Lanes {
    sender: Arc<FileSender>,
    pace: Pace,
    under_way: FuturesUnordered<BoxFuture<'static, Attempted>>,
}

impl Lanes {
    /// With so many files at once.
    pub(super) fn new(sender: FileSender, inflight_max: usize) -> Self {
        Self {
            sender: Arc::new(sender),
            pace: Pace::new(inflight_max),
            under_way: FuturesUnordered::new(),
        }
    }

    /// Whether one more may be begun now.
    pub(super) fn has_room(&self) -> bool {
        self.pace.has_room(self.under_way.len(), Instant::now())
    }

    /// Whether none is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Begins one.
    pub(super) fn begin(&mut self, path: PathBuf) {
        let (sender, round) = (self.sender.clone(), self.pace.begin());
        self.under_way.push(Box::pin(async move {
            let end = sender.attempt(path.clone()).await;
            Attempted { path, end, round }
        }));
    }

    /// The next that has ended; waits for ever where none is under way. What it says of the server
    /// counts for all.
    pub(super) async fn next(&mut self) -> Attempted {
        let Some(attempted) = self.under_way.next().await else {
            return std::future::pending().await;
        };
        self.heed(&attempted);
        attempted
    }

    /// Waits until one may be begun again in an outage; for ever where there is none, or one is under way
    /// to find out whether it is over.
    pub(super) fn may_resume(&self) -> impl Future<Output = ()> + use<> {
        let until = self.pace.held_until();
        async move {
            match until {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        }
    }

    fn heed(&mut self, attempted: &Attempted) {
        let round = attempted.round;
        match &attempted.end {
            Attempt::Accepted(_) | Attempt::Rejected(_) => {
                if self.pace.answered(round) {
                    info!("tickets are taken again");
                }
            }
            Attempt::Vanished | Attempt::Unreadable(_) => self.pace.idle(round),
            Attempt::Failed(trouble, why) => {
                if self.pace.failed(round, *trouble, Instant::now()) {
                    warn!(%why, "no tickets are taken; they are sent again");
                }
            }
        }
    }
}
