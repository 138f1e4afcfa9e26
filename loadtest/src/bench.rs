//! Measures everything side by side on this machine, and writes a table and plots.
//!
//! Each server is measured once a round, at each number of connections, and all of them at one number before the next
//! one, so that what is compared is measured close together; those of the main ratios come twice. The rounds are
//! repeated, every other one in reverse order, so that whatever drifts hits all alike. Then come the latencies at shares
//! of the highest rate that was found, pairs with and without credentials,
//! TLS, open pages and many tickets in a request, and a backlog. Ctrl-C ends it at once, and takes away what it has made.

mod access;
mod backlog;
mod beside;
mod budget;
mod ceiling;
mod held;
mod machine;
mod outcome;
mod pages;
mod pairs;
mod plot;
mod process;
mod results;
mod scenarios;
mod scratch;
mod table;
mod target;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lapin::uri::AMQPUri;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, timeout};

use access::Certificates;
use budget::Budget;
use outcome::Outcome;
use results::Results;
use scenarios::{Job, Rig};
use scratch::Scratch;
use target::Target;

/// Shares of a target's highest rate at which latency is measured, and over how many connections. The bare server is
/// what ticketd is compared with at half of each one's own.
const LOADS: [(Target, u32); 4] = [
    (Target::EndToEnd, 25),
    (Target::EndToEnd, HALF_PERCENT),
    (Target::Bare, HALF_PERCENT),
    (Target::EndToEnd, 75),
];
const HALF_PERCENT: u32 = 50;
const LOAD_CONNECTIONS: u32 = 1000;

/// Below these minutes there is time for one round only.
const MINUTES_FOR_ROUNDS: f64 = 4.0;
const ROUNDS: usize = 3;

/// Tickets of the backlog in a run of ten minutes, and how long a ticket of it takes to publish, drain,
/// count, read and copy.
const BACKLOG_TICKETS: f64 = 2_000_000.0;
const BACKLOG_MINUTES: f64 = 10.0;
const BACKLOG_TICKET_SECONDS: f64 = 30e-6;

/// Maximum duration of a soak; ten million at 80,000/s take two minutes.
const SOAK_SECONDS: f64 = 1800.0;

/// Maximum time for taking away what was made.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(60);

/// What `bench` is told on the command line and by the environment.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The program to measure.
    #[arg(long, default_value = "target/release/ticketd")]
    ticketd: PathBuf,
    /// How long all of it may take, about.
    #[arg(long, default_value_t = 10.0, value_parser = minutes)]
    minutes: f64,
    /// Folder for the table and the plots.
    #[arg(long, default_value = "loadtest/results")]
    out: PathBuf,
    /// Tickets in the backlog [default: 2 million, less when the time is short].
    #[arg(long)]
    backlog: Option<u64>,
    /// Also run a soak test of this many tickets, beyond the time given.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1000..))]
    soak: Option<u64>,
    /// RabbitMQ's address.
    #[arg(long, env = "AMQP_URL", hide_env_values = true)]
    amqp_url: String,
    /// PostgreSQL's address; schemas are made and dropped there.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// Measure only the pairs: what credentials, TLS, open pages and many tickets in a request cost or spare.
    #[arg(long)]
    guarded_only: bool,
    /// The script whose `status` tells the process ids of PostgreSQL and RabbitMQ; certificates.sh is beside it.
    #[arg(long, default_value = "deploy/stack.sh")]
    stack: PathBuf,
}

/// Measures and writes; false when a measurement failed.
#[expect(
    clippy::print_stdout,
    reason = "the verdicts are the output of a bench"
)]
#[tokio::main(worker_threads = 1)]
pub(crate) async fn run(options: &Options) -> Result<bool> {
    let (host, ports) = addresses(options)?;
    let ticketd = fs::canonicalize(&options.ticketd)
        .with_context(|| format!("no program at {}", options.ticketd.display()))?;
    let mut results = Results {
        machine: machine::describe(&ticketd, &options.database_url, &host).await?,
        ..Results::default()
    };
    let prefix = format!("bench_{}", std::process::id());
    let logs = std::env::temp_dir().join(&prefix);
    fs::create_dir_all(&logs)?;
    let rig = Rig::new(
        (ticketd, std::env::current_exe()?),
        options.amqp_url.clone(),
        process::stack_parts(&options.stack, &ports).await,
        (
            Scratch::new(&options.amqp_url, &options.database_url, &prefix),
            Certificates::new(
                options.stack.with_file_name("certificates.sh"),
                logs.join("tls"),
            ),
        ),
        logs.clone(),
    );
    let measured = tokio::select! {
        () = measure(&rig, options, &mut results) => Ok(()),
        interrupted = interrupted() => interrupted,
    };
    let cleaned = timeout(CLEANUP_TIMEOUT, rig.scratch.remove_all()).await;
    fs::remove_dir_all(&logs)?;
    measured?;
    table::write(&results, &options.out)?;
    println!("{}", table::thresholds(&results));
    println!("written to {}", options.out.display());
    cleaned.context("what was made is not all taken away yet")??;
    Ok(results.failures.is_empty())
}

/// The broker's host and port, and the ports of both servers.
fn addresses(options: &Options) -> Result<(String, Vec<u16>)> {
    let broker: AMQPUri = options
        .amqp_url
        .parse()
        .map_err(|error: String| anyhow::anyhow!("AMQP_URL: {error}"))?;
    let database: tokio_postgres::Config = options.database_url.parse().context("DATABASE_URL")?;
    let mut ports = vec![broker.authority.port];
    ports.extend(database.get_ports());
    let host = format!("{}:{}", broker.authority.host, broker.authority.port);
    Ok((host, ports))
}

async fn interrupted() -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    bail!("interrupted: nothing was written")
}

async fn measure(rig: &Rig, options: &Options, results: &mut Results) {
    let seconds = options.minutes * 60.0;
    let backlog = options
        .backlog
        .unwrap_or_else(|| (BACKLOG_TICKETS * (options.minutes / BACKLOG_MINUTES).min(1.0)) as u64);
    let mut budget = Budget::new(seconds - backlog as f64 * BACKLOG_TICKET_SECONDS);
    let rounds = if options.minutes < MINUTES_FOR_ROUNDS {
        1
    } else {
        ROUNDS
    };
    if options.guarded_only {
        let seconds = budget.scenario_seconds(pairs::scenarios(rounds));
        return measure_guarded(rig, rounds, (&budget, seconds), results).await;
    }
    measure_rates(rig, rounds, &mut budget, results).await;
    let seconds = budget.scenario_seconds(LOADS.len() * rounds + pairs::scenarios(rounds));
    measure_latencies(rig, rounds, &budget, seconds, results).await;
    measure_guarded(rig, rounds, (&budget, seconds), results).await;
    if backlog > 0 {
        match backlog::drain(rig, backlog).await {
            Ok(backlog) => {
                let (drained, copied) = (backlog.per_second, backlog.ceiling_per_second);
                say(&format!("backlog: {drained:.0}/s, COPY: {copied:.0}/s"));
                results.backlog = Some(backlog);
            }
            Err(error) => failed(results, "draining a backlog", &error),
        }
    }
    if let Some(tickets) = options.soak {
        measure_soak(rig, tickets, results).await;
    }
}

/// Measurements to come before a round of rates: the latencies of all rounds follow after the last one, and are to get
/// as much time each; then come the pairs.
fn scenarios_left(scenarios: usize, rounds: usize, round: usize) -> usize {
    scenarios * (rounds - round) + LOADS.len() * rounds + pairs::scenarios(rounds)
}

/// Every server at each of its numbers of connections, the smallest number first. Those whose ratios at the largest
/// have a threshold come twice: a machine that others use too swings by a fifth from one measurement to the next.
fn scenarios_of_a_round() -> Vec<(Target, u32)> {
    let numbers = |target: Target| {
        let each = target.connections().iter();
        each.map(move |count| (target, *count))
    };
    let mut scenarios: Vec<_> = Target::ALL.into_iter().flat_map(numbers).collect();
    scenarios.sort_by_key(|(_, connections)| *connections);
    scenarios.extend(Target::TWICE.map(|target| (target, LOAD_CONNECTIONS)));
    scenarios
}

async fn measure_rates(rig: &Rig, rounds: usize, budget: &mut Budget, results: &mut Results) {
    let mut scenarios = scenarios_of_a_round();
    for round in 0..rounds {
        let seconds = budget.scenario_seconds(scenarios_left(scenarios.len(), rounds, round));
        let round_started = Instant::now();
        for (target, connections) in scenarios.iter().copied() {
            let what = format!("{}, {connections} connection(s)", target.label());
            if budget.is_overdrawn() {
                failed(results, &what, &anyhow::anyhow!("out of time"));
                continue;
            }
            let job = Job {
                target,
                connections,
                seconds,
                rate: None,
                tickets: None,
            };
            match rig.measure(&job).await {
                Ok(outcome) => {
                    say_outcome(round, rounds, &what, &outcome);
                    results.closed.push((target, connections, outcome));
                }
                Err(error) => failed(results, &what, &error),
            }
        }
        budget.learn(round_started, scenarios.len(), seconds);
        scenarios.reverse();
        results.rounds = round + 1;
        results.took(seconds);
    }
}

/// What credentials and TLS cost.
async fn measure_guarded(rig: &Rig, rounds: usize, time: (&Budget, f64), results: &mut Results) {
    results.rounds = rounds;
    pairs::measure(rig, rounds, time, results).await;
    beside::measure(rig, rounds, time.1, results).await;
    match held::measure(rig).await {
        Ok(held) => results.held = Some(held),
        Err(error) => failed(results, "the memory of connections", &error),
    }
}

async fn measure_latencies(
    rig: &Rig,
    rounds: usize,
    budget: &Budget,
    seconds: f64,
    results: &mut Results,
) {
    results.took(seconds);
    for round in 0..rounds {
        for (target, percent) in LOADS {
            let Some(highest) = results.highest_rate(target) else {
                continue;
            };
            let what = format!("{} at {percent} % of {highest:.0}/s", target.label());
            if budget.is_overdrawn() {
                failed(results, &what, &anyhow::anyhow!("out of time"));
                continue;
            }
            let rate = highest * f64::from(percent) / 100.0;
            let job = Job {
                target,
                connections: LOAD_CONNECTIONS,
                seconds,
                rate: Some(rate),
                tickets: None,
            };
            match rig.measure(&job).await {
                Ok(outcome) => {
                    say_outcome(round, rounds, &what, &outcome);
                    results.open.push((target, percent, rate, outcome));
                }
                Err(error) => failed(results, &what, &error),
            }
        }
    }
}

async fn measure_soak(rig: &Rig, tickets: u64, results: &mut Results) {
    let job = Job {
        target: Target::EndToEnd,
        connections: LOAD_CONNECTIONS,
        seconds: SOAK_SECONDS,
        rate: None,
        tickets: Some(tickets),
    };
    match backlog::soak(rig, &job, tickets).await {
        Ok(row) => {
            say(&format!(
                "soak of {tickets} tickets: {:.0}/s",
                row.per_second
            ));
            results.soak = Some(row);
        }
        Err(error) => failed(results, "the soak", &error),
    }
}

fn failed(results: &mut Results, what: &str, error: &anyhow::Error) {
    let failure = format!("{what}: {error:#}");
    say(&failure);
    results.failures.push(failure);
}

fn say_outcome(round: usize, rounds: usize, what: &str, outcome: &Outcome) {
    say(&format!(
        "round {} of {rounds}: {what}: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms",
        round + 1,
        outcome.per_second,
        outcome.p50_ms,
        outcome.p99_ms
    ));
}

fn say(line: &str) {
    eprintln!("{line}");
}

fn minutes(text: &str) -> Result<f64> {
    let minutes = text.parse()?;
    ensure!((0.1..=600.0).contains(&minutes), "{text} is out of range");
    Ok(minutes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_round_of_rates_leaves_time_for_what_follows() {
        assert_eq!(scenarios_left(20, 3, 0), 60 + 12 + 40);
        assert_eq!(scenarios_left(20, 3, 2), 20 + 12 + 40);
    }

    #[test]
    fn all_are_measured_at_one_number_of_connections_before_the_next() {
        let scenarios = scenarios_of_a_round();
        assert!(scenarios.is_sorted_by_key(|(_, connections)| *connections));
        let all: usize = Target::ALL.iter().map(|it| it.connections().len()).sum();
        assert_eq!(scenarios.len(), all + Target::TWICE.len());
        for target in Target::TWICE {
            let same = scenarios
                .iter()
                .filter(|scenario| **scenario == (target, LOAD_CONNECTIONS));
            assert_eq!(same.count(), 2, "{}", target.label());
        }
    }

    #[test]
    fn every_threshold_has_its_scenarios() {
        for connections in [128, 1000] {
            assert!(Target::Bare.connections().contains(&connections));
            assert!(Target::Accept.connections().contains(&connections));
        }
        for target in Target::ALL {
            assert!(target.connections().contains(&LOAD_CONNECTIONS));
        }
        for target in [
            Target::Bearer,
            Target::Signed,
            Target::Https,
            Target::Watched,
            Target::Bulk,
        ] {
            assert!(Target::GUARDED.contains(&target));
        }
        for target in [Target::EndToEnd, Target::Bare] {
            assert!(LOADS.contains(&(target, HALF_PERCENT)));
        }
    }
}
