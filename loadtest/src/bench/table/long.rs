//! The long stretches: a backlog drained, and a soak.

use super::figure;
use crate::bench::backlog::{Backlog, Decile, Soak};
use crate::bench::ceiling::BATCH_ROWS;
use crate::bench::plot::number;
use crate::bench::results::{Results, quotient};
use crate::proc::Cost;

const NO_SOAK: &str = "No soak was run: `make bench SOAK=10000000` does it, in some \
    minutes more.\n";

pub(super) fn section(results: &Results) -> String {
    let mut paragraphs = vec!["## Long stretches\n".to_owned()];
    paragraphs.extend(results.backlog.as_ref().map(backlog));
    let soak = results.soak.as_ref().map(soak);
    paragraphs.push(soak.unwrap_or_else(|| NO_SOAK.to_owned()));
    paragraphs.join("\n")
}

fn backlog(backlog: &Backlog) -> String {
    let costs = backlog
        .costs
        .iter()
        .filter(|cost| cost.name != "loadtest")
        .filter_map(|cost| cost_of(cost, backlog.tickets));
    format!(
        "A backlog of {} tickets, in groups of 128, was drained by one `ticketd consume` with one writer at {} \
         tickets/s, its start included. Its peak memory was {:.1} MiB after a quarter and {:.1} MiB at the end.{} \
         PostgreSQL's own COPY of the same rows, right after, made {} rows/s: ready-made binary data over one \
         connection, into a table with the same indexes, in transactions of {} rows that wait for the disk, and nothing \
         else.\n",
        number(backlog.tickets as f64),
        number(backlog.per_second),
        backlog.quarter_memory_mib,
        backlog.end_memory_mib,
        costs.collect::<String>(),
        number(backlog.ceiling_per_second),
        number(BATCH_ROWS as f64)
    )
}

fn cost_of(cost: &Cost, tickets: u64) -> Option<String> {
    let cpu = figure(cost.cpu_seconds? * 1e6 / tickets as f64);
    Some(format!(" {} used {cpu} CPU s per million.", cost.name))
}

fn soak(row: &Soak) -> String {
    let cells = |of: fn(&Decile) -> String| row.deciles.each_ref().map(of).join(" | ");
    let [first, .., last] = &row.deciles;
    let work = |decile: &Decile| Some(decile.per_second * decile.generator_us);
    let steadiness = quotient(work(last), work(first));
    format!(
        "A soak of {} tickets over 1,000 connections: {} stored/s; peak memory of ticketd {:.1} MiB. By decile:\n\n\
         | decile | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 |\n|---|{}\n\
         | stored/s | {} |\n| load generator, CPU µs per ticket | {} |\n\n\
         The load generator does the same for every ticket, so what one costs it tells how fast the machine itself was \
         meanwhile. With that taken out, as the rate times this cost, the last decile over the first is {}.\n",
        number(row.tickets as f64),
        number(row.per_second),
        row.outcome.memory_mib("serve").unwrap_or(0.0),
        "---:|".repeat(row.deciles.len()),
        cells(|decile| number(decile.per_second)),
        cells(|decile| figure(decile.generator_us)),
        steadiness.map_or_else(|| "–".to_owned(), figure),
    )
}
