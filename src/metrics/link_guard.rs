//! What shows the state of a connection, kept true on every path.

use ::metrics::Gauge;

/// Shows that a connection is up, or blocked, for as long as it lives.
///
/// The gauge, the health of the process and whatever else depends on the state are set together
/// when it is made, and set back together when it is dropped: on an error, on a cancellation and
/// on a normal end alike.
pub(crate) struct LinkGuard {
    gauge: Gauge,
    show: Box<dyn Fn(bool) + Send + Sync>,
}

impl LinkGuard {
    /// Adds one to the gauge and calls `show(true)`; dropping it takes the one away and calls
    /// `show(false)`.
    pub(crate) fn new(gauge: Gauge, show: impl Fn(bool) + Send + Sync + 'static) -> Self {
        gauge.increment(1.0);
        show(true);
        Self {
            gauge,
            show: Box::new(show),
        }
    }
}

impl Drop for LinkGuard {
    fn drop(&mut self) {
        (self.show)(false);
        self.gauge.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn gauge_and_state_are_set_together_and_set_back_by_any_end() {
        let value = Arc::new(AtomicU64::new(0));
        let shown = Arc::new(AtomicU64::new(0));
        let seen = || {
            let gauge = f64::from_bits(value.load(Ordering::Relaxed));
            (gauge, shown.load(Ordering::Relaxed))
        };
        let guard = || {
            let shown = shown.clone();
            LinkGuard::new(Gauge::from_arc(value.clone()), move |up| {
                shown.store(u64::from(up), Ordering::Relaxed);
            })
        };
        let first = guard();
        assert_eq!(seen(), (1.0, 1));
        drop(first);
        assert_eq!(seen(), (0.0, 0));
        // A future that is cancelled while it holds the guard.
        let mut cancelled = Box::pin(async {
            let _guard = guard();
            std::future::pending::<()>().await;
        });
        assert!(futures_util::FutureExt::now_or_never(&mut cancelled).is_none());
        assert_eq!(seen(), (1.0, 1));
        drop(cancelled);
        assert_eq!(seen(), (0.0, 0));
    }
}
