//! `tickets` as a partitioned table.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::database::DatabaseSettings;

const DAY: Duration = Duration::from_secs(86_400);

/// How wide partitions are.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Partitions")]
pub struct PartitionWidth {
    /// Span of time of each partition that is made of tickets, where that is partitioned
    // A few hundred partitions cost little, thousands cost each query: a week is 52 a year.
    #[arg(long, env = "PARTITION_WIDTH", default_value = "7d", value_parser = days::<366>)]
    pub partition_width: Duration,
}

/// What a running process does about partitions.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Partitions")]
pub struct PartitionSettings {
    /// How wide they are.
    #[command(flatten)]
    pub width: PartitionWidth,
    /// Age from which on partitions of tickets are dropped, by the time in the ids of their tickets; never, where it is not set
    #[arg(long, env = "RETENTION", value_parser = days::<36_500>)]
    pub retention: Option<Duration>,
}

/// What follows `partitions`.
#[derive(Debug, Args)]
pub struct PartitionArguments {
    /// What to do.
    #[command(subcommand)]
    pub action: PartitionAction,
    /// How wide those are that are made.
    #[command(flatten)]
    pub width: PartitionWidth,
    /// Where they are.
    #[command(flatten)]
    pub database: DatabaseSettings,
}

/// What to do with partitions.
#[derive(Debug, Subcommand)]
pub enum PartitionAction {
    /// List them, each with its times, rows and bytes
    List,
    /// Make those that are missing until a week from now
    Create,
    /// Take the oldest one out of tickets, as a table of its own
    Detach {
        /// Its name
        name: String,
    },
    /// Drop those of which every ticket is older
    Drop {
        /// Their age, such as 400d
        #[arg(long, value_name = "AGE", value_parser = days::<36_500>)]
        older_than: Duration,
    },
    /// Make tickets a partitioned table, while others write to it
    ///
    /// It may be interrupted, and run again.
    Convert,
}

/// A duration of at least a day and at most so many.
fn days<const MAX: u32>(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{error} (a duration is written like 7d or 400days)"))?;
    if duration < DAY || duration > DAY * MAX {
        return Err(format!("it must be between 1day and {MAX}days"));
    }
    Ok(duration)
}
