//! Everything a bench has measured, and the medians and ratios that are told of it.

use super::HALF_PERCENT;
use super::backlog::{Backlog, Soak};
use super::beside::Beside;
use super::ceiling::BATCH_ROWS;
use super::held::Held;
use super::outcome::Outcome;
use super::pairs::Pair;
use super::target::Target;

/// ticketd's default of `BATCH_AGE`.
const BATCH_AGE_MS: f64 = 40.0;

/// Thresholds of what hangs on the machine's speed, over a ceiling that is measured in the same run. On two cores 3.8 to 8.4, 1.1
/// and 0.81 to 0.87 were measured; a bucket is up to 2.5 times the one before.
const P99_OVER_BARE_MAX: f64 = 10.0;
const COMMITTED_OVER_CEILING_MAX: f64 = 2.5;
const BACKLOG_OVER_COPY_MIN: f64 = 0.65;

/// All measurements.
#[derive(Default)]
pub(super) struct Results {
    /// Names and values of the machine's shape.
    pub(super) machine: Vec<(&'static str, String)>,
    /// As fast as answers come: target, connections, and what came of it, once for each round.
    pub(super) closed: Vec<(Target, u32, Outcome)>,
    /// A target at a percentage of its highest rate, and the rate that this is.
    pub(super) open: Vec<(Target, u32, f64, Outcome)>,
    /// What credentials and TLS cost, and for how long each measurement of these lasted.
    pub(super) pairs: Vec<Pair>,
    pub(super) pair_seconds: Option<f64>,
    /// What connections hold.
    pub(super) held: Option<Held>,
    /// What single tickets notice of many.
    pub(super) beside: Vec<Beside>,
    pub(super) backlog: Option<Backlog>,
    pub(super) soak: Option<Soak>,
    /// What could not be measured, and why.
    pub(super) failures: Vec<String>,
    /// How often each was measured.
    pub(super) rounds: usize,
    /// For how long each time, at the least and at the most.
    pub(super) seconds: Option<(f64, f64)>,
}

/// A bound that is aimed at.
#[derive(Clone, Copy)]
pub(super) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// A measure beside its bound.
pub(super) struct Threshold {
    pub(super) measure: &'static str,
    /// None when it was not measured.
    pub(super) value: Option<f64>,
    pub(super) bound: Bound,
    pub(super) unit: &'static str,
}

impl Threshold {
    /// None when it was not measured.
    pub(super) fn is_met(&self) -> Option<bool> {
        let value = self.value?;
        Some(match self.bound {
            Bound::AtLeast(bound) => value >= bound,
            Bound::AtMost(bound) => value <= bound,
        })
    }
}

impl Results {
    /// Takes note of how long measurements loaded their servers.
    pub(super) fn took(&mut self, seconds: f64) {
        let (least, most) = self.seconds.unwrap_or((seconds, seconds));
        self.seconds = Some((least.min(seconds), most.max(seconds)));
    }

    /// What the rounds gave for a target at a number of connections.
    pub(super) fn of(&self, target: Target, connections: u32) -> impl Iterator<Item = &Outcome> {
        let scenarios = self.closed.iter();
        scenarios.filter_map(move |(its_target, its_connections, outcome)| {
            (*its_target == target && *its_connections == connections).then_some(outcome)
        })
    }

    /// The pairs of a target.
    pub(super) fn pairs_of(&self, target: Target) -> impl Iterator<Item = &Pair> {
        self.pairs.iter().filter(move |pair| pair.target == target)
    }

    /// What the rounds gave for a target at a percentage of its highest rate.
    pub(super) fn at_load(&self, target: Target, percent: u32) -> impl Iterator<Item = &Outcome> {
        let scenarios = self.open.iter();
        scenarios.filter_map(move |(its_target, scenario, _, outcome)| {
            (*its_target == target && *scenario == percent).then_some(outcome)
        })
    }

    /// The rate that was due at this percentage.
    pub(super) fn due(&self, target: Target, percent: u32) -> Option<f64> {
        let mut scenarios = self.open.iter();
        let scenario = scenarios
            .find(|(its_target, scenario, ..)| (*its_target, *scenario) == (target, percent));
        scenario.map(|(_, _, rate, _)| *rate)
    }

    /// The median rate.
    pub(super) fn rate(&self, target: Target, connections: u32) -> Option<f64> {
        median(
            self.of(target, connections)
                .map(|outcome| outcome.per_second),
        )
    }

    /// The highest median rate of a target.
    pub(super) fn highest_rate(&self, target: Target) -> Option<f64> {
        let connections = target.connections().iter();
        connections
            .filter_map(|connections| self.rate(target, *connections))
            .max_by(f64::total_cmp)
    }

    fn ratio(&self, over: Target, under: Target, connections: u32) -> Option<f64> {
        quotient(self.rate(over, connections), self.rate(under, connections))
    }

    fn p50_ratio_at_one(&self) -> Option<f64> {
        let p50 = |target| median(self.of(target, 1).map(|outcome| outcome.p50_ms));
        quotient(p50(Target::EndToEnd), p50(Target::Ungrouped))
    }

    fn p99_beside_many(&self) -> Option<f64> {
        median(self.beside.iter().filter_map(Beside::p99_ratio))
    }

    fn p99_over_bare(&self) -> Option<f64> {
        let half = |target| self.at_load(target, HALF_PERCENT);
        let p99 = |target| median(half(target).map(|outcome| outcome.p99_ms));
        quotient(p99(Target::EndToEnd), p99(Target::Bare))
    }

    fn committed_over_ceiling(&self) -> Option<f64> {
        let half = self.at_load(Target::EndToEnd, HALF_PERCENT);
        let committed = median(half.filter_map(|outcome| outcome.committed_p99_ms));
        quotient(committed, self.committed_ceiling_ms())
    }

    /// What a ticket may have to wait for under load, however fast ticketd is: that its own batch fills, and that
    /// PostgreSQL has written the full one before it.
    pub(super) fn committed_ceiling_ms(&self) -> Option<f64> {
        let rate = Some(self.backlog.as_ref()?.ceiling_per_second);
        Some(BATCH_AGE_MS + quotient(Some(BATCH_ROWS as f64 * 1e3), rate)?)
    }

    fn backlog_over_copy(&self) -> Option<f64> {
        let backlog = self.backlog.as_ref()?;
        quotient(Some(backlog.per_second), Some(backlog.ceiling_per_second))
    }

    fn peak_mib(&self, part: &str) -> Option<f64> {
        let outcomes = self.of(Target::Split, 1000);
        outcomes
            .filter_map(|outcome| outcome.memory_mib(part))
            .max_by(f64::total_cmp)
    }

    /// Every threshold with what was measured.
    pub(super) fn thresholds(&self) -> Vec<Threshold> {
        let mut thresholds = self.rate_thresholds();
        thresholds.extend(self.pair_thresholds());
        thresholds.extend(self.latency_thresholds());
        thresholds.extend(self.long_thresholds());
        thresholds
    }

    fn rate_thresholds(&self) -> Vec<Threshold> {
        use Target::{Accept, Bare, Baseline, EndToEnd, Ungrouped};
        let threshold = |measure, (over, under), connections, bound| Threshold {
            measure,
            value: self.ratio(over, under, connections),
            bound: Bound::AtLeast(bound),
            unit: "",
        };
        vec![
            threshold(
                "End to end over the bare server, 1,000 connections",
                (EndToEnd, Bare),
                1000,
                0.60,
            ),
            threshold(
                "Accept alone over the bare server, 1,000 connections",
                (Accept, Bare),
                1000,
                0.75,
            ),
            threshold(
                "Accept alone over the bare server, 128 connections",
                (Accept, Bare),
                128,
                0.75,
            ),
            threshold(
                "End to end over PUBLISH_GROUP_MAX=1, 1,000 connections",
                (EndToEnd, Ungrouped),
                1000,
                2.5,
            ),
            threshold(
                "End to end over the baseline pipeline, 1,000 connections",
                (EndToEnd, Baseline),
                1000,
                50.0,
            ),
        ]
    }

    fn pair_thresholds(&self) -> impl Iterator<Item = Threshold> {
        let guarded = [
            (
                "End to end with a bearer token over without",
                Target::Bearer,
                0.97,
            ),
            (
                "End to end with signatures over without",
                Target::Signed,
                0.90,
            ),
            ("End to end over HTTPS over plain HTTP", Target::Https, 0.70),
            (
                "End to end with 20 pages open over without",
                Target::Watched,
                0.99,
            ),
            (
                "End to end by POST /tickets over POST /ticket",
                Target::Bulk,
                3.0,
            ),
        ];
        guarded
            .into_iter()
            .map(|(measure, target, bound)| Threshold {
                measure,
                value: median(self.pairs_of(target).filter_map(Pair::ratio)),
                bound: Bound::AtLeast(bound),
                unit: "",
            })
    }

    fn latency_thresholds(&self) -> Vec<Threshold> {
        let threshold = |measure, value, bound, unit| Threshold {
            measure,
            value,
            bound: Bound::AtMost(bound),
            unit,
        };
        vec![
            threshold(
                "Median latency at 1 connection over PUBLISH_GROUP_MAX=1",
                self.p50_ratio_at_one(),
                1.1,
                "",
            ),
            threshold(
                "p99 of single tickets beside POST /tickets at full over that without, at a quarter of the highest rate",
                self.p99_beside_many(),
                2.0,
                "",
            ),
            threshold(
                "p99 until accepted over the bare server's, each at half of its own highest rate",
                self.p99_over_bare(),
                P99_OVER_BARE_MAX,
                "",
            ),
            threshold(
                "p99 from received to committed over BATCH_AGE and a full batch's COPY, at half the highest rate",
                self.committed_over_ceiling(),
                COMMITTED_OVER_CEILING_MAX,
                "",
            ),
            threshold(
                "Accept role's peak memory, 1,000 connections",
                self.peak_mib("accept"),
                48.0,
                " MiB",
            ),
            threshold(
                "Consume role's peak memory, 1,000 connections",
                self.peak_mib("consume"),
                96.0,
                " MiB",
            ),
        ]
    }

    fn long_thresholds(&self) -> Vec<Threshold> {
        let backlog = self.backlog.as_ref();
        let threshold = |measure, value, bound, unit| Threshold {
            measure,
            value,
            bound,
            unit,
        };
        vec![
            threshold(
                "Draining a backlog with one writer over PostgreSQL's COPY of the same rows",
                self.backlog_over_copy(),
                Bound::AtLeast(BACKLOG_OVER_COPY_MIN),
                "",
            ),
            threshold(
                "Consumer's peak memory at the end of the backlog over that after a quarter",
                backlog.map(|it| it.end_memory_mib / it.quarter_memory_mib),
                Bound::AtMost(1.1),
                "",
            ),
            threshold(
                "Soak: the last decile's rate over the first's",
                self.soak.as_ref().map(|it| {
                    let [first, .., last] = it.deciles;
                    last.per_second / first.per_second
                }),
                Bound::AtLeast(0.95),
                "",
            ),
        ]
    }
}

/// None without a divisor that is more than nothing.
pub(super) fn quotient(over: Option<f64>, under: Option<f64>) -> Option<f64> {
    let under = under.filter(|under| *under > 0.0)?;
    Some(over? / under)
}

/// The middle value, or the mean of the two in the middle; none of nothing.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *values.get(values.len() / 2 - 1)?;
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
pub(super) mod tests;
