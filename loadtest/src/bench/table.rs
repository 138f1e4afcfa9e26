//! The results as Markdown, and the plots beside it.

mod long;
mod pairs;
mod plots;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::LOADS;
use super::outcome::Outcome;
use super::plot::number;
use super::process::WARMUP_SHARE;
use super::results::{Bound, Results, Threshold, median};
use super::target::Target;

/// Connections at which costs and latencies are told.
const BUSY: u32 = 1000;

/// The columns of the table of rates.
const CONNECTIONS: [u32; 5] = [1, 64, 128, 256, 1000];

/// Writes README.md and the plots into a folder.
pub(super) fn write(results: &Results, folder: &Path) -> Result<()> {
    let files = [
        ("README.md", markdown(results)),
        ("rate.svg", plots::rate(results)),
        ("latency.svg", plots::latency(results)),
        ("cost.svg", plots::cost(results)),
    ];
    fs::create_dir_all(folder)?;
    for (name, text) in files {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The thresholds, one line each, as they stand in the table.
pub(super) fn thresholds(results: &Results) -> String {
    let mut text = "| measure | measured | threshold | |\n|---|---:|---:|---|\n".to_owned();
    for threshold in results.thresholds() {
        let _written = writeln!(text, "{}", threshold_row(&threshold));
    }
    text
}

fn threshold_row(threshold: &Threshold) -> String {
    let (word, bound) = match threshold.bound {
        Bound::AtLeast(bound) => ("at least", bound),
        Bound::AtMost(bound) => ("at most", bound),
    };
    let told = match threshold.is_met() {
        Some(true) => "met",
        Some(false) => "not met",
        None => "not measured",
    };
    let value = threshold.value.map_or_else(
        || "–".to_owned(),
        |value| format!("{}{}", figure(value), threshold.unit),
    );
    format!(
        "| {} | {value} | {word} {}{} | {told} |",
        threshold.measure,
        figure(bound),
        threshold.unit
    )
}

/// Two decimals for what is small, so that ratios can be compared with their threshold.
fn figure(value: f64) -> String {
    if value < 10.0 {
        format!("{value:.2}")
    } else if value < 200.0 {
        format!("{value:.1}")
    } else {
        number(value)
    }
}

fn markdown(results: &Results) -> String {
    let sections = [
        introduction(results),
        format!(
            "## Thresholds\n\n{}\n{}",
            thresholds(results),
            meanings(results)
        ),
        rates(results),
        latencies(results),
        loads(results),
        pairs::section(results),
        long::section(results),
        costs(results),
        checks(results),
    ];
    sections.join("\n")
}

fn introduction(results: &Results) -> String {
    let (least, most) = results.seconds.unwrap_or_default();
    let mut text = format!(
        "# Measured results\n\n\
         Written by `make bench`: everything on one machine, load generator included, one after the other, in {} round(s) \
         of {least:.1} to {most:.1} s for each figure, every other round in reverse order; the bare server, accept alone \
         and end to end at 1,000 connections come twice in each. Every server is started afresh, with its default \
         settings, its own queue and its own schema. Figures are medians over all of these, in brackets the lowest and \
         the highest; a ratio is one of medians. Tickets have two products and are all different. RabbitMQ confirms to \
         disk, PostgreSQL commits to disk.\n\n| | |\n|---|---|\n",
        results.rounds
    );
    for (name, value) in &results.machine {
        let _written = writeln!(text, "| {name} | {} |", value.replace('|', "/"));
    }
    text
}

/// What each ratio is of. None is of milliseconds or of tickets per second alone, which would say more about the machine.
fn meanings(results: &Results) -> String {
    let ceiling = results.committed_ceiling_ms().map_or_else(
        || "not measured".to_owned(),
        |milliseconds| format!("{} ms in this run", figure(milliseconds)),
    );
    format!(
        "A ratio has its ceiling measured in the same run, so that it says more about ticketd than about the machine.\n\n\
         - Over the bare server: an HTTP server that reads the body, answers 202 and does nothing else. Rates are \
         compared at the same number of connections; p99 with each of the two at half of its own highest rate, so that \
         both leave the machine as much to spare.\n\
         - Over PUBLISH_GROUP_MAX=1: ticketd itself with one message for each ticket.\n\
         - With over without: the same process with and without credentials or TLS, in pairs.\n\
         - Over the baseline pipeline: one message, one transaction and one acknowledgement for each ticket.\n\
         - From received to committed: over what a ticket may have to wait for however fast ticketd is, {ceiling}: \
         BATCH_AGE until its own batch is written, a wait that is asked for, and PostgreSQL's COPY of the full batch \
         before it. The p99 itself is only known as the bound of its bucket, so this ratio moves in steps of about 2.\n\
         - Draining a backlog: over PostgreSQL's own COPY of the same rows, which leaves out the broker, reading the \
         tickets, and their products.\n\
         - Memory is compared with a fixed bound, as it does not hang on the machine's speed.\n"
    )
}

fn rates(results: &Results) -> String {
    let mut text = "## Rate by connections\n\n![Rate by connections](rate.svg)\n\n\
        Tickets per second: accepted ones for the bare server and for accept alone; for the others those stored, from \
        the first request to the last row.\n\n| |"
        .to_owned();
    for connections in CONNECTIONS {
        let _written = write!(text, " {} |", number(f64::from(connections)));
    }
    let _written = writeln!(text, "\n|---|{}", "---:|".repeat(CONNECTIONS.len()));
    for target in Target::ALL {
        let _written = write!(text, "| {} |", target.label());
        for connections in CONNECTIONS {
            let rates = results
                .of(target, connections)
                .map(|outcome| outcome.per_second);
            let _written = write!(text, " {} |", spread(rates));
        }
        text.push('\n');
    }
    text
}

/// The median, with the lowest and the highest where there are several.
fn spread(values: impl Iterator<Item = f64>) -> String {
    let values: Vec<_> = values.collect();
    let lowest = values.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = values.iter().copied().fold(0.0, f64::max);
    match median(values.iter().copied()) {
        None => "–".to_owned(),
        Some(median) if values.len() == 1 => number(median),
        Some(median) => format!(
            "{} ({}–{})",
            number(median),
            number(lowest),
            number(highest)
        ),
    }
}

fn milliseconds<'a>(outcomes: impl Iterator<Item = &'a Outcome>, figure: Figure) -> String {
    match median(outcomes.filter_map(figure)) {
        Some(value) if value.is_infinite() => "over the last bucket".to_owned(),
        Some(value) if value < 10.0 => format!("{value:.2}"),
        Some(value) => number(value),
        None => "–".to_owned(),
    }
}

fn latencies(results: &Results) -> String {
    let mut text = "## Latency as fast as answers come\n\n\
        Milliseconds from a request to its 202: p50 / p99 / p99.9.\n\n| | 1 | 64 | 256 | 1,000 |\n|---|---:|---:|---:|---:|\n"
        .to_owned();
    for target in Target::ALL {
        let _written = write!(text, "| {} |", target.label());
        for connections in [1, 64, 256, BUSY] {
            if results.of(target, connections).next().is_none() {
                text.push_str(" – |");
                continue;
            }
            let of = |figure| milliseconds(results.of(target, connections), figure);
            let _written = write!(
                text,
                " {} / {} / {} |",
                of(|outcome| Some(outcome.p50_ms)),
                of(|outcome| Some(outcome.p99_ms)),
                of(|outcome| Some(outcome.p999_ms))
            );
        }
        text.push('\n');
    }
    text
}

/// One of the figures of a measurement.
type Figure = fn(&Outcome) -> Option<f64>;

/// What the plot and the table of latencies by load tell.
const LOAD_FIGURES: [(&str, Figure); 4] = [
    ("accepted, p50", |outcome| Some(outcome.p50_ms)),
    ("accepted, p99", |outcome| Some(outcome.p99_ms)),
    ("accepted, p99.9", |outcome| Some(outcome.p999_ms)),
    ("committed, p99 at most", |outcome| outcome.committed_p99_ms),
];

fn loads(results: &Results) -> String {
    let mut text = format!(
        "## Latency by load\n\n![Latency by load](latency.svg)\n\n\
        Milliseconds, over 1,000 connections, at a share of the target's own highest rate. Requests fall due at \
        a fixed rate and latency counts from then on, whether or not the server was ready for them; the first {:.0} % of \
        the time are left out of the latencies, and the generator looks at its connections twice a millisecond, which is \
        part of them. From received to committed is told by ticketd's own histogram, of the whole time, hence only as \
        the bound of a bucket.\n\n\
        | | load | due/s | accepted/s |",
        WARMUP_SHARE * 100.0
    );
    for (name, _) in LOAD_FIGURES {
        let _written = write!(text, " {name} |");
    }
    let _written = writeln!(
        text,
        "\n|---|---|---:|---:|{}",
        "---:|".repeat(LOAD_FIGURES.len())
    );
    for (target, percent) in LOADS {
        let due = results.due(target, percent);
        let due = due.map_or_else(|| "–".to_owned(), number);
        let outcomes = || results.at_load(target, percent);
        let rates = spread(outcomes().map(|outcome| outcome.per_second));
        let _written = write!(
            text,
            "| {} | {percent} % | {due} | {rates} |",
            target.label()
        );
        for (_, figure) in LOAD_FIGURES {
            let _written = write!(text, " {} |", milliseconds(outcomes(), figure));
        }
        text.push('\n');
    }
    text
}

fn costs(results: &Results) -> String {
    let mut text = "## Cost by part\n\n![Cost by part](cost.svg)\n\n\
        At 1,000 connections: CPU seconds per million accepted tickets, and peak resident memory (of PostgreSQL and \
        RabbitMQ the private memory of all processes, sampled).\n\n\
        | | part | CPU s per million | peak memory, MiB |\n|---|---|---:|---:|\n"
        .to_owned();
    for target in Target::ALL {
        let mut names: Vec<&str> = Vec::new();
        for cost in results.of(target, BUSY).flat_map(|outcome| &outcome.costs) {
            if !names.contains(&cost.name.as_str()) {
                names.push(&cost.name);
            }
        }
        for name in names {
            let costs = || {
                let costs = results.of(target, BUSY).flat_map(|outcome| &outcome.costs);
                costs.filter(|cost| cost.name == name)
            };
            let cpu = median(costs().filter_map(|cost| cost.cpu_seconds_per_million));
            let memory = costs().map(|cost| cost.memory_mib).fold(0.0, f64::max);
            let _written = writeln!(
                text,
                "| {} | {name} | {} | {memory:.1} |",
                target.label(),
                cpu.map_or_else(|| "–".to_owned(), figure)
            );
        }
    }
    text
}

fn checks(results: &Results) -> String {
    let outcomes = || {
        let closed = results.closed.iter().map(|(_, _, outcome)| outcome);
        let pairs = results.pairs.iter();
        closed
            .chain(results.open.iter().map(|(.., outcome)| outcome))
            .chain(pairs.flat_map(|pair| [&pair.outcome, &pair.plain]))
    };
    let storing = || outcomes().filter_map(|outcome| Some((outcome, outcome.stored?)));
    let accepted: u64 = storing().map(|(outcome, _)| outcome.accepted).sum();
    let (stored, dead) = storing().fold((0, 0), |sum, (_, (stored, dead))| {
        (sum.0 + stored, sum.1 + dead)
    });
    let mut text = format!(
        "## Checks\n\nOver {} measurements that store, {} tickets were answered 202, {} were stored and {} dead-lettered; \
         every accepted one was found exactly once. {} requests were refused, and {} of the open loops found no free \
         connection.\n",
        storing().count(),
        number(accepted as f64),
        number(stored as f64),
        number(dead as f64),
        number(outcomes().map(|outcome| outcome.refused).sum::<u64>() as f64),
        number(outcomes().map(|outcome| outcome.unsent).sum::<u64>() as f64)
    );
    for failure in &results.failures {
        let _written = writeln!(text, "\nNot measured: {failure}.");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::results;

    #[test]
    fn a_bar_tells_value_bound_and_whether_it_is_met() {
        let text = thresholds(&results());
        assert!(text.contains(
            "| End to end over the bare server, 1,000 connections | 0.70 | at least 0.60 | met |"
        ));
        assert!(text.contains(
            "| Soak: the last decile's rate over the first's | 0.75 | at least 0.95 | not met |"
        ));
        assert!(text.contains(
            "| Accept alone over the bare server, 128 connections | – | at least 0.75 | not measured |"
        ));
        assert!(!text.contains(" ms |") && !text.contains("/s |"), "{text}");
    }

    #[test]
    fn every_row_of_a_table_has_as_many_cells() {
        let text = markdown(&results());
        let tables = text.split("\n\n").filter(|block| block.starts_with('|'));
        let widths: Vec<Vec<_>> = tables
            .map(|table| {
                table
                    .trim()
                    .lines()
                    .map(|row| row.matches('|').count())
                    .collect()
            })
            .collect();
        assert_eq!(widths.len(), 8, "{text}");
        for widths in widths {
            assert!(widths.iter().all(|width| *width == widths[0]), "{widths:?}");
        }
    }

    #[test]
    fn a_pair_tells_both_rates_and_their_ratio() {
        let text = markdown(&results());
        for row in [
            "| a bearer token | 49,000 (47,000–90,000) | 50,000 (50,000–90,000) | 0.98 (0.94–1.00) | 8.50 | 8.50 | – | – |",
            "| HTTPS, kept alive | – | – | – | – | – | – | – |",
        ] {
            assert!(text.contains(row), "{row}\n{text}");
        }
    }

    #[test]
    fn a_machine_that_slows_down_is_told_from_a_server_that_does() {
        let text = markdown(&results());
        assert!(text.contains("| 80,000 | 60,000 |"), "{text}");
        assert!(text.contains("| 6.00 | 8.00 |"), "{text}");
        assert!(
            text.contains("the last decile over the first is 1.00"),
            "{text}"
        );
    }

    #[test]
    fn too_few_tickets_for_the_clock_ticks_of_the_generator_are_no_ratio() {
        let mut results = results();
        for decile in results.soak.iter_mut().flat_map(|row| &mut row.deciles) {
            decile.generator_us = 0.0;
        }
        let text = markdown(&results);
        assert!(
            text.contains("the last decile over the first is –"),
            "{text}"
        );
    }

    #[test]
    fn a_spread_tells_its_ends() {
        assert_eq!(
            spread([3000.0, 1000.0, 2000.0].into_iter()),
            "2,000 (1,000–3,000)"
        );
        assert_eq!(spread([1000.0].into_iter()), "1,000");
        assert_eq!(spread([].into_iter()), "–");
    }
}
