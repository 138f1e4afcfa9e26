//! The figures out of the tables that were written. Pure.

use anyhow::{Context, Result};

use super::cost::{Costs, Replication};

/// What the table of costs calls accept and consume as two processes.
const SPLIT: &str = "ticketd accept + consume";

/// The rows of layouts.md that the model reads.
pub(super) const FOLLOWER: &str = "CPU of each further node of RabbitMQ over that of the only one";
pub(super) const STANDBY: &str = "CPU of a standby over that of a primary alone";
pub(super) const PRIMARY: &str = "CPU of a primary with a standby over that of one alone";
pub(super) const WAL: &str = "WAL, bytes a ticket";
pub(super) const STORED: &str = "Table and indexes, bytes a ticket";

/// The costs of the last bench.
pub(super) fn costs(bench: &str) -> Result<Costs> {
    let part = |name: &str| {
        let costs = cells(bench).find(|cells| cells.starts_with(&[SPLIT, name]));
        costs
            .and_then(|cells| cells.get(2)?.parse().ok())
            .with_context(|| format!("no cost of {name} with {SPLIT}"))
    };
    Ok(Costs {
        accept: part("accept")?,
        consume: part("consume")?,
        rabbitmq: part("rabbitmq")?,
        postgres: part("postgres")?,
        load: part("loadtest")?,
    })
}

/// What the layouts that were measured tell of replicas.
pub(super) fn replication(layouts: &str) -> Result<Replication> {
    let value = |name: &str| {
        let row = cells(layouts).find(|cells| cells.first() == Some(&name));
        row.and_then(|cells| cells.get(1)?.parse().ok())
            .with_context(|| format!("no figure for: {name}"))
    };
    Ok(Replication {
        follower: value(FOLLOWER)?,
        standby: value(STANDBY)?,
        primary: value(PRIMARY)?,
        wal_bytes: value(WAL)?,
        stored_bytes: value(STORED)?,
    })
}

/// The cells of each row of all tables.
fn cells(markdown: &str) -> impl Iterator<Item = Vec<&str>> {
    let rows = markdown.lines().filter_map(|line| line.strip_prefix('|'));
    rows.map(|row| row.split('|').map(str::trim).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bench_is_read() {
        let bench = "| ticketd end to end | serve | 10.1 | 38.9 |\n\
            | ticketd accept + consume | accept | 9.90 | 24.2 |\n\
            | ticketd accept + consume | consume | 0.75 | 18.8 |\n\
            | ticketd accept + consume | postgres | 3.86 | 27.9 |\n\
            | ticketd accept + consume | rabbitmq | 1.85 | 438.5 |\n\
            | ticketd accept + consume | loadtest | 6.60 | 6.0 |\n";
        assert_eq!(costs(bench).unwrap(), crate::model::cost::tests::COSTS);
        let without = bench.replace("| consume |", "| – |");
        let error = costs(&without).unwrap_err().to_string();
        assert!(error.contains("consume"), "{error}");
    }

    #[test]
    fn the_results_that_are_kept_can_be_read() {
        assert!(costs(include_str!("../../results/README.md")).is_ok());
        assert!(replication(include_str!("../../results/layouts.md")).is_ok());
    }
}
