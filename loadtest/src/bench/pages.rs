//! People who have the page at / open, as far as ticketd notices: what it asks for, as often as it does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::process;
use crate::client::Endpoint;

/// How many are open.
pub(super) const OPEN: u64 = 20;

/// What a page asks for, how old that may be, in s, and how long it waits after each answer, in ms: see its loops in
/// src/http/handlers/page.html.
const ASKED: [(&str, u64, u64); 3] = [
    ("/metrics", 1, 1000),
    ("/tickets?limit=50", 0, 1050),
    ("/tickets?invalid=true&limit=200", 5, 3000),
];

/// Pages that are open until this is dropped.
pub(super) struct Pages {
    asking: JoinSet<Result<()>>,
    answers: Arc<AtomicU64>,
}

impl Pages {
    /// Opens them, not all at the same moment.
    pub(super) fn open(admin: &Endpoint) -> Self {
        let (mut asking, answers) = (JoinSet::new(), Arc::new(AtomicU64::new(0)));
        for page in 0..OPEN {
            for (path, age, wait) in ASKED {
                let first = Duration::from_millis(wait * page / OPEN);
                let wait = Duration::from_millis(wait);
                asking.spawn(ask(
                    admin.clone(),
                    (path, age),
                    (first, wait),
                    answers.clone(),
                ));
            }
        }
        Self { asking, answers }
    }

    /// Closes them; fails if they were not answered as they should have been.
    pub(super) fn close(mut self) -> Result<()> {
        while let Some(ended) = self.asking.try_join_next() {
            ended??;
        }
        let answers = self.answers.load(Ordering::Relaxed);
        ensure!(answers >= OPEN, "{OPEN} pages had {answers} answers");
        Ok(())
    }
}

/// Ends only with a failure.
async fn ask(
    admin: Endpoint,
    (path, age): (&'static str, u64),
    (first, wait): (Duration, Duration),
    answers: Arc<AtomicU64>,
) -> Result<()> {
    sleep(first).await;
    loop {
        process::get_within(&admin, path, age).await?;
        answers.fetch_add(1, Ordering::Relaxed);
        sleep(wait).await;
    }
}
