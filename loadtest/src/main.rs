//! Loads ticketd over HTTP and counts what reached PostgreSQL; also holds the two servers that it is
//! measured against.
//!
//! - `run` sends distinct tickets and compares the answers with the rows;
//! - `bare` is a hyper server that answers 202 and does nothing: the ceiling;
//! - `baseline` is the pipeline that is usually built: one message and one transaction per ticket;
//! - `bench` measures them all side by side and writes a table and plots;
//! - `model` says from these what a rate takes.

mod bare;
mod baseline;
mod bench;
mod client;
mod model;
mod proc;
#[expect(clippy::print_stdout, reason = "the report of a run is its output")]
mod report;
mod requests;
mod response;
mod run;
mod signing;
mod stored;
mod tally;
mod tickets;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send tickets and count what became of them; exit code 1 when one was lost or stored twice.
    Run(run::Options),
    /// Serve 202 to every request and do nothing with it.
    Bare(bare::Options),
    /// Serve POST /ticket with one message and one transaction per ticket.
    Baseline(baseline::Options),
    /// Measure everything side by side on this machine; exit code 1 when a ticket was lost or a part failed.
    Bench(bench::Options),
    /// Say what a rate takes, from what was measured; exit code 1 when a measured layout is far from the model.
    Model(model::Options),
}

fn main() -> ExitCode {
    raise_open_files_limit();
    let outcome = match Arguments::parse().command {
        Command::Run(options) => run::run(&options),
        Command::Bare(options) => bare::run(&options).map(|()| true),
        Command::Baseline(options) => baseline::run(&options).map(|()| true),
        Command::Bench(options) => bench::run(&options),
        Command::Model(options) => model::run(&options),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("loadtest: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// A thousand connections need more descriptors than many systems allow by default. Where the limit cannot be raised,
/// opening them fails with a message that says so.
fn raise_open_files_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _raised = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
}
