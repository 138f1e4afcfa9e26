//! What single tickets notice of many that come beside them: their latency at a quarter of the highest rate, without
//! and with requests of many tickets as fast as these are answered.

use std::cell::Cell;
use std::fs;

use anyhow::Result;

use super::access;
use super::outcome::Outcome;
use super::process::Load;
use super::results::{Results, median, quotient};
use super::scenarios::{Rig, Running};
use super::target::Target;
use super::{LOAD_CONNECTIONS, failed, say};

/// The share of the highest rate at which single tickets fall due.
const RATE_SHARE: f64 = 0.25;

/// How often it is measured.
const TIMES: usize = 5;

/// Connections of single tickets.
const CONNECTIONS: u32 = 64;

/// How much longer many tickets come, on both sides: all single ones are to come beside them.
const LONGER_SECONDS: f64 = 1.0;

/// One server, asked by single tickets alone and then beside many.
pub(super) struct Beside {
    pub(super) alone: Outcome,
    pub(super) beside: Outcome,
    /// Tickets of the many that were accepted a second.
    pub(super) many_per_second: f64,
}

impl Beside {
    /// The latency beside many over that alone.
    pub(super) fn p99_ratio(&self) -> Option<f64> {
        quotient(Some(self.beside.p99_ms), Some(self.alone.p99_ms))
    }
}

/// How often it is measured in a run of so many rounds.
fn times(rounds: usize) -> usize {
    if rounds == 1 { 1 } else { TIMES }
}

/// Its time, in that of other measurements.
pub(super) fn scenarios(rounds: usize) -> usize {
    2 * times(rounds)
}

/// Measures it, at a share of the median rate that the pairs had without anything.
pub(super) async fn measure(rig: &Rig, rounds: usize, seconds: f64, results: &mut Results) {
    let highest = results
        .highest_rate(Target::EndToEnd)
        .or_else(|| median(results.pairs.iter().map(|pair| pair.plain.per_second)));
    let Some(rate) = highest.map(|rate| rate * RATE_SHARE) else {
        return;
    };
    let times = times(rounds);
    for time in 1..=times {
        match once(rig, rate, seconds).await {
            Ok(beside) => {
                say(&format!(
                    "time {time} of {times}: single tickets at {rate:.0}/s: p99 {:.2} ms, beside {:.0}/s of many {:.2} ms",
                    beside.alone.p99_ms, beside.many_per_second, beside.beside.p99_ms
                ));
                results.beside.push(beside);
            }
            Err(error) => failed(results, "single tickets beside many", &error),
        }
    }
}

async fn once(rig: &Rig, rate: f64, seconds: f64) -> Result<Beside> {
    rig.in_place(async |place| {
        let running = rig.start(Target::EndToEnd, place).await?;
        let alone = load(rig, &running, Some(rate), seconds).await?;
        let many = load(rig, &running, None, seconds + 2.0 * LONGER_SECONDS);
        let singles = async {
            tokio::time::sleep(std::time::Duration::from_secs_f64(LONGER_SECONDS)).await;
            load(rig, &running, Some(rate), seconds).await
        };
        let (many, beside) = tokio::try_join!(many, singles)?;
        for server in running.servers {
            server.end().await?;
        }
        Ok(Beside {
            alone,
            beside,
            many_per_second: many.per_second,
        })
    })
    .await
}

/// Single tickets at a rate or, without one, many in each request. Rows are not counted: those of both are in one table.
async fn load(rig: &Rig, running: &Running, rate: Option<f64>, seconds: f64) -> Result<Outcome> {
    let (target, connections) = match rate {
        Some(_) => (Target::EndToEnd, CONNECTIONS),
        None => (
            Target::Bulk,
            Target::Bulk
                .connections()
                .last()
                .copied()
                .unwrap_or(LOAD_CONNECTIONS),
        ),
    };
    let logs = rig.logs.join(target.label().replace([' ', ','], "_"));
    fs::create_dir_all(&logs)?;
    let load = Load {
        sender: access::arguments(target, &running.address, &rig.certificates.ca()),
        connections,
        seconds,
        rate,
        tickets: None,
        database: None,
        parts: Vec::new(),
        pid: &Cell::new(None),
    };
    let outcome = Outcome::of_load(&load.run(&rig.loadtest, &logs).await?)?;
    outcome.check()?;
    Ok(outcome)
}
