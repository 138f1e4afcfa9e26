//! The command line: commands, roles, and which settings each has.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use uuid::Uuid;

use super::auth::AuthSettings;
use super::broker::BrokerSettings;
use super::credentials::{CredentialKind, credential_name};
use super::database::{DatabaseSettings, OptionalDatabaseSettings};
use super::day::{DaySettings, SilentSettings};
use super::dead::DeadSettings;
use super::export::ExportSettings;
use super::http::{HttpSettings, ListenSettings};
use super::import::ImportSettings;
use super::logs::{self, log_filter};
use super::partitions::{PartitionArguments, PartitionSettings};
use super::publish::PublishSettings;
use super::remote::{RemoteServer, RemoteSettings};
use super::reparse::ReparseSettings;
use super::sample::SampleSettings;
use super::send::SendSettings;
use super::shown::ShownSetting;
use super::store::StoreSettings;
use super::tls::ListenTlsSettings;
use super::units::duration_at_least;
use super::version::VERSION_AND_REVISION;
use crate::source::{Source, is_key};

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "ticketd", version = VERSION_AND_REVISION, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How logs are written to standard error.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, global = true)]
    pub log_format: LogFormat,
    /// Which logs are written: a level, and levels of modules, as in info,ticketd::consumer=debug
    #[arg(long, env = "RUST_LOG", default_value = logs::DEFAULT, value_parser = log_filter, global = true)]
    pub rust_log: String,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Accept tickets over HTTP and store them: both roles in one process
    Serve(Box<ServeSettings>),
    /// Accept tickets over HTTP and publish them to RabbitMQ
    Accept(Box<AcceptSettings>),
    /// Store published tickets in PostgreSQL
    Consume(Box<ConsumeSettings>),
    /// Create the tables, or bring them up to date while others write to them, and exit
    ///
    /// It may be interrupted, and resumes when it is run again.
    Migrate(Box<DatabaseSettings>),
    /// List, make, take out and drop partitions of tickets, or make it a partitioned table
    Partitions(Box<PartitionArguments>),
    /// Check for each file whether it is a valid ticket, and say why not
    Check(CheckArguments),
    /// Send files, or what comes into a folder, as tickets, each exactly once
    Send(Box<SendSettings>),
    /// Publish the tickets of files and folders, or of standard input, each exactly once
    ///
    /// It may be interrupted, and run again.
    Import(Box<ImportSettings>),
    /// Say what became of a ticket
    Status(Box<StatusSettings>),
    /// Judge stored invalid tickets again, after the rules were changed
    ///
    /// It may be interrupted, and run again.
    Reparse(Box<ReparseSettings>),
    /// Say what each source sent on a day, and what may be missing or wrong there
    Day(Box<DaySettings>),
    /// List the sources that have sent nothing for longer than they usually do
    Silent(Box<SilentSettings>),
    /// Write the tickets of a time, or their products, as CSV or JSON
    ///
    /// The last line says that all of them were written.
    Export(Box<ExportSettings>),
    /// List dead tickets, which could not be stored, show one, or replay one
    Dead(Box<DeadSettings>),
    /// Make up tickets of shops, for demonstrations and tests
    Sample(Box<SampleSettings>),
    /// Make a sender's credential
    Credential(CredentialArguments),
    /// Show the settings that a command has here, and where each comes from
    Config {
        /// All of them, as they were read.
        #[arg(skip)]
        settings: Vec<ShownSetting>,
        /// The command that has them.
        #[arg(skip)]
        of: Option<Box<Command>>,
    },
    /// Exit 0 if the ticketd with these settings answers that it is alive, else 1
    Healthcheck(ListenSettings),
}

/// What follows `status`.
#[derive(Debug, Args)]
pub struct StatusSettings {
    /// The ticket that is asked about.
    #[command(flatten)]
    pub ticket: TicketName,
    /// How what is known is written
    #[arg(long, value_enum, default_value_t = StatusFormat::Text)]
    pub format: StatusFormat,
    /// Who is asked, where that is set.
    #[command(flatten)]
    pub remote: RemoteSettings,
    /// Else, where it is looked for.
    #[command(flatten)]
    pub database: OptionalDatabaseSettings,
}

/// By what a ticket is known: its id, or its sender's key, of which its id was made.
#[derive(Debug, Args)]
pub struct TicketName {
    /// The id that was answered with 202
    #[arg(required_unless_present = "key", conflicts_with = "key")]
    pub id: Option<Uuid>,
    /// The key that it was sent with: Idempotency-Key, or webhook-id
    #[arg(long, value_parser = key)]
    pub key: Option<String>,
    /// The source whose key that is, where there are credentials
    #[arg(long, requires = "key", value_parser = Source::parse)]
    pub source: Option<Source>,
}

fn key(text: &str) -> Result<String, &'static str> {
    let key = is_key(text.as_bytes()).then(|| text.to_owned());
    key.ok_or("a key has 1 to 255 visible ASCII characters")
}

/// The form of what `status` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StatusFormat {
    /// Lines for people.
    Text,
    /// The JSON of `GET /ticket/{id}`, for machines.
    Json,
}

/// What follows `check`.
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// How what is found is written
    #[arg(long, value_enum, default_value_t = CheckFormat::Text)]
    pub format: CheckFormat,
    /// Files with one ticket each; - is standard input
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
}

/// The form of what `check` finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CheckFormat {
    /// A line for each file, and below it a compiler's message for people.
    Text,
    /// A JSON object a line, for machines.
    Json,
}

/// What follows `credential`.
#[derive(Debug, Args)]
pub struct CredentialArguments {
    /// What to do.
    #[command(subcommand)]
    pub action: CredentialAction,
}

/// What to do with credentials.
#[derive(Debug, Clone, Subcommand)]
pub enum CredentialAction {
    /// Write a new secret, which is kept nowhere, and below it the line for CREDENTIALS_FILE
    New {
        /// The source: 1 to 64 characters of a-z, 0-9, ., _ and -
        #[arg(value_parser = credential_name)]
        name: Source,
        /// How the sender proves who it is: bearer, webhook, or operator for one who sends nothing
        #[arg(long, default_value_t = CredentialKind::Bearer)]
        kind: CredentialKind,
    },
}

/// How logs are written.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object a line, for machines.
    Json,
}

/// The settings that both roles have.
#[derive(Debug, Args)]
pub struct CommonSettings {
    /// RabbitMQ, between the roles.
    #[command(flatten)]
    pub broker: BrokerSettings,
    /// Shutdown.
    #[command(flatten)]
    pub shutdown: ShutdownSettings,
}

/// The settings of accepting tickets, wherever that is done.
#[derive(Debug, Args)]
pub struct AcceptRole {
    /// Listeners, and what they accept.
    #[command(flatten)]
    pub http: HttpSettings,
    /// Senders.
    #[command(flatten)]
    pub auth: AuthSettings,
    /// Publishing.
    #[command(flatten)]
    pub publish: PublishSettings,
}

/// The settings of storing tickets, wherever that is done.
#[derive(Debug, Args)]
pub struct ConsumeRole {
    /// PostgreSQL, where tickets are stored.
    #[command(flatten)]
    pub database: DatabaseSettings,
    /// Storing.
    #[command(flatten)]
    pub store: StoreSettings,
    /// Partitions.
    #[command(flatten)]
    pub partitions: PartitionSettings,
}

/// The settings of `serve`.
#[derive(Debug, Args)]
pub struct ServeSettings {
    /// What both roles have.
    #[command(flatten)]
    pub common: CommonSettings,
    /// Accepting.
    #[command(flatten)]
    pub accept: AcceptRole,
    /// Storing.
    #[command(flatten)]
    pub consume: ConsumeRole,
}

/// The settings of `accept`.
#[derive(Debug, Args)]
pub struct AcceptSettings {
    /// What both roles have.
    #[command(flatten)]
    pub common: CommonSettings,
    /// PostgreSQL, where states of tickets are looked up.
    #[command(flatten)]
    pub database: OptionalDatabaseSettings,
    /// Accepting.
    #[command(flatten)]
    pub accept: AcceptRole,
}

/// The settings of `consume`.
#[derive(Debug, Args)]
pub struct ConsumeSettings {
    /// What both roles have.
    #[command(flatten)]
    pub common: CommonSettings,
    /// Where /metrics, /livez, /readyz and /version answer [default: 127.0.0.1:8081 where that is free]
    #[arg(
        long,
        env = "ADMIN_LISTEN",
        value_name = "ADDRESS:PORT",
        help_heading = "Listeners"
    )]
    pub admin_listen: Option<SocketAddr>,
    /// Its TLS.
    #[command(flatten)]
    pub tls: ListenTlsSettings,
    /// Storing.
    #[command(flatten)]
    pub consume: ConsumeRole,
}

/// Shutdown.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Shutdown")]
pub struct ShutdownSettings {
    /// Maximum time, after LAME_DUCK, to drain: for tickets in flight to be confirmed and stored
    // With LAME_DUCK below the 30 s after which orchestrators kill.
    #[arg(long, env = "SHUTDOWN_GRACE", default_value = "25s", value_parser = duration_at_least::<0>)]
    pub shutdown_grace: Duration,
}

impl Cli {
    /// Checks what is wrong only together.
    pub(super) fn checked(self) -> Result<Self, clap::Error> {
        let (broker, database) = match &self.command {
            Command::Serve(settings) => {
                let database = settings.consume.database.config().map(drop);
                (settings.common.broker.tls(), database)
            }
            Command::Accept(settings) => {
                let database = settings.database.config().map(drop);
                (settings.common.broker.tls(), database)
            }
            Command::Consume(settings) => {
                let database = settings.consume.database.config().map(drop);
                (settings.common.broker.tls(), database)
            }
            Command::Migrate(settings) => (Ok(None), settings.config().map(drop)),
            Command::Partitions(settings) => (Ok(None), settings.database.config().map(drop)),
            Command::Status(settings) => {
                let server = asked(&settings.remote)?;
                let database = settings.database.config();
                let has_database = database.as_ref().is_ok_and(Option::is_some);
                let database = match server.is_some() || has_database {
                    true => database.map(drop),
                    false => Err("it is not set, nor is TICKETD_URL".into()),
                };
                (Ok(None), database)
            }
            Command::Send(settings) => {
                if asked(&settings.remote)?.is_none() {
                    return Err(invalid("--url <URL>", "TICKETD_URL is not set"));
                }
                return Ok(self);
            }
            Command::Sample(settings) => {
                asked(&settings.remote)?;
                return Ok(self);
            }
            Command::Import(settings) => {
                settings
                    .check()
                    .map_err(|why| invalid("--key <KEY>", &why))?;
                match settings.direct() {
                    Ok(None) => (settings.broker.tls(), Ok(())),
                    database => (Ok(None), database.map(drop)),
                }
            }
            Command::Reparse(settings) => (Ok(None), settings.database.config().map(drop)),
            Command::Day(settings) => (Ok(None), settings.database.config().map(drop)),
            Command::Silent(settings) => (Ok(None), settings.database.config().map(drop)),
            Command::Export(settings) => (Ok(None), settings.database.config().map(drop)),
            Command::Dead(settings) => {
                settings.check().map_err(|why| invalid("--all", &why))?;
                (settings.broker.tls(), settings.database.config().map(drop))
            }
            Command::Check(_)
            | Command::Config { .. }
            | Command::Credential(_)
            | Command::Healthcheck(_) => {
                return Ok(self);
            }
        };
        broker.map_err(|why| invalid("--amqp-url <AMQP_URL>", &why))?;
        database.map_err(|why| invalid("--database-url <DATABASE_URL>", &why))?;
        Ok(self)
    }
}

/// Who is asked over HTTP, if that is set.
fn asked(remote: &RemoteSettings) -> Result<Option<RemoteServer>, clap::Error> {
    remote.server().map_err(|why| invalid("--url <URL>", &why))
}

fn invalid(setting: &str, why: &str) -> clap::Error {
    let message = format!("invalid value for '{setting}': {why}\n");
    clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(&Cli::command())
}
