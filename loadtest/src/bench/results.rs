//! Everything a bench has measured, and the medians and ratios that are told of it.

use super::backlog::{Backlog, InARow};
use super::outcome::Outcome;
use super::target::Target;

/// All measurements.
#[derive(Default)]
pub(super) struct Results {
    /// Names and values of the machine's shape.
    pub(super) machine: Vec<(&'static str, String)>,
    /// As fast as answers come: target, connections, and what came of it, once for each round.
    pub(super) closed: Vec<(Target, u32, Outcome)>,
    /// End to end at a percentage of the highest rate, which is given with it.
    pub(super) open: Vec<(u32, f64, Outcome)>,
    pub(super) backlog: Option<Backlog>,
    pub(super) in_a_row: Option<InARow>,
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
pub(super) struct Bar {
    pub(super) measure: &'static str,
    /// None when it was not measured.
    pub(super) value: Option<f64>,
    pub(super) bound: Bound,
    pub(super) unit: &'static str,
}

impl Bar {
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
        let cells = self.closed.iter();
        cells.filter_map(move |(cell_target, cell_connections, outcome)| {
            (*cell_target == target && *cell_connections == connections).then_some(outcome)
        })
    }

    /// What the rounds gave at a percentage of the highest rate.
    pub(super) fn at_load(&self, percent: u32) -> impl Iterator<Item = &Outcome> {
        let cells = self.open.iter();
        cells.filter_map(move |(cell, _, outcome)| (*cell == percent).then_some(outcome))
    }

    /// The median rate.
    pub(super) fn rate(&self, target: Target, connections: u32) -> Option<f64> {
        median(
            self.of(target, connections)
                .map(|outcome| outcome.per_second),
        )
    }

    /// The highest median rate end to end.
    pub(super) fn highest_rate(&self) -> Option<f64> {
        let connections = Target::EndToEnd.connections().iter();
        connections
            .filter_map(|connections| self.rate(Target::EndToEnd, *connections))
            .max_by(f64::total_cmp)
    }

    fn ratio(&self, over: Target, under: Target, connections: u32) -> Option<f64> {
        quotient(self.rate(over, connections), self.rate(under, connections))
    }

    fn p50_ratio_at_one(&self) -> Option<f64> {
        let p50 = |target| median(self.of(target, 1).map(|outcome| outcome.p50_ms));
        quotient(p50(Target::EndToEnd), p50(Target::Ungrouped))
    }

    fn peak_mib(&self, part: &str) -> Option<f64> {
        let outcomes = self.of(Target::Split, 1000);
        outcomes
            .filter_map(|outcome| outcome.memory_mib(part))
            .max_by(f64::total_cmp)
    }

    /// Every bar with what was measured.
    pub(super) fn bars(&self) -> Vec<Bar> {
        let mut bars = self.rate_bars();
        bars.extend(self.latency_bars());
        bars.extend(self.long_bars());
        bars
    }

    fn rate_bars(&self) -> Vec<Bar> {
        use Target::{Accept, Bare, EndToEnd, Naive, Ungrouped};
        let bar = |measure, (over, under), connections, bound| Bar {
            measure,
            value: self.ratio(over, under, connections),
            bound: Bound::AtLeast(bound),
            unit: "",
        };
        vec![
            bar(
                "End to end over the bare server, 1,000 connections",
                (EndToEnd, Bare),
                1000,
                0.60,
            ),
            bar(
                "Accept alone over the bare server, 1,000 connections",
                (Accept, Bare),
                1000,
                0.75,
            ),
            bar(
                "Accept alone over the bare server, 128 connections",
                (Accept, Bare),
                128,
                0.75,
            ),
            bar(
                "End to end over PUBLISH_GROUP_MAX=1, 1,000 connections",
                (EndToEnd, Ungrouped),
                1000,
                2.5,
            ),
            bar(
                "End to end over the naive pipeline, 1,000 connections",
                (EndToEnd, Naive),
                1000,
                50.0,
            ),
        ]
    }

    fn latency_bars(&self) -> Vec<Bar> {
        let half =
            |figure: fn(&Outcome) -> Option<f64>| median(self.at_load(50).filter_map(figure));
        let bar = |measure, value, bound, unit| Bar {
            measure,
            value,
            bound: Bound::AtMost(bound),
            unit,
        };
        vec![
            bar(
                "Median latency at 1 connection over PUBLISH_GROUP_MAX=1",
                self.p50_ratio_at_one(),
                1.1,
                "",
            ),
            bar(
                "p99 until accepted, at half the highest rate",
                half(|it| Some(it.p99_ms)),
                10.0,
                " ms",
            ),
            bar(
                "p99 from received to committed, at half the highest rate",
                half(|it| it.committed_p99_ms),
                100.0,
                " ms",
            ),
            bar(
                "Accept role's peak memory, 1,000 connections",
                self.peak_mib("accept"),
                48.0,
                " MiB",
            ),
            bar(
                "Consume role's peak memory, 1,000 connections",
                self.peak_mib("consume"),
                96.0,
                " MiB",
            ),
        ]
    }

    fn long_bars(&self) -> Vec<Bar> {
        let backlog = self.backlog.as_ref();
        let bar = |measure, value, bound, unit| Bar {
            measure,
            value,
            bound,
            unit,
        };
        vec![
            bar(
                "Draining a backlog, one writer",
                backlog.map(|it| it.per_second),
                Bound::AtLeast(150_000.0),
                "/s",
            ),
            bar(
                "Consumer's peak memory at the end of the backlog over that after a quarter",
                backlog.map(|it| it.end_memory_mib / it.quarter_memory_mib),
                Bound::AtMost(1.1),
                "",
            ),
            bar(
                "Many tickets in a row: the last tenth's rate over the first's",
                self.in_a_row.as_ref().map(|it| {
                    let [first, .., last] = it.tenths;
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
pub(super) mod tests {
    use super::*;
    use crate::bench::backlog::Tenth;
    use crate::bench::outcome::PartCost;

    pub(in crate::bench) fn outcome(per_second: f64, p50_ms: f64) -> Outcome {
        Outcome {
            per_second,
            accepted: 10,
            refused: 0,
            unsent: 0,
            stored: Some((9, 1)),
            lost: 0,
            twice: 0,
            p50_ms,
            p99_ms: p50_ms * 4.0,
            p999_ms: p50_ms * 9.0,
            committed_p99_ms: Some(100.0),
            costs: vec![PartCost {
                name: "serve".to_owned(),
                cpu_seconds_per_million: Some(8.5),
                memory_mib: 40.0,
            }],
        }
    }

    /// A machine that slows down by a quarter, under a server that does not.
    fn in_a_row() -> InARow {
        let tenth = |per_second, generator_us| Tenth {
            per_second,
            generator_us,
        };
        let mut tenths = [tenth(80_000.0, 6.0); 10];
        tenths[9] = tenth(60_000.0, 8.0);
        InARow {
            tickets: 1_000_000,
            per_second: 77_000.0,
            tenths,
            outcome: outcome(77_000.0, 3.0),
        }
    }

    pub(in crate::bench) fn results() -> Results {
        let cell = |target, connections, per_second| {
            (target, connections, outcome(per_second, 1e3 / per_second))
        };
        Results {
            machine: vec![("Cores", "2".to_owned())],
            closed: vec![
                cell(Target::Bare, 1000, 100_000.0),
                cell(Target::EndToEnd, 1000, 50_000.0),
                cell(Target::EndToEnd, 1000, 70_000.0),
                cell(Target::EndToEnd, 1000, 90_000.0),
                cell(Target::Naive, 1000, 1_000.0),
                cell(Target::EndToEnd, 1, 1_000.0),
                cell(Target::Ungrouped, 1, 800.0),
            ],
            open: vec![(50, 35_000.0, outcome(35_000.0, 3.0))],
            in_a_row: Some(in_a_row()),
            rounds: 3,
            seconds: Some((4.0, 4.5)),
            ..Results::default()
        }
    }

    #[test]
    fn the_least_and_the_most_time_are_told() {
        let mut results = Results::default();
        for seconds in [4.0, 3.0, 5.0] {
            results.took(seconds);
        }
        assert_eq!(results.seconds, Some((3.0, 5.0)));
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0]), Some(3.0));
        assert_eq!(median([9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 9.0]), Some(3.0));
    }

    #[test]
    fn bars_are_ratios_of_medians_in_one_run() {
        let bars = results().bars();
        let bar = |start: &str| {
            let bar = bars.iter().find(|bar| bar.measure.starts_with(start));
            let bar = bar.unwrap();
            (bar.value, bar.is_met())
        };
        assert_eq!(bar("End to end over the bare"), (Some(0.7), Some(true)));
        assert_eq!(bar("End to end over the naive"), (Some(70.0), Some(true)));
        assert_eq!(bar("Accept alone"), (None, None));
        assert_eq!(bar("Median latency"), (Some(0.8), Some(true)));
        assert_eq!(bar("p99 until accepted"), (Some(12.0), Some(false)));
        assert_eq!(bar("p99 from received"), (Some(100.0), Some(true)));
        assert_eq!(bar("Draining"), (None, None));
        assert_eq!(bar("Many tickets in a row"), (Some(0.75), Some(false)));
    }

    #[test]
    fn the_highest_rate_is_that_of_medians() {
        assert_eq!(results().highest_rate(), Some(70_000.0));
        assert_eq!(Results::default().highest_rate(), None);
    }
}
