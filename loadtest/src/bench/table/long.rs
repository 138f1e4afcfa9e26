//! The long stretches: a backlog drained, and many tickets in a row.

use std::fmt::Write as _;

use super::figure;
use crate::bench::plot::number;
use crate::bench::results::Results;

pub(super) fn section(results: &Results) -> String {
    let mut text = "## Long stretches\n\n".to_owned();
    if let Some(backlog) = &results.backlog {
        let _ = write!(
            text,
            "A backlog of {} tickets, in groups of 128, was drained by one `ticketd consume` with one writer at {} \
             tickets/s, its start included. Its peak memory was {:.1} MiB after a quarter and {:.1} MiB at the end.",
            number(backlog.tickets as f64),
            number(backlog.per_second),
            backlog.quarter_memory_mib,
            backlog.end_memory_mib
        );
        for cost in &backlog.costs {
            let cpu = cost
                .cpu_seconds
                .map(|seconds| seconds * 1e6 / backlog.tickets as f64);
            if let Some(cpu) = cpu.filter(|_| cost.name != "loadtest") {
                let _ = write!(
                    text,
                    " {} used {} CPU s per million.",
                    cost.name,
                    figure(cpu)
                );
            }
        }
        text.push('\n');
    }
    if let Some(row) = &results.in_a_row {
        let _ = writeln!(
            text,
            "\n{} tickets in a row over 1,000 connections: {} stored/s; tenth by tenth {}; peak memory of ticketd {:.1} MiB.",
            number(row.tickets as f64),
            number(row.per_second),
            row.tenths_per_second.map(number).join(", "),
            row.outcome.memory_mib("serve").unwrap_or(0.0)
        );
    } else {
        text.push_str("\nMany tickets in a row were not measured: `make bench IN_A_ROW=10000000` does it, in some minutes more.\n");
    }
    text
}
