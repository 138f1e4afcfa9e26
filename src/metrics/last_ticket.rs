//! When the last ticket was accepted.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use ::metrics::{Gauge, gauge};

const NAME: &str = "ticketd_last_ticket_timestamp_seconds";

/// A time in whole seconds, which is 0 before the first ticket. Written once a second at most: a gauge
/// that each ticket wrote to would go from core to core.
#[derive(Clone)]
pub(super) struct LastTicket {
    second: Arc<AtomicI64>,
    gauge: Gauge,
}

impl LastTicket {
    /// That of all senders.
    pub(super) fn of_all() -> Self {
        Self::shown_by(gauge!(NAME))
    }

    /// That of a source.
    pub(super) fn of(source: &str) -> Self {
        Self::shown_by(gauge!(NAME, "source" => source.to_owned()))
    }

    fn shown_by(gauge: Gauge) -> Self {
        // There from the start, and left alone where another handle has set it.
        gauge.increment(0.0);
        Self {
            second: Arc::default(),
            gauge,
        }
    }

    /// A ticket was accepted at this time, in µs since the Unix epoch.
    pub(super) fn note(&self, now_us: i64) {
        let now = now_us / 1_000_000;
        if self.second.load(Ordering::Relaxed) < now {
            self.second.store(now, Ordering::Relaxed);
            self.gauge.set(now as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn it_is_the_second_of_the_last_one_and_never_goes_back() {
        let value = Arc::new(AtomicU64::new(0));
        let last = LastTicket::shown_by(Gauge::from_arc(value.clone()));
        let shown = || f64::from_bits(value.load(Ordering::Relaxed));
        assert_eq!(shown(), 0.0);
        for (now_us, second) in [
            (7_999_999, 7.0),
            (7_000_000, 7.0),
            (9_000_000, 9.0),
            (8_000_000, 9.0),
        ] {
            last.note(now_us);
            assert_eq!(shown(), second, "{now_us}");
        }
    }
}
