//! What came of one measurement. Pure.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// What one part used.
#[derive(Clone)]
pub(super) struct PartCost {
    pub(super) name: String,
    pub(super) cpu_seconds_per_million: Option<f64>,
    pub(super) memory_mib: f64,
}

/// What came of a measurement.
#[derive(Clone)]
pub(super) struct Outcome {
    /// Tickets per second: stored ones where the target stores, else accepted ones.
    pub(super) per_second: f64,
    pub(super) accepted: u64,
    /// Requests that were not answered 202.
    pub(super) refused: u64,
    /// Arrivals of an open loop that found no free connection.
    pub(super) unsent: u64,
    /// Rows of the table and of `dead_tickets`; none where nothing is stored.
    pub(super) stored: Option<(i64, i64)>,
    pub(super) lost: i64,
    pub(super) twice: i64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) p999_ms: f64,
    /// Upper bound of the 99th percentile from received to committed, as ticketd's histogram tells it.
    pub(super) committed_p99_ms: Option<f64>,
    pub(super) costs: Vec<PartCost>,
}

impl Outcome {
    /// Read from what the load generator wrote.
    pub(super) fn of_load(figures: &Value) -> Result<Self> {
        let number = |name: &str| {
            figures[name]
                .as_f64()
                .with_context(|| format!("the load generator does not tell {name}"))
        };
        let stored = &figures["stored"];
        let count = |name: &str| stored[name].as_i64().unwrap_or(0);
        let accepted = figures["accepted"].as_u64().unwrap_or(0);
        let sent = figures["sent"].as_u64().unwrap_or(0);
        let per_second = match stored {
            Value::Null => number("accepted_per_second")?,
            // Without this figure the rows never all came.
            stored => stored["per_second"].as_f64().unwrap_or(0.0),
        };
        let costs = figures["costs"].as_array().into_iter().flatten();
        Ok(Self {
            per_second,
            accepted,
            refused: sent.saturating_sub(accepted),
            unsent: figures["unsent"].as_u64().unwrap_or(0),
            stored: (!stored.is_null()).then(|| (count("valid") + count("invalid"), count("dead"))),
            lost: count("lost"),
            twice: count("duplicates"),
            p50_ms: number("latency_p50_ms")?,
            p99_ms: number("latency_p99_ms")?,
            p999_ms: number("latency_p999_ms")?,
            committed_p99_ms: None,
            costs: costs.filter_map(part_cost).collect(),
        })
    }

    /// Every accepted ticket must have been found once.
    pub(super) fn check(&self) -> Result<()> {
        ensure!(
            self.accepted > 0 && self.lost == 0 && self.twice == 0,
            "{} accepted, {} lost, {} stored twice",
            self.accepted,
            self.lost,
            self.twice
        );
        Ok(())
    }

    /// The peak resident memory of a part.
    pub(super) fn memory_mib(&self, part: &str) -> Option<f64> {
        let cost = self.costs.iter().find(|cost| cost.name == part)?;
        Some(cost.memory_mib)
    }
}

fn part_cost(cost: &Value) -> Option<PartCost> {
    Some(PartCost {
        name: cost["name"].as_str()?.to_owned(),
        cpu_seconds_per_million: cost["cpu_seconds_per_million"].as_f64(),
        memory_mib: cost["memory_bytes"].as_f64()? / 1048576.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn figures(stored: &Value) -> Value {
        json!({
            "sent": 12, "accepted": 10, "accepted_per_second": 50.0, "unsent": 0, "stored": stored,
            "latency_p50_ms": 1.0, "latency_p99_ms": 2.0, "latency_p999_ms": 3.0,
            "costs": [{"name": "serve", "cpu_seconds_per_million": 4.0, "memory_bytes": 2_097_152}],
        })
    }

    #[test]
    fn a_rate_is_of_stored_tickets_where_they_are_stored() {
        let outcome = Outcome::of_load(&figures(&Value::Null)).unwrap();
        assert_eq!((outcome.per_second, outcome.refused), (50.0, 2));
        assert_eq!(outcome.memory_mib("serve"), Some(2.0));
        let stored = json!({"valid": 9, "invalid": 0, "dead": 1, "lost": 0, "duplicates": 0, "per_second": 40.0});
        let outcome = Outcome::of_load(&figures(&stored)).unwrap();
        assert_eq!((outcome.per_second, outcome.stored), (40.0, Some((9, 1))));
        assert!(outcome.check().is_ok());
    }

    #[test]
    fn a_lost_or_doubled_ticket_is_not_sound() {
        for (lost, duplicates) in [(1, 0), (0, 1)] {
            let stored = json!({"valid": 10, "lost": lost, "duplicates": duplicates});
            assert!(
                Outcome::of_load(&figures(&stored))
                    .unwrap()
                    .check()
                    .is_err()
            );
        }
    }
}
