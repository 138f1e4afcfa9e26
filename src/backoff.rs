//! How long to wait before the next attempt at something that must work in the end.

use std::time::Duration;

/// The first wait; short, because most outages are a restart.
const FIRST: Duration = Duration::from_millis(50);

/// The maximum wait; it bounds how long after a server's return we notice it.
const MAXIMUM: Duration = Duration::from_secs(2);

/// Doubling waits with jitter, so that many clients do not return all at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    maximum: Duration,
}

impl Backoff {
    /// Starts with the shortest wait.
    pub(crate) fn new() -> Self {
        Self::up_to(MAXIMUM)
    }

    /// The same with another maximum, for what somebody has to put right first.
    pub(crate) fn up_to(maximum: Duration) -> Self {
        Self {
            next: FIRST,
            maximum,
        }
    }

    /// The wait before the next attempt: between half and all of the current step.
    pub(crate) fn next(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.maximum);
        step.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Starts over, after a success.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_start_over() {
        let mut backoff = Backoff::new();
        for _ in 0..20 {
            assert!(backoff.next() <= MAXIMUM);
        }
        assert!(backoff.next() >= MAXIMUM / 2);
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}
