//! How old the oldest ticket is that waits to be stored, for people.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::clock::now_us;
use crate::metrics::UncertainGauge;

/// How often the age is shown: a wait for PostgreSQL has no events of its own.
const SHOW_EVERY: Duration = Duration::from_millis(500);

/// The oldest ticket that RabbitMQ has delivered and that is not stored.
#[derive(Clone)]
pub(super) struct Backlog {
    oldest: Arc<Mutex<Oldest>>,
    gauge: UncertainGauge,
}

/// When it was received, in µs since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Oldest {
    /// Nobody can tell.
    Unknown,
    /// Everything that was delivered is stored.
    Nothing,
    At(i64),
}

impl Backlog {
    /// Nothing is known yet.
    pub(super) fn new() -> Self {
        Self {
            oldest: Arc::new(Mutex::new(Oldest::Unknown)),
            gauge: UncertainGauge::backlog_age(),
        }
    }

    /// A subscription has this one, or none.
    pub(super) fn set(&self, oldest_us: Option<i64>) {
        self.put(oldest_us.map_or(Oldest::Nothing, Oldest::At));
    }

    /// A subscription has ended. What it had is in the queue again, as old as it was; else, nobody can
    /// tell what is.
    pub(super) fn disconnected(&self, oldest_us: Option<i64>) {
        self.put(oldest_us.map_or(Oldest::Unknown, Oldest::At));
    }

    /// Shows the age again and again, for as long as it is polled.
    pub(super) async fn watch(self) -> Infallible {
        let mut tick = interval(SHOW_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.gauge.set(self.age_seconds(now_us()));
        }
    }

    fn put(&self, oldest: Oldest) {
        // Nothing panics while it holds the lock.
        *self.oldest.lock().unwrap_or_else(PoisonError::into_inner) = oldest;
    }

    fn age_seconds(&self, now_us: i64) -> Option<f64> {
        match *self.oldest.lock().unwrap_or_else(PoisonError::into_inner) {
            Oldest::Unknown => None,
            Oldest::Nothing => Some(0.0),
            Oldest::At(us) => Some(now_us.saturating_sub(us).max(0) as f64 / 1e6),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_US: i64 = 1_700_000_000_000_000;

    #[test]
    fn what_a_subscription_leaves_behind_grows_older() {
        let backlog = Backlog::new();
        let age = |seconds: i64| backlog.age_seconds(NOW_US + seconds * 1_000_000);
        assert_eq!(age(0), None, "not known yet");
        backlog.set(None);
        assert_eq!(age(0), Some(0.0));
        backlog.set(Some(NOW_US));
        assert_eq!((age(-1), age(2)), (Some(0.0), Some(2.0)));
        backlog.disconnected(Some(NOW_US));
        assert_eq!(age(60), Some(60.0));
        backlog.set(Some(NOW_US + 50_000_000));
        assert_eq!(age(60), Some(10.0), "others were stored meanwhile");
        backlog.disconnected(None);
        assert_eq!(age(60), None, "nobody can tell");
    }
}
