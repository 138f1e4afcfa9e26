//! The figures of a run, for people and for scripts.

use serde_json::{Value, json};

use crate::proc::Cost;
use crate::stored::Stored;
use crate::tally::Tally;

/// All that is known at the end of a run.
pub(crate) struct Report {
    /// Connections of the run.
    pub(crate) connections: u32,
    /// The arrival rate asked for; none in a closed loop.
    pub(crate) rate_wanted: Option<f64>,
    /// What the client saw.
    pub(crate) tally: Tally,
    /// What the database holds, when it was asked.
    pub(crate) stored: Option<Stored>,
    /// From the last answer until all rows were seen; none when they never were.
    pub(crate) drain_seconds: Option<f64>,
    /// From the start of the load until all was stored.
    pub(crate) stored_seconds: Option<f64>,
    /// What each part used.
    pub(crate) costs: Vec<Cost>,
}

impl Report {
    /// Whether the database, if asked, holds every accepted ticket once.
    pub(crate) fn is_sound(&self) -> bool {
        self.stored
            .as_ref()
            .is_none_or(|stored| stored.lost == 0 && stored.duplicates == 0)
    }

    fn seconds(&self) -> f64 {
        self.tally.last_answer_nanos as f64 / 1e9
    }

    fn accepted_per_second(&self) -> f64 {
        if self.tally.accepted == 0 {
            0.0
        } else {
            self.tally.accepted as f64 / self.seconds()
        }
    }

    fn latency_millis(&self, quantile: f64) -> f64 {
        self.tally.latency_nanos.value_at_quantile(quantile) as f64 / 1e6
    }

    /// None when nothing was accepted that the cost could be spread over.
    fn per_million(&self, cost: &Cost) -> Option<f64> {
        let accepted = self.tally.accepted;
        (accepted > 0).then_some(cost.cpu_seconds? * 1e6 / accepted as f64)
    }

    fn stored_per_second(&self) -> Option<f64> {
        Some(self.tally.accepted as f64 / self.stored_seconds?)
    }

    /// Prints the figures to standard output.
    pub(crate) fn print(&self) {
        let tally = &self.tally;
        let loop_kind = match self.rate_wanted {
            Some(rate) => format!("open loop at {rate:.0}/s"),
            None => "closed loop".to_owned(),
        };
        println!(
            "load       {} connections, {loop_kind}, {:.2} s",
            self.connections,
            self.seconds()
        );
        println!("sent       {}", tally.sent);
        println!(
            "accepted   {} (202), {:.0}/s",
            tally.accepted,
            self.accepted_per_second()
        );
        for (status, count) in tally.statuses.iter().filter(|(status, _)| **status != 202) {
            println!("refused    {count} ({status})");
        }
        for (kind, count) in &tally.errors {
            println!("errors     {count} ({kind})");
        }
        if tally.unsent > 0 {
            println!(
                "unsent     {} fell due while every connection was busy",
                tally.unsent
            );
        }
        println!(
            "latency    p50 {:.3} ms, p99 {:.3} ms, p99.9 {:.3} ms, max {:.3} ms",
            self.latency_millis(0.5),
            self.latency_millis(0.99),
            self.latency_millis(0.999),
            self.latency_millis(1.0),
        );
        self.print_stored();
        self.print_costs();
    }

    fn print_stored(&self) {
        let Some(stored) = &self.stored else { return };
        println!(
            "stored     {} valid, {} invalid, {} dead, {} of them not answered 202",
            stored.valid, stored.invalid, stored.dead, stored.unanswered,
        );
        println!("lost       {}", stored.lost);
        println!("twice      {}", stored.duplicates);
        if let (Some(drain), Some(rate)) = (self.drain_seconds, self.stored_per_second()) {
            println!("drained    within {drain:.2} s of the last answer, {rate:.0}/s end to end");
        }
    }

    fn print_costs(&self) {
        for cost in &self.costs {
            let cpu = self.per_million(cost).map_or_else(
                || "CPU time unknown".to_owned(),
                |seconds| format!("{seconds:.2} CPU s per million"),
            );
            println!(
                "{:<10} {cpu}, peak memory {:.1} MiB ({})",
                cost.name,
                cost.memory_bytes as f64 / 1048576.0,
                cost.memory_measure,
            );
        }
    }

    /// The same figures under stable names, units last.
    pub(crate) fn json(&self) -> Value {
        let tally = &self.tally;
        let stored = self.stored.as_ref().map(|stored| {
            json!({
                "valid": stored.valid,
                "invalid": stored.invalid,
                "dead": stored.dead,
                "unanswered": stored.unanswered,
                "lost": stored.lost,
                "duplicates": stored.duplicates,
                "drain_seconds": self.drain_seconds,
                "per_second": self.stored_per_second(),
            })
        });
        json!({
            "connections": self.connections,
            "rate_wanted_per_second": self.rate_wanted,
            "seconds": self.seconds(),
            "sent": tally.sent,
            "accepted": tally.accepted,
            "accepted_per_second": self.accepted_per_second(),
            "statuses": tally.statuses.iter()
                .map(|(status, count)| (status.to_string(), json!(count)))
                .collect::<serde_json::Map<_, _>>(),
            "errors": tally.errors,
            "unsent": tally.unsent,
            "latency_p50_ms": self.latency_millis(0.5),
            "latency_p99_ms": self.latency_millis(0.99),
            "latency_p999_ms": self.latency_millis(0.999),
            "latency_max_ms": self.latency_millis(1.0),
            "stored": stored,
            "costs": self.costs.iter().map(|cost| self.cost_json(cost)).collect::<Vec<_>>(),
        })
    }

    fn cost_json(&self, cost: &Cost) -> Value {
        json!({
            "name": cost.name,
            "cpu_seconds": cost.cpu_seconds,
            "cpu_seconds_per_million": self.per_million(cost),
            "memory_bytes": cost.memory_bytes,
            "memory_measure": cost.memory_measure,
        })
    }
}
