//! Every setting, its default and the reason for it.
//!
//! A setting is a flag, else an environment variable, else its default. A wrong
//! value stops the start with a message that names the setting.

mod logs;
mod urls;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use logs::log_filter;
pub use urls::AmqpUrl;
use urls::{Secret, amqp_url, database_url, without_secrets};

/// The largest group that is published, in bytes. It keeps what one prefetch
/// window may hold in the consumer's memory at `PREFETCH` × 256 KiB.
pub const GROUP_BYTES_MAX: usize = 256 * 1024;

/// What all tickets between the HTTP handler and their confirm may hold, in bytes.
pub const INFLIGHT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Where a consumer answers unless it is told where: it has no other listener
/// by which a health check could see that it lives. On loopback, and not the
/// port of `LISTEN`, beside whose process it may run.
pub const CONSUMER_ADMIN_LISTEN: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "ticketd", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How logs are written to standard error.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, global = true)]
    pub log_format: LogFormat,
    /// Which logs are written: a level, and levels of parts, as in info,ticketd::consumer=debug
    #[arg(long, env = "RUST_LOG", default_value = logs::DEFAULT, value_parser = log_filter, global = true)]
    pub rust_log: String,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Take tickets over HTTP and store them: both roles in one process
    Serve(Box<ServeSettings>),
    /// Take tickets over HTTP and publish them to RabbitMQ
    Accept(Box<AcceptSettings>),
    /// Store published tickets in PostgreSQL
    Consume(Box<ConsumeSettings>),
    /// Create the tables, or bring them up to date while others write to them, and exit
    ///
    /// It may be interrupted, and goes on where it was when it is run again.
    Migrate(Box<DatabaseSettings>),
    /// Say of each file whether it is a valid ticket, or why not
    Check {
        /// Files with one ticket each; - is standard input
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Look at tickets that could not be stored, or send them round again
    Dead(Box<DeadSettings>),
    /// Exit 0 if the ticketd of these settings answers that it is alive, else 1
    Healthcheck(ListenSettings),
}

/// The settings of `dead`.
#[derive(Debug, Args)]
pub struct DeadSettings {
    /// What to do with them.
    #[command(subcommand)]
    pub action: DeadAction,
    /// Where they are.
    #[command(flatten)]
    pub database: DatabaseSettings,
    /// Where they go again.
    #[command(flatten)]
    pub broker: BrokerSettings,
}

/// What to do with the rows of `dead_tickets`.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum DeadAction {
    /// List them, oldest first: number, ticket id, time, reason
    List,
    /// Write the body of one to standard output
    Show {
        /// Its number in the list
        number: i64,
    },
    /// Publish one again as a ticket of its own, and take it off the list once that is confirmed
    Replay {
        /// Its number in the list
        number: i64,
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

/// The settings of `serve`.
#[derive(Debug, Args)]
pub struct ServeSettings {
    /// Where tickets go through.
    #[command(flatten)]
    pub broker: BrokerSettings,
    /// Where tickets end.
    #[command(flatten)]
    pub database: DatabaseSettings,
    /// Where requests come in.
    #[command(flatten)]
    pub listen: ListenSettings,
    /// The accepting half.
    #[command(flatten)]
    pub publish: PublishSettings,
    /// The storing half.
    #[command(flatten)]
    pub store: StoreSettings,
    /// How it ends.
    #[command(flatten)]
    pub shutdown: ShutdownSettings,
}

/// The settings of `accept`.
#[derive(Debug, Args)]
pub struct AcceptSettings {
    /// Where tickets go through.
    #[command(flatten)]
    pub broker: BrokerSettings,
    /// PostgreSQL, only to answer GET /ticket/{id}; without it there is no such route
    #[arg(long, env = "DATABASE_URL", value_parser = Secret(database_url), hide_env_values = true)]
    pub database_url: Option<tokio_postgres::Config>,
    /// Where requests come in.
    #[command(flatten)]
    pub listen: ListenSettings,
    /// The accepting half.
    #[command(flatten)]
    pub publish: PublishSettings,
    /// How it ends.
    #[command(flatten)]
    pub shutdown: ShutdownSettings,
}

/// The settings of `consume`.
#[derive(Debug, Args)]
pub struct ConsumeSettings {
    /// Where tickets come from.
    #[command(flatten)]
    pub broker: BrokerSettings,
    /// Where tickets end.
    #[command(flatten)]
    pub database: DatabaseSettings,
    /// Where /metrics, /livez and /readyz answer [default: 127.0.0.1:8081 where that is free]
    #[arg(long, env = "ADMIN_LISTEN", value_name = "ADDRESS:PORT")]
    pub admin_listen: Option<SocketAddr>,
    /// The storing half.
    #[command(flatten)]
    pub store: StoreSettings,
    /// How it ends.
    #[command(flatten)]
    pub shutdown: ShutdownSettings,
}

/// RabbitMQ and the names used there.
#[derive(Debug, Clone, Args)]
pub struct BrokerSettings {
    /// RabbitMQ, as amqp://user:password@host:port/vhost (%2f is the vhost "/"); RABBITMQ_URL is taken where this is not set [default: amqp://127.0.0.1:5672/%2f]
    #[arg(long, env = "AMQP_URL", value_parser = Secret(amqp_url), hide_env_values = true)]
    amqp_url: Option<AmqpUrl>,
    /// The name that other software uses for AMQP_URL
    #[arg(long, env = "RABBITMQ_URL", value_parser = Secret(amqp_url), hide_env_values = true, hide = true)]
    rabbitmq_url: Option<AmqpUrl>,
    /// The queue that tickets wait in
    #[arg(long, env = "QUEUE", default_value = "tickets", value_parser = amqp_name)]
    pub queue: String,
    /// The exchange that tickets are published to [default: the name of the queue]
    #[arg(long, env = "EXCHANGE", value_parser = amqp_name)]
    exchange: Option<String>,
    /// The queue for tickets that the exchange could not route, read like the first [default: {QUEUE}.unrouted]
    #[arg(long, env = "UNROUTED_QUEUE", value_parser = amqp_name)]
    unrouted_queue: Option<String>,
    /// The queue for messages that RabbitMQ itself gave up delivering [default: {QUEUE}.dead]
    #[arg(long, env = "DEAD_QUEUE", value_parser = amqp_name)]
    dead_queue: Option<String>,
    /// Who declares exchanges, queues and bindings: ticketd, at each connection, or somebody else who vouches for them
    // The default fails where rights are missing or something is different, instead of hoping for the best.
    #[arg(long, env = "TOPOLOGY", value_enum, default_value_t = Topology::Declare)]
    pub topology: Topology,
}

/// Who declares exchanges, queues and bindings.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Topology {
    /// ticketd, which refuses what is there already and is different.
    Declare,
    /// Somebody else, who vouches that they lose nothing: ticketd only looks whether they are there.
    Existing,
}

/// PostgreSQL.
#[derive(Debug, Clone, Args)]
pub struct DatabaseSettings {
    /// PostgreSQL, as postgres://user:password@host:port/database
    #[arg(long, env = "DATABASE_URL", value_parser = Secret(database_url), hide_env_values = true)]
    pub database_url: tokio_postgres::Config,
}

/// Where requests come in.
#[derive(Debug, Clone, Args)]
pub struct ListenSettings {
    /// Where POST /ticket answers
    // Loopback: a till's network is opened on purpose, not by default.
    #[arg(
        long,
        env = "LISTEN",
        default_value = "127.0.0.1:8080",
        value_name = "ADDRESS:PORT"
    )]
    pub listen: SocketAddr,
    /// Where /metrics, /livez and /readyz answer besides, so that load cannot blind them; none by default
    #[arg(long, env = "ADMIN_LISTEN", value_name = "ADDRESS:PORT")]
    pub admin_listen: Option<SocketAddr>,
}

/// The accepting half.
#[derive(Debug, Clone, Args)]
pub struct PublishSettings {
    /// Most tickets in one message; 1 turns grouping off
    // Beyond a thousand, the broker's cost per message no longer shows.
    #[arg(long, env = "PUBLISH_GROUP_MAX", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=16384))]
    pub publish_group_max: u32,
    /// Most tickets between arrival and confirm; further ones are answered 503
    // Eight tickets for each of a few thousand connections, and about 10 MB of small tickets.
    #[arg(long, env = "INFLIGHT_MAX", default_value_t = 32768, value_parser = clap::value_parser!(u32).range(1..=4194304))]
    pub inflight_max: u32,
    /// Largest ticket, in bytes; larger ones are answered 413
    // A receipt of 2,000 lines; far below any broker's message limit.
    #[arg(long, env = "BODY_MAX", default_value_t = 65536, value_parser = clap::value_parser!(u32).range(1..=1048576))]
    pub body_max: u32,
    /// Longest wait for RabbitMQ's confirm, then 503
    // Senders give up after 10 to 30 s; a confirm may take a few hundred ms.
    #[arg(long, env = "CONFIRM_TIMEOUT", default_value = "5s", value_parser = duration_at_least::<100>)]
    pub confirm_timeout: Duration,
    /// How long after SIGTERM tickets are still taken, while /readyz says that it is not ready; 0 for not at all
    // A load balancer looks every second or so. With SHUTDOWN_GRACE below the 30 s after which orchestrators kill.
    #[arg(long, env = "LAME_DUCK", default_value = "3s", value_parser = duration_at_least::<0>)]
    pub lame_duck: Duration,
}

/// The storing half.
#[derive(Debug, Clone, Args)]
pub struct StoreSettings {
    /// Most messages (groups of tickets) held unacknowledged
    // Two full batches of small groups; RabbitMQ caps a quorum queue's at 2000.
    #[arg(long, env = "PREFETCH", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=2000))]
    pub prefetch: u16,
    /// Most tickets in one transaction
    #[arg(long, env = "BATCH_ROWS", default_value_t = 8192, value_parser = clap::value_parser!(u32).range(1..=1000000))]
    pub batch_rows: u32,
    /// Most bytes of tickets in one transaction
    // The rows are built in memory once more, so a batch costs about twice this.
    #[arg(long, env = "BATCH_BYTES", default_value_t = 8 * 1024 * 1024, value_parser = clap::value_parser!(u32).range(1024..=268435456))]
    pub batch_bytes: u32,
    /// Longest wait for a batch to fill while tickets keep coming
    // With everything that PREFETCH allows in hand, nothing is waited for.
    // Large transactions cost PostgreSQL a third less for each ticket; and a ticket is to be stored within 100 ms.
    #[arg(long, env = "BATCH_AGE", default_value = "40ms", value_parser = duration_at_least::<0>)]
    pub batch_age: Duration,
    /// Connections that write to PostgreSQL at the same time
    // One connection stores more than one machine accepts.
    #[arg(long, env = "WRITERS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub writers: u16,
    /// Longest that a product's row goes without a write while its name and price stay the same; 0s writes it with every batch that sells it
    // Each write leaves a dead version, which nothing can remove while a dump or a report holds an old snapshot.
    #[arg(long, env = "PRODUCT_REFRESH", default_value = "60s", value_parser = duration_at_least::<0>)]
    pub product_refresh: Duration,
    /// Longest that deliveries are held while PostgreSQL is away; then they go back to the queue until it returns
    // Below RabbitMQ's consumer_timeout of 30 minutes, which closes the channel or, from 4.3 on, the subscription.
    #[arg(long, env = "HOLD_MAX", default_value = "20m", value_parser = duration_at_least::<1000>)]
    pub hold_max: Duration,
}

/// How it ends.
#[derive(Debug, Clone, Args)]
pub struct ShutdownSettings {
    /// Longest wait at the end, after LAME_DUCK, for tickets in flight to be confirmed and stored
    // With LAME_DUCK below the 30 s after which orchestrators kill.
    #[arg(long, env = "SHUTDOWN_GRACE", default_value = "25s", value_parser = duration_at_least::<0>)]
    pub shutdown_grace: Duration,
}

impl Cli {
    /// Reads the command line and the environment. The error says what is
    /// wrong with them, and shows nothing that may be a password.
    pub fn read() -> Result<Self, clap::Error> {
        let arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
        Self::try_parse().map_err(|error| without_secrets(error, &arguments.collect::<Vec<_>>()))
    }
}

impl BrokerSettings {
    /// RabbitMQ's address.
    pub fn url(&self) -> Result<AmqpUrl, String> {
        match self.amqp_url.as_ref().or(self.rabbitmq_url.as_ref()) {
            Some(url) => Ok(url.clone()),
            None => amqp_url("amqp://127.0.0.1:5672/%2f"),
        }
    }

    /// The exchange that tickets are published to.
    pub fn exchange(&self) -> String {
        self.exchange.clone().unwrap_or_else(|| self.queue.clone())
    }

    /// The queue for tickets that the exchange could not route.
    pub fn unrouted_queue(&self) -> String {
        self.unrouted_queue
            .clone()
            .unwrap_or_else(|| format!("{}.unrouted", self.queue))
    }

    /// The queue for messages that RabbitMQ gave up delivering.
    pub fn dead_queue(&self) -> String {
        self.dead_queue
            .clone()
            .unwrap_or_else(|| format!("{}.dead", self.queue))
    }
}

fn amqp_name(text: &str) -> Result<String, String> {
    // 255 bytes is AMQP 0-9-1's short string (section 4.2.5.3); room is left for the derived names.
    match text.len() {
        1..=200 => Ok(text.to_owned()),
        n => Err(format!("a name has 1 to 200 bytes, this one {n}")),
    }
}

fn duration_at_least<const MS: u64>(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{error} (a duration is written like 500ms, 5s or 2m)"))?;
    if duration < Duration::from_millis(MS) || duration > Duration::from_secs(86_400) {
        return Err(format!("it must be between {MS}ms and 1day"));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests;
