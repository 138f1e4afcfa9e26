//! The command line: settings, logs, metrics, run, exit code.

use std::io::{IsTerminal, stderr, stdout};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use ticketd::config::{Cli, Command, LogFormat};
use ticketd::{Parts, Service};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tracing::{Level, Metadata, error};
use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
use tracing_subscriber::fmt::layer;
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry;

fn main() -> ExitCode {
    let cli = Cli::read().unwrap_or_else(|refusal| refusal.exit());
    log(cli.log_format);
    run_to_end(cli.command).unwrap_or_else(|why| {
        error!("{why:#}");
        ExitCode::FAILURE
    })
}

fn run_to_end(command: Command) -> anyhow::Result<ExitCode> {
    // One thread: HTTP has threads of its own, and more of them here would only take turns with those.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(run(command));
    // Not waiting for name look-ups, which cannot be interrupted.
    runtime.shutdown_background();
    ended
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(settings) => serve((*settings).into()).await?,
        Command::Accept(settings) => serve((*settings).into()).await?,
        Command::Consume(settings) => serve((*settings).into()).await?,
        Command::Migrate(settings) => ticketd::migrate(&settings).await?,
        Command::Dead(settings) => ticketd::dead(&settings, &mut stdout()).await?,
        Command::Healthcheck(settings) => ticketd::healthcheck(&settings).await?,
        Command::Check { files } => {
            return Ok(if ticketd::check(&files, &mut stdout())? {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn serve(parts: Parts) -> anyhow::Result<()> {
    let prometheus = ticketd::install_metrics()?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut signalled = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let first = Arc::new(Notify::new());
    let service = Service::bind(parts, prometheus)?.run(first.clone().notified_owned());
    let second = async {
        signalled().await;
        first.notify_one();
        signalled().await;
    };
    tokio::select! {
        ended = service => ended,
        () = second => bail!("a second signal: not waiting for what is under way"),
    }
}

fn log(format: LogFormat) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new("info,lapin=off"));
    let lines = layer().with_writer(stderr);
    let filter = filter.and(filter_fn(shows_no_password));
    let logs = registry();
    match format {
        LogFormat::Text => logs
            .with(lines.with_ansi(stderr().is_terminal()).with_filter(filter))
            .init(),
        LogFormat::Json => logs.with(lines.json().with_filter(filter)).init(),
    }
}

/// The AMQP client traces each frame that it writes, and one of them holds the password.
fn shows_no_password(metadata: &Metadata<'_>) -> bool {
    *metadata.level() < Level::TRACE || !metadata.target().starts_with("lapin")
}
