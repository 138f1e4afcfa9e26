//! What credentials, TLS and open pages cost, and many tickets in a request spare.

use std::fmt::Write as _;

use super::{figure, spread};
use crate::bench::beside::Beside;
use crate::bench::outcome::Outcome;
use crate::bench::pairs::Pair;
use crate::bench::results::{Results, median};
use crate::bench::target::Target;

pub(super) fn section(results: &Results) -> String {
    let seconds = results.pair_seconds.unwrap_or_default();
    let mut text = format!(
        "## Credentials, TLS, open pages, and many tickets in a request\n\n\
         End to end over 1,000 connections that are kept alive, each row in pairs with the same without it, one right \
         after the other, {seconds:.1} s each, every other pair in reverse order. A ratio is the median of the pairs', \
         in brackets the lowest and the highest. The load generator signs before it starts; what it takes to encrypt, it \
         takes from the same cores, so the processor time of ticketd alone is told, too. A signature brings a key, whose \
         ids are in no order, which costs PostgreSQL more; the row of the Idempotency-Key tells how much of it that \
         is. Of the page at / it is what 20 of them ask for, as often as they do, each time on a connection of its \
         own. Requests of 1,000 tickets come over 8 connections, and are told in tickets.\n\n\
         | with | stored/s | without | ratio | ticketd, CPU µs per ticket | without | load generator | without |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|\n"
    );
    for target in Target::GUARDED {
        let _written = writeln!(text, "{}", row(results, target));
    }
    if let Some(held) = &results.held {
        let _written = writeln!(
            text,
            "\nAn open connection that has posted a ticket holds {:.1} KiB of ticketd's memory, and {:.1} KiB with TLS.",
            held.plain / 1024.0,
            held.tls / 1024.0
        );
    }
    text.push_str(&beside(&results.beside));
    text
}

/// What single tickets notice of many; nothing where it was not measured.
fn beside(times: &[Beside]) -> String {
    let of = |figure: fn(&Beside) -> f64| median(times.iter().map(figure));
    let (Some(alone), Some(beside), Some(many)) = (
        of(|time| time.alone.p99_ms),
        of(|time| time.beside.p99_ms),
        of(|time| time.many_per_second),
    ) else {
        return String::new();
    };
    format!(
        "\nSingle tickets at a quarter of the highest rate have a p99 of {alone:.1} ms alone, and of {beside:.1} ms \
         beside requests of 1,000 tickets over 8 connections, of which {} tickets/s are accepted meanwhile: {} of it.\n",
        super::number(many),
        ratios(
            &times
                .iter()
                .filter_map(Beside::p99_ratio)
                .collect::<Vec<_>>()
        )
    )
}

fn row(results: &Results, target: Target) -> String {
    let of = |figure: fn(&Pair) -> Option<f64>| results.pairs_of(target).filter_map(figure);
    let one = |figure| median(of(figure)).map_or_else(|| "–".to_owned(), super::figure);
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} |",
        target.label(),
        spread(of(|pair| Some(pair.outcome.per_second))),
        spread(of(|pair| Some(pair.plain.per_second))),
        ratios(&of(Pair::ratio).collect::<Vec<_>>()),
        one(|pair| cpu(&pair.outcome, "serve")),
        one(|pair| cpu(&pair.plain, "serve")),
        one(|pair| cpu(&pair.outcome, "loadtest")),
        one(|pair| cpu(&pair.plain, "loadtest"))
    )
}

/// What a part used for a ticket, in microseconds.
fn cpu(outcome: &Outcome, part: &str) -> Option<f64> {
    let cost = outcome.costs.iter().find(|cost| cost.name == part)?;
    cost.cpu_seconds_per_million
}

fn ratios(ratios: &[f64]) -> String {
    let lowest = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = ratios.iter().copied().fold(0.0, f64::max);
    match median(ratios.iter().copied()) {
        Some(median) => format!(
            "{} ({}–{})",
            figure(median),
            figure(lowest),
            figure(highest)
        ),
        None => "–".to_owned(),
    }
}
