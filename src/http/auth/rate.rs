//! How fast a source may send: the generic cell rate algorithm (ITU-T I.371).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::config::RateLimit;

const SECOND_NS: u64 = 1_000_000_000;

/// A limit, and how much of it is used; of all workers together.
pub(super) struct Limiter {
    began: Instant,
    /// The time that one ticket uses up, in ns.
    each_ns: u64,
    /// How far ahead of its time a ticket may be: a burst less this one.
    ahead_ns: u64,
    /// When all tickets so far have used up their time, in ns after `began`.
    due_ns: AtomicU64,
}

impl Limiter {
    /// One of which nothing is used.
    pub(super) fn new(limit: RateLimit, now: Instant) -> Self {
        let each_ns = SECOND_NS / u64::from(limit.per_second.max(1));
        Self {
            began: now,
            each_ns,
            ahead_ns: each_ns * u64::from(limit.burst.saturating_sub(1)),
            due_ns: AtomicU64::new(0),
        }
    }

    /// Takes one ticket's share. The error is the time until there is one.
    pub(super) fn admit(&self, now: Instant) -> Result<(), Duration> {
        let now = now.saturating_duration_since(self.began).as_nanos();
        let now = u64::try_from(now).unwrap_or(u64::MAX / 2);
        let mut due = self.due_ns.load(Ordering::Relaxed);
        loop {
            let wait = due.saturating_sub(now + self.ahead_ns);
            if wait > 0 {
                return Err(Duration::from_nanos(wait));
            }
            let next = due.max(now) + self.each_ns;
            let set =
                self.due_ns
                    .compare_exchange_weak(due, next, Ordering::Relaxed, Ordering::Relaxed);
            match set {
                Ok(_) => return Ok(()),
                Err(changed) => due = changed,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many tickets, this long apart, are admitted.
    fn admitted(limiter: &Limiter, began: Instant, count: u32, apart: Duration) -> usize {
        let times = (0..count).map(|n| began + apart * n);
        times.filter(|time| limiter.admit(*time).is_ok()).count()
    }

    #[test]
    fn a_burst_is_admitted_and_then_the_rate() {
        let began = Instant::now();
        for (per_second, burst) in [(1, 1), (10, 1), (10, 5), (100, 200), (1_000_000, 1_000_000)] {
            let limiter = Limiter::new(RateLimit { per_second, burst }, began);
            assert_eq!(
                admitted(&limiter, began, burst + 10, Duration::ZERO),
                burst as usize
            );
            let one = Duration::from_nanos(SECOND_NS / u64::from(per_second));
            assert_eq!(limiter.admit(began), Err(one));
            assert!(
                limiter
                    .admit(began + one - Duration::from_nanos(1))
                    .is_err()
            );
            assert_eq!(limiter.admit(began + one), Ok(()));
            assert!(limiter.admit(began + one).is_err());
        }
    }

    #[test]
    fn the_rate_holds_in_the_long_run_and_a_pause_saves_no_more_than_a_burst() {
        let began = Instant::now();
        let limiter = Limiter::new(
            RateLimit {
                per_second: 100,
                burst: 20,
            },
            began,
        );
        let sent = admitted(&limiter, began, 100_000, Duration::from_micros(100));
        assert_eq!(sent, 20 + 10 * 100 - 1);
        let later = began + Duration::from_secs(1_000_000);
        assert_eq!(admitted(&limiter, later, 1000, Duration::ZERO), 20);
        // A worker's clock may be a moment behind another's.
        assert!(limiter.admit(later - Duration::from_millis(1)).is_err());
    }

    #[test]
    fn threads_share_a_limit() {
        let began = Instant::now();
        let limiter = Limiter::new(
            RateLimit {
                per_second: 1,
                burst: 1000,
            },
            began,
        );
        let sent: usize = std::thread::scope(|scope| {
            let threads =
                [(); 4].map(|()| scope.spawn(|| admitted(&limiter, began, 1000, Duration::ZERO)));
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .sum()
        });
        assert_eq!(sent, 1000);
    }
}
