//! Thresholds and medians of made-up measurements.

use super::*;
use crate::bench::backlog::Decile;
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
fn soak() -> Soak {
    let decile = |per_second, generator_us| Decile {
        per_second,
        generator_us,
    };
    let mut deciles = [decile(80_000.0, 6.0); 10];
    deciles[9] = decile(60_000.0, 8.0);
    Soak {
        tickets: 1_000_000,
        per_second: 77_000.0,
        deciles,
        outcome: outcome(77_000.0, 3.0),
    }
}

pub(in crate::bench) fn results() -> Results {
    let scenario = |target, connections, per_second| {
        (target, connections, outcome(per_second, 1e3 / per_second))
    };
    Results {
        machine: vec![("Cores", "2".to_owned())],
        closed: vec![
            scenario(Target::Bare, 1000, 100_000.0),
            scenario(Target::EndToEnd, 1000, 50_000.0),
            scenario(Target::EndToEnd, 1000, 70_000.0),
            scenario(Target::EndToEnd, 1000, 90_000.0),
            scenario(Target::Baseline, 1000, 1_000.0),
            scenario(Target::EndToEnd, 1, 1_000.0),
            scenario(Target::Ungrouped, 1, 800.0),
        ],
        open: vec![
            (Target::EndToEnd, 50, 35_000.0, outcome(35_000.0, 3.0)),
            (Target::Bare, 50, 50_000.0, outcome(50_000.0, 1.0)),
        ],
        pairs: vec![
            pair(Target::Bearer, 49_000.0, 50_000.0),
            pair(Target::Bearer, 47_000.0, 50_000.0),
            pair(Target::Bearer, 90_000.0, 90_000.0),
            pair(Target::Signed, 44_000.0, 50_000.0),
        ],
        backlog: Some(Backlog {
            tickets: 1_000_000,
            per_second: 90_000.0,
            ceiling_per_second: 100_000.0,
            quarter_memory_mib: 20.0,
            end_memory_mib: 21.0,
            costs: Vec::new(),
        }),
        soak: Some(soak()),
        rounds: 3,
        seconds: Some((4.0, 4.5)),
        ..Results::default()
    }
}

fn pair(target: Target, with: f64, without: f64) -> Pair {
    Pair {
        target,
        outcome: outcome(with, 1.0),
        plain: outcome(without, 1.0),
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
    let thresholds = results().thresholds();
    let threshold = |start: &str| {
        let threshold = thresholds
            .iter()
            .find(|threshold| threshold.measure.starts_with(start));
        let threshold = threshold.unwrap();
        (threshold.value, threshold.is_met())
    };
    assert_eq!(
        threshold("End to end over the bare"),
        (Some(0.7), Some(true))
    );
    assert_eq!(
        threshold("End to end over the baseline"),
        (Some(70.0), Some(true))
    );
    assert_eq!(threshold("Accept alone"), (None, None));
    // The median of the pairs' ratios, 0.98, 0.94 and 1.
    assert_eq!(
        threshold("End to end with a bearer"),
        (Some(0.98), Some(true))
    );
    assert_eq!(
        threshold("End to end with signatures"),
        (Some(0.88), Some(false))
    );
    assert_eq!(threshold("End to end over HTTPS"), (None, None));
    assert_eq!(threshold("Median latency"), (Some(0.8), Some(true)));
    assert_eq!(threshold("p99 until accepted"), (Some(3.0), Some(true)));
    // 40 ms, and 8,192 rows at 100,000/s.
    assert_eq!(
        threshold("p99 from received"),
        (Some(100.0 / 121.92), Some(true))
    );
    assert_eq!(threshold("Draining"), (Some(0.9), Some(true)));
    assert_eq!(threshold("Soak"), (Some(0.75), Some(false)));
}

#[test]
fn the_highest_rate_is_that_of_medians() {
    let highest = |target| results().highest_rate(target);
    assert_eq!(highest(Target::EndToEnd), Some(70_000.0));
    assert_eq!(highest(Target::Bare), Some(100_000.0));
    assert_eq!(highest(Target::Split), None);
}

#[test]
fn no_bar_hangs_on_the_speed_of_the_machine() {
    let slower = |figure: &mut f64| *figure /= 3.0;
    let mut results = results();
    let before = results.thresholds();
    let closed = results.closed.iter_mut().map(|scenario| &mut scenario.2);
    let open = results.open.iter_mut().map(|scenario| &mut scenario.3);
    let pairs = results.pairs.iter_mut();
    let pairs = pairs.flat_map(|pair| [&mut pair.outcome, &mut pair.plain]);
    for outcome in closed.chain(open).chain(pairs) {
        slower(&mut outcome.per_second);
        outcome.p50_ms *= 3.0;
        outcome.p99_ms *= 3.0;
    }
    if let Some(backlog) = &mut results.backlog {
        slower(&mut backlog.per_second);
        slower(&mut backlog.ceiling_per_second);
    }
    for (before, after) in before.iter().zip(results.thresholds()) {
        let (before, after, measure) = (before.value, after.value, after.measure);
        // BATCH_AGE is a wait that is asked for, and the same on every machine.
        if !measure.contains("BATCH_AGE") && !measure.contains("memory") {
            let same = before
                .zip(after)
                .is_none_or(|(before, after)| (before - after).abs() < 1e-9);
            assert!(same, "{measure}: {before:?} {after:?}");
        }
    }
}

#[test]
fn without_its_ceiling_nothing_is_a_ratio() {
    let mut results = results();
    results.open.retain(|(target, ..)| *target != Target::Bare);
    results.backlog = None;
    let thresholds = results.thresholds();
    for start in ["p99 until accepted", "p99 from received", "Draining"] {
        let threshold = thresholds
            .iter()
            .find(|threshold| threshold.measure.starts_with(start));
        assert_eq!(threshold.unwrap().is_met(), None, "{start}");
    }
}
