//! Dead tickets in the log: a line a second at most, and none for each ticket.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tracing::error;

/// How often there is a line at most.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// What went to `dead_tickets` since that was last logged; shared by all writers.
#[derive(Clone, Default)]
pub(super) struct DeadLog {
    sum: Arc<Mutex<Sum>>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    tickets: u64,
    /// The first one's: another may be different, and `ticketd dead list` has them all.
    reason: String,
}

impl DeadLog {
    /// Adds tickets, each for its reason.
    pub(super) fn add<'a>(&self, reasons: impl Iterator<Item = &'a str>) {
        for reason in reasons {
            let mut sum = self.sum();
            if sum.tickets == 0 {
                reason.clone_into(&mut sum.reason);
            }
            sum.tickets += 1;
        }
    }

    /// Logs again and again, for as long as it is polled.
    pub(super) async fn run(self) -> Infallible {
        let mut tick = interval(LOG_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.flush();
        }
    }

    /// Logs what there is.
    pub(super) fn flush(&self) {
        let Sum { tickets, reason } = std::mem::take(&mut *self.sum());
        if tickets > 0 {
            error!(
                tickets,
                reason, "tickets cannot be stored and went to dead_tickets"
            );
        }
    }

    fn sum(&self) -> MutexGuard<'_, Sum> {
        // Nothing panics while it holds the lock.
        self.sum.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_are_summed_up_with_the_first_reason() {
        let log = DeadLog::default();
        log.add(["one", "two"].into_iter());
        log.clone().add(["three"].into_iter());
        let sum = Sum {
            tickets: 3,
            reason: "one".into(),
        };
        assert_eq!(*log.sum(), sum);
        log.flush();
        assert_eq!(*log.sum(), Sum::default());
    }
}
