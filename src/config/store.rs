//! Storing in PostgreSQL.

use std::time::Duration;

use clap::Args;

use super::units::duration_at_least;

/// Storing.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Storing")]
pub struct StoreSettings {
    /// Maximum number of messages (groups of tickets) held unacknowledged
    // Two full batches of small groups; RabbitMQ caps a quorum queue's at 2000.
    #[arg(long, env = "PREFETCH", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=2000))]
    pub prefetch: u16,
    /// Maximum number of tickets in one batch, which is one transaction
    #[arg(long, env = "BATCH_ROWS", default_value_t = 8192, value_parser = clap::value_parser!(u32).range(1..=1000000))]
    pub batch_rows: u32,
    /// Maximum size of a batch, in bytes of tickets
    // The rows are built in memory once more, so a batch costs about twice this.
    #[arg(long, env = "BATCH_BYTES", default_value_t = 8 * 1024 * 1024, value_parser = clap::value_parser!(u32).range(1024..=268435456))]
    pub batch_bytes: u32,
    /// Maximum wait for a batch to fill while tickets keep arriving
    // A batch with everything that PREFETCH allows does not wait.
    // Large transactions cost PostgreSQL a third less for each ticket; and a ticket is to be stored within 100 ms.
    #[arg(long, env = "BATCH_AGE", default_value = "40ms", value_parser = duration_at_least::<0>)]
    pub batch_age: Duration,
    /// Connections that write to PostgreSQL at the same time
    // One connection stores more than one machine accepts.
    #[arg(long, env = "WRITERS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub writers: u16,
    /// Maximum time without a write to a product's row while its name and price stay the same; 0s writes it with every batch that sells it
    // Each write leaves a dead version, which nothing can remove while a dump or a report holds an old snapshot.
    #[arg(long, env = "PRODUCT_REFRESH", default_value = "60s", value_parser = duration_at_least::<0>)]
    pub product_refresh: Duration,
    /// Maximum time that deliveries are held while PostgreSQL is unavailable; then they are requeued until it returns
    // Below RabbitMQ's consumer_timeout of 30 minutes, which closes the channel or, from 4.3 on, the subscription.
    #[arg(long, env = "HOLD_MAX", default_value = "20m", value_parser = duration_at_least::<1000>)]
    pub hold_max: Duration,
}
