//! Publishing to RabbitMQ.

use std::time::Duration;

use clap::Args;

use super::units::duration_at_least;

/// The maximum size of a published group, in bytes. It keeps what one prefetch
/// window may hold in the consumer's memory at `PREFETCH` × 256 KiB.
pub const GROUP_BYTES_MAX: usize = 256 * 1024;

/// The maximum size of all tickets between the HTTP handler and their confirm, in bytes.
pub const INFLIGHT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Publishing.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Publishing")]
pub struct PublishSettings {
    /// What a message holds.
    #[command(flatten)]
    pub groups: GroupSettings,
    /// Maximum number of tickets between arrival and confirm; further ones are answered 503
    // Eight tickets for each of a few thousand connections, and about 10 MB of small tickets.
    #[arg(long, env = "INFLIGHT_MAX", default_value_t = 32768, value_parser = clap::value_parser!(u32).range(1..=4194304))]
    pub inflight_max: u32,
    /// Maximum wait for RabbitMQ's confirm, then 503
    // Senders give up after 10 to 30 s; a confirm may take a few hundred ms.
    #[arg(long, env = "CONFIRM_TIMEOUT", default_value = "5s", value_parser = duration_at_least::<100>)]
    pub confirm_timeout: Duration,
}

/// What a message holds.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Publishing")]
pub struct GroupSettings {
    /// Maximum number of tickets in one message; 1 turns grouping off
    // Beyond a thousand, the broker's cost per message no longer shows.
    #[arg(long, env = "PUBLISH_GROUP_MAX", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=16384))]
    pub publish_group_max: u32,
    /// Newest version of the message format that is written: 1 while consumers older than this
    /// release are running, as they can read no other
    // 2, because a message for each ticket that has a source costs most of the rate.
    #[arg(long, env = "WIRE_FORMAT", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub wire_format: u8,
}
