//! What each plot shows.

use super::{BUSY, CONNECTIONS, LOAD_FIGURES};
use crate::bench::LOADS;
use crate::bench::plot::{self, Series, Titles, number};
use crate::bench::results::{Results, median};
use crate::bench::target::Target;

/// Who uses processor time, in the order of the plot: the target's own processes are one.
const PARTS: [&str; 4] = ["server", "rabbitmq", "postgres", "loadtest"];

pub(super) fn rate(results: &Results) -> String {
    let targets = Target::ALL
        .into_iter()
        .filter(|target| *target != Target::Split);
    let series: Vec<_> = targets
        .map(|target| Series {
            name: target.label().to_owned(),
            values: CONNECTIONS
                .map(|connections| results.rate(target, connections))
                .to_vec(),
        })
        .collect();
    let titles = Titles {
        title: "Rate by connections",
        categories: CONNECTIONS.map(|count| number(f64::from(count))).to_vec(),
        category_axis: "connections",
        value_axis: "tickets per second (accepted, or stored where they are stored)",
    };
    plot::lines(&titles, &series)
}

pub(super) fn latency(results: &Results) -> String {
    let end_to_end = LOADS
        .iter()
        .filter(|(target, _)| *target == Target::EndToEnd);
    let percents: Vec<_> = end_to_end.map(|(_, percent)| *percent).collect();
    let series: Vec<_> = LOAD_FIGURES
        .iter()
        .map(|(name, figure)| Series {
            name: (*name).to_owned(),
            values: percents
                .iter()
                .map(|percent| {
                    let outcomes = results.at_load(Target::EndToEnd, *percent);
                    median(outcomes.filter_map(figure)).filter(|value| value.is_finite())
                })
                .collect(),
        })
        .collect();
    let titles = Titles {
        title: "Latency by load, end to end",
        categories: percents
            .iter()
            .map(|percent| format!("{percent} %"))
            .collect(),
        category_axis: "share of the highest rate end to end",
        value_axis: "milliseconds",
    };
    plot::lines(&titles, &series)
}

pub(super) fn cost(results: &Results) -> String {
    let series: Vec<_> = PARTS
        .iter()
        .map(|part| Series {
            name: (*part).to_owned(),
            values: Target::ALL
                .map(|target| cpu(results, target, part))
                .to_vec(),
        })
        .collect();
    let titles = Titles {
        title: "Cost by part, 1,000 connections",
        categories: Target::ALL.map(|target| target.label().to_owned()).to_vec(),
        category_axis: "",
        value_axis: "CPU seconds per million accepted tickets",
    };
    plot::bars(&titles, &series)
}

/// The median over the rounds of what a part used of processor time for a million tickets, at 1,000 connections.
fn cpu(results: &Results, target: Target, part: &str) -> Option<f64> {
    median(results.of(target, BUSY).filter_map(|outcome| {
        let costs = outcome
            .costs
            .iter()
            .filter(|cost| part_of(&cost.name) == part);
        let cpu: Vec<_> = costs
            .filter_map(|cost| cost.cpu_seconds_per_million)
            .collect();
        (!cpu.is_empty()).then(|| cpu.iter().sum())
    }))
}

fn part_of(name: &str) -> &str {
    if PARTS.contains(&name) {
        name
    } else {
        PARTS[0]
    }
}
