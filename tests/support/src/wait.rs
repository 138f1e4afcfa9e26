//! Waiting for what must come to pass, and no longer than it may take.

use std::time::{Duration, Instant};

/// Maximum wait for anything in a test: far more than it takes on a busy machine, so that
/// only what never comes fails.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Between two looks.
const STEP: Duration = Duration::from_millis(20);

/// Looks until there is something to see, and returns it.
pub async fn wait_for<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    wait_within(what, DEADLINE, look).await
}

/// The same with a deadline of its own.
pub async fn wait_within<T>(
    what: &str,
    longest: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let started = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(
            started.elapsed() < longest,
            "not within {longest:?}: {what}"
        );
        tokio::time::sleep(STEP).await;
    }
}

/// Looks until the condition holds.
pub async fn wait_until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    wait_for(what, async || condition().await.then_some(())).await;
}
