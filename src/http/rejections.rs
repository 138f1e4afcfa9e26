//! Rejected tickets in the log: a line for each reason and second, and none for each ticket.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::metrics::Rejected;

/// How often there is a line for a reason at most.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// How many tickets were rejected since that was last logged, by reason; shared by all workers.
#[derive(Clone, Default)]
pub(crate) struct RejectionLog {
    /// In the order of [`Rejected::ALL`].
    counts: Arc<[AtomicU64; Rejected::ALL.len()]>,
}

impl RejectionLog {
    /// Counts tickets.
    pub(crate) fn count(&self, tickets: u64, reason: Rejected) {
        if let Some(count) = self.counts.get(reason as usize) {
            count.fetch_add(tickets, Ordering::Relaxed);
        }
    }

    /// Logs again and again, for as long as it is polled.
    pub(crate) async fn run(self) -> Infallible {
        let mut tick = interval(LOG_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.flush();
        }
    }

    /// Logs what there is.
    pub(crate) fn flush(&self) {
        for (reason, tickets) in self.take() {
            let name = reason.as_str();
            if is_ours(reason) {
                warn!(reason = name, tickets, "tickets were rejected");
            } else {
                info!(reason = name, tickets, "tickets were rejected");
            }
        }
    }

    fn take(&self) -> impl Iterator<Item = (Rejected, u64)> {
        let taken = self
            .counts
            .iter()
            .map(|count| count.swap(0, Ordering::Relaxed));
        let counts = Rejected::ALL.iter().copied().zip(taken);
        counts.filter(|(_, tickets)| *tickets > 0)
    }
}

/// Whether somebody has to look after ticketd or RabbitMQ; else it is the sender, or a shutdown.
fn is_ours(reason: Rejected) -> bool {
    matches!(
        reason,
        Rejected::BrokerAway
            | Rejected::BrokerBlocked
            | Rejected::ConfirmTimeout
            | Rejected::Nack
            | Rejected::Overloaded
            | Rejected::Returned
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_summed_up_once() {
        let log = RejectionLog::default();
        let worker = log.clone();
        for reason in [Rejected::Nack, Rejected::Unauthorized, Rejected::Nack] {
            worker.count(1, reason);
        }
        let taken: Vec<_> = log.take().collect();
        assert_eq!(taken, [(Rejected::Nack, 2), (Rejected::Unauthorized, 1)]);
        assert_eq!(log.take().count(), 0);
    }
}
