//! The command line: settings, logs, metrics, run, exit code.

use std::io::{ErrorKind, IsTerminal, Write, stderr, stdout};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use ticketd::config::{CheckArguments, Cli, Command, LogFormat};
use ticketd::{Service, install_metrics};
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tracing::{Level, Metadata, error};
use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
use tracing_subscriber::fmt::layer;
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry;

/// What a shell makes of a program that SIGPIPE ended.
const READER_GONE: u8 = 128 + 13;

fn main() -> ExitCode {
    let cli = Cli::read().unwrap_or_else(|error| error.exit());
    log(cli.log_format, &cli.rust_log);
    run_to_exit(cli.command).unwrap_or_else(|error| {
        error!("{error:#}");
        ExitCode::FAILURE
    })
}

fn run_to_exit(command: Command) -> anyhow::Result<ExitCode> {
    // One thread: requests and the consumer have threads of their own; what is left is short.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut output = Output::default();
    let ended = runtime.block_on(run(command, &mut output));
    // Not waiting for name look-ups, which cannot be interrupted.
    runtime.shutdown_background();
    let ended = ended.and_then(|code| output.flush().map(|()| code).map_err(Into::into));
    if output.is_reader_gone {
        return Ok(ExitCode::from(READER_GONE));
    }
    ended
}

/// Standard output. A reader that has seen enough, as `head` has, is no failure.
#[derive(Default)]
struct Output {
    is_reader_gone: bool,
}

impl Output {
    fn seen<T>(&mut self, written: std::io::Result<T>) -> std::io::Result<T> {
        written.inspect_err(|error| self.is_reader_gone |= error.kind() == ErrorKind::BrokenPipe)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = stdout().write(bytes);
        self.seen(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let flushed = stdout().flush();
        self.seen(flushed)
    }
}

async fn run(command: Command, output: &mut Output) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(settings) => serve(Service::serve(*settings, install_metrics()?)?).await?,
        Command::Accept(settings) => serve(Service::accept(*settings, install_metrics()?)?).await?,
        Command::Consume(settings) => {
            serve(Service::consume(*settings, install_metrics()?)?).await?;
        }
        Command::Migrate(settings) => ticketd::migrate(&settings).await?,
        Command::Partitions(settings) => ticketd::partitions(&settings, output).await?,
        Command::Day(settings) => ticketd::day(&settings, output).await?,
        Command::Silent(settings) => ticketd::silent(&settings, output).await?,
        Command::Export(settings) => ticketd::export(&settings, output).await?,
        Command::Dead(settings) => ticketd::dead(&settings, output).await?,
        Command::Config { settings, of } => {
            ticketd::show_settings(&settings, output)?;
            of.as_deref().map_or(Ok(()), ticketd::check_files)?;
        }
        Command::Credential(settings) => ticketd::credential(&settings.action, output)?,
        Command::Healthcheck(settings) => ticketd::healthcheck(&settings).await?,
        Command::Sample(settings) => {
            let mut signals = Signals::new()?;
            let stop = async move { signals.next().await };
            ticketd::sample(&settings, output, stop).await?;
        }
        Command::Reparse(settings) => ticketd::reparse(&settings, output).await?,
        Command::Import(settings) => {
            let mut signals = Signals::new()?;
            let stop = async move { signals.next().await };
            return Ok(exit_code(ticketd::import(&settings, output, stop).await?));
        }
        Command::Send(settings) => {
            let mut signals = Signals::new()?;
            let stop = async move { signals.next().await };
            return Ok(exit_code(ticketd::send(&settings, output, stop).await?));
        }
        Command::Status(settings) => {
            return Ok(exit_code(ticketd::status(&settings, output).await?));
        }
        Command::Check(CheckArguments { format, files }) => {
            return Ok(exit_code(ticketd::check(&files, format, output)?));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// That of a command that found what was hoped for, or did not.
fn exit_code(found: bool) -> ExitCode {
    if found {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs until SIGTERM or SIGINT, and drains; a second signal ends that. SIGHUP has files read
/// again. Where there are none, and no supervisor that sends it for a reload, it ends the process as
/// it does any other.
async fn serve(service: Service) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let read_again = Arc::new(Notify::new());
    let hangups = hangups(service.heeds_hangups(), read_again.clone())?;
    let first = Arc::new(Notify::new());
    let running = service.run(first.clone().notified_owned(), read_again);
    let second = async {
        signals.next().await;
        first.notify_one();
        signals.next().await;
    };
    tokio::select! {
        ended = running => ended,
        () = second => bail!("second signal: exiting without draining"),
        () = hangups => Ok(()),
    }
}

/// What asks for an end: SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Passes each SIGHUP on, without end.
fn hangups(are_heeded: bool, read_again: Arc<Notify>) -> anyhow::Result<impl Future<Output = ()>> {
    let mut hangup = are_heeded
        .then(|| signal(SignalKind::hangup()))
        .transpose()?;
    Ok(async move {
        while let Some(hangup) = &mut hangup {
            hangup.recv().await;
            read_again.notify_one();
        }
        std::future::pending().await
    })
}

fn log(format: LogFormat, filter: &str) {
    let filter = EnvFilter::builder().parse_lossy(filter);
    // An error of writing the log must not be written there, too: that panics.
    let lines = layer().log_internal_errors(false).with_writer(stderr);
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
