//! What a ticket costs each part. Pure.

/// CPU microseconds a ticket, with one node of each server and all parts busy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Costs {
    pub(super) accept: f64,
    pub(super) consume: f64,
    pub(super) rabbitmq: f64,
    pub(super) postgres: f64,
    /// The load generator, which is no part of ticketd.
    pub(super) load: f64,
}

/// What replicas change, and what a ticket weighs where it is kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Replication {
    /// CPU of each further node of RabbitMQ, as a share of what the only one costs.
    pub(super) follower: f64,
    /// CPU of each standby, as a share of what a primary alone costs.
    pub(super) standby: f64,
    /// CPU of a primary with standbys over one alone.
    pub(super) primary: f64,
    /// Bytes of WAL a ticket.
    pub(super) wal_bytes: f64,
    /// Bytes of table and indexes a ticket.
    pub(super) stored_bytes: f64,
}

/// How many there are of each server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) brokers: u32,
    pub(super) standbys: u32,
}

/// A part, and CPU microseconds a ticket of all its processes.
pub(super) type PartCost = (&'static str, f64);

impl Costs {
    /// What a ticket costs each part in a layout.
    pub(super) fn parts(&self, layout: Layout, replication: &Replication) -> [PartCost; 6] {
        let followers = f64::from(layout.brokers.saturating_sub(1));
        let standbys = f64::from(layout.standbys);
        let primary = if layout.standbys > 0 {
            replication.primary
        } else {
            1.0
        };
        [
            ("load", self.load),
            ("accept", self.accept),
            (
                "rabbitmq",
                self.rabbitmq * (1.0 + followers * replication.follower),
            ),
            ("consume", self.consume),
            ("postgres", self.postgres * primary),
            ("standby", self.postgres * replication.standby * standbys),
        ]
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::model) const COSTS: Costs = Costs {
        accept: 9.9,
        consume: 0.75,
        rabbitmq: 1.85,
        postgres: 3.86,
        load: 6.6,
    };

    pub(in crate::model) const REPLICATION: Replication = Replication {
        follower: 0.5,
        standby: 0.4,
        primary: 1.1,
        wal_bytes: 344.0,
        stored_bytes: 273.0,
    };

    #[test]
    fn replicas_cost_what_they_do() {
        let one = Layout {
            brokers: 1,
            standbys: 0,
        };
        let alone = COSTS.parts(one, &REPLICATION);
        assert_eq!(alone[2], ("rabbitmq", 1.85));
        assert_eq!(alone[4], ("postgres", 3.86));
        assert_eq!(alone[5], ("standby", 0.0));
        let three = Layout {
            brokers: 3,
            standbys: 2,
        };
        let parts = COSTS.parts(three, &REPLICATION);
        assert!((parts[2].1 - 3.7).abs() < 1e-9);
        assert!((parts[4].1 - 4.246).abs() < 1e-9);
        assert!((parts[5].1 - 3.088).abs() < 1e-9);
    }
}
