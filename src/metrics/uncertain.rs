//! What cannot always be told.

use ::metrics::{Gauge, gauge};

/// A gauge whose value is not always known: NaN then, and at first.
#[derive(Clone)]
pub(crate) struct UncertainGauge(Gauge);

impl UncertainGauge {
    /// Seconds since the oldest ticket was received that is delivered and not acknowledged.
    pub(crate) fn backlog_age() -> Self {
        Self::unknown(gauge!("ticketd_backlog_age_seconds"))
    }

    /// Rows of `dead_tickets`.
    pub(crate) fn dead_tickets() -> Self {
        Self::unknown(gauge!("ticketd_dead_tickets"))
    }

    /// For how many seconds partitions of `tickets` are made.
    pub(crate) fn partitions_ahead() -> Self {
        Self::unknown(gauge!("ticketd_partitions_ahead_seconds"))
    }

    fn unknown(gauge: Gauge) -> Self {
        gauge.set(f64::NAN);
        Self(gauge)
    }

    /// Shows what is known now.
    pub(crate) fn set(&self, value: Option<f64>) {
        self.0.set(value.unwrap_or(f64::NAN));
    }
}

/// Shows that the process is shutting down.
pub(crate) struct Draining(Gauge);

impl Draining {
    /// It is not, yet.
    pub(crate) fn new() -> Self {
        let gauge = gauge!("ticketd_draining");
        gauge.set(0.0);
        Self(gauge)
    }

    /// It is from now on.
    pub(crate) fn begin(&self) {
        self.0.set(1.0);
    }
}
