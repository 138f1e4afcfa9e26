//! What a rate of tickets takes: cores, machines, network, disk and stripes, out of what was measured.

mod cost;
mod layouts;
mod plan;
mod sources;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use cost::{Costs, Layout, Replication};
use plan::{Assumptions, Host};

/// What `model` is told on the command line.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Tickets a second to plan for.
    #[arg(long, default_value_t = 100_000.0, value_parser = positive)]
    rate: f64,
    /// Nodes of RabbitMQ.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    brokers: u32,
    /// Standbys of PostgreSQL.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=9))]
    standbys: u32,
    /// Bytes of a ticket.
    #[arg(long, default_value_t = 112.0, value_parser = positive)]
    body: f64,
    /// Days that tickets are kept.
    #[arg(long, default_value_t = 30.0, value_parser = positive)]
    days: f64,
    /// Cores of a machine.
    #[arg(long, default_value_t = 8.0, value_parser = positive)]
    cores: f64,
    /// Share of a core that is used in the planned hour: the rest is for peaks and for a machine that is away.
    #[arg(long, default_value_t = 0.65, value_parser = positive)]
    load: f64,
    /// The most tickets a second that one PostgreSQL primary is planned for: a standby replays by one process.
    #[arg(long, default_value_t = 250_000.0, value_parser = positive)]
    stripe: f64,
    /// Instead of a plan, the highest rate of parts that share cores: `accept+load=1,consume+rabbitmq+postgres=1`.
    #[arg(long)]
    hosts: Option<String>,
    /// Instead of a plan, what layouts.sh measured, in files of this folder: writes layouts.md beside the results.
    #[arg(long)]
    measured: Option<PathBuf>,
    /// Folder with what `make bench` and `make layouts` found.
    #[arg(long, default_value = "loadtest/results")]
    results: PathBuf,
}

/// Prints the model's answer; false where a measured layout is further from it than it may be.
#[expect(clippy::print_stdout, reason = "the answer is the output")]
pub(crate) fn run(options: &Options) -> Result<bool> {
    let bench = read(&options.results.join("README.md"))?;
    let costs = sources::costs(&bench).context("results/README.md: run `make bench`")?;
    if let Some(folder) = &options.measured {
        let measured = layouts::Measured::read(folder)?;
        let compared = layouts::compare(&costs, &measured)?;
        fs::write(options.results.join("layouts.md"), &compared.markdown)?;
        print!("{}", compared.markdown);
        return Ok(compared.is_close);
    }
    let layouts = read(&options.results.join("layouts.md"))?;
    let replication =
        sources::replication(&layouts).context("results/layouts.md: run `make layouts`")?;
    let layout = Layout {
        brokers: options.brokers,
        standbys: options.standbys,
    };
    match &options.hosts {
        Some(hosts) => {
            let hosts = Host::parse_all(hosts).map_err(anyhow::Error::msg)?;
            print!("{}", highest(&costs, &replication, layout, &hosts)?);
        }
        None => {
            let assumptions = options.assumptions();
            let plan = plan::plan(options.rate, layout, &costs, &replication, &assumptions);
            print!("{}", plan.markdown());
        }
    }
    Ok(true)
}

fn highest(
    costs: &Costs,
    replication: &Replication,
    layout: Layout,
    hosts: &[Host],
) -> Result<String> {
    let parts = costs.parts(layout, replication);
    let Some((rate, limit)) = plan::highest_rate(hosts, &parts) else {
        bail!("--hosts names no part that costs anything");
    };
    Ok(format!(
        "{rate:.0} tickets/s at most, by the cores of {limit}\n"
    ))
}

impl Options {
    fn assumptions(&self) -> Assumptions {
        Assumptions {
            body_bytes: self.body,
            days: self.days,
            cores_of_a_machine: self.cores,
            load: self.load,
            stripe_per_second: self.stripe,
        }
    }
}

fn read(path: &std::path::Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_form| "not a number".to_owned())?;
    match number.is_finite() && number > 0.0 {
        true => Ok(number),
        false => Err("not greater than 0".to_owned()),
    }
}
