//! The time of a bench.

use tokio::time::Instant;

/// How long one measurement loads its server.
const SCENARIO_SECONDS_MIN: f64 = 0.5;
const SCENARIO_SECONDS_MAX: f64 = 20.0;

/// What a measurement takes besides, before it is known: start, drain, count, clean-up.
const SCENARIO_EXTRA_SECONDS: f64 = 0.5;

/// How far a run may go beyond its time before it leaves the rest out.
const OVERTIME: f64 = 1.2;

/// The time that is left, shared out over the measurements still to come.
pub(super) struct Budget {
    started: Instant,
    seconds: f64,
    extra_seconds: f64,
}

impl Budget {
    /// So many seconds from now on.
    pub(super) fn new(seconds: f64) -> Self {
        Self {
            started: Instant::now(),
            seconds,
            extra_seconds: SCENARIO_EXTRA_SECONDS,
        }
    }

    fn spent(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Whether so much more was spent than there was that the rest is left out.
    pub(super) fn is_overdrawn(&self) -> bool {
        self.spent() > self.seconds * OVERTIME
    }

    /// How long each of so many measurements may load its server.
    pub(super) fn scenario_seconds(&self, scenarios: usize) -> f64 {
        let share = (self.seconds - self.spent()) / scenarios.max(1) as f64;
        (share - self.extra_seconds).clamp(SCENARIO_SECONDS_MIN, SCENARIO_SECONDS_MAX)
    }

    /// Learns from a round what its measurements took besides.
    pub(super) fn learn(
        &mut self,
        round_started: Instant,
        scenarios: usize,
        scenario_seconds: f64,
    ) {
        let each = round_started.elapsed().as_secs_f64() / scenarios.max(1) as f64;
        self.extra_seconds = (each - scenario_seconds).max(0.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_time_left_is_shared_out() {
        let mut budget = Budget {
            started: Instant::now(),
            seconds: 100.0,
            extra_seconds: 2.0,
        };
        assert!((budget.scenario_seconds(20) - 3.0).abs() < 0.1);
        assert!((budget.scenario_seconds(1) - SCENARIO_SECONDS_MAX).abs() < 0.1);
        assert!((budget.scenario_seconds(1000) - SCENARIO_SECONDS_MIN).abs() < 0.1);
        budget.learn(Instant::now() - Duration::from_secs(50), 10, 3.0);
        assert!((budget.extra_seconds - 2.0).abs() < 0.1);
        assert!(!budget.is_overdrawn());
        budget.seconds = -1.0;
        assert!(budget.is_overdrawn());
    }
}
