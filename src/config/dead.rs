//! `ticketd dead`: which dead tickets, and what is done to them.

use std::time::SystemTime;

use clap::{Args, Subcommand, ValueEnum};
use uuid::Uuid;

use super::broker::BrokerSettings;
use super::database::DatabaseSettings;
use super::units::past_time;
use crate::source::Source;

/// The settings of `dead`.
#[derive(Debug, Args)]
pub struct DeadSettings {
    /// What to do with them.
    #[command(subcommand)]
    pub action: DeadAction,
    /// Where they are.
    #[command(flatten)]
    pub database: DatabaseSettings,
    /// Where they are replayed.
    #[command(flatten)]
    pub broker: BrokerSettings,
}

/// What to do with the rows of `dead_tickets`.
#[derive(Debug, Clone, Subcommand)]
pub enum DeadAction {
    /// List them, oldest first: number, ticket id, time, reason
    List {
        /// Which ones.
        #[command(flatten)]
        filter: DeadFilter,
        /// How they are written
        #[arg(long, value_enum, default_value_t = ListFormat::Text)]
        format: ListFormat,
    },
    /// Write the body of one to standard output
    Show {
        /// Its number in the list
        number: i64,
    },
    /// Move what RabbitMQ itself gave up delivering to the list
    ///
    /// It may be interrupted, and run again.
    Collect,
    /// Publish some again, and remove each once that is confirmed
    ///
    /// It may be interrupted, and run again.
    Replay(DeadSelection),
    /// Remove some from the list for good
    Purge(DeadSelection),
}

/// Which dead tickets: those for which all of this is true.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct DeadFilter {
    /// Only those that were accepted under this id
    #[arg(long, value_name = "UUID")]
    pub id: Option<Uuid>,
    /// Only those whose reason has this text in it
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Only those of this source
    #[arg(long, value_name = "NAME", value_parser = Source::parse)]
    pub source: Option<Source>,
    /// Only those that died since then: 2h or 3days ago, or a time such as 2026-11-27T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = past_time)]
    pub since: Option<SystemTime>,
    /// Only those that died before then
    #[arg(long, value_name = "TIME", value_parser = past_time)]
    pub until: Option<SystemTime>,
}

/// Which dead tickets something is done to.
#[derive(Debug, Clone, Args)]
pub struct DeadSelection {
    /// Their numbers in the list
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub numbers: Vec<i64>,
    /// All of them, or all that the following say
    #[arg(long)]
    pub all: bool,
    /// Which of all.
    #[command(flatten)]
    pub filter: DeadFilter,
    /// Only list them, as list does
    #[arg(long)]
    pub dry_run: bool,
}

/// The form of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// A line each, with tabs between.
    Text,
    /// A JSON object a line.
    Json,
}

impl DeadSettings {
    /// Fails where a filter is given to numbers, which it would not count for.
    pub(super) fn check(&self) -> Result<(), String> {
        match &self.action {
            DeadAction::Replay(selection) | DeadAction::Purge(selection)
                if !selection.all && selection.filter != DeadFilter::default() =>
            {
                Err("--id, --reason, --source, --since and --until go with --all".into())
            }
            _ => Ok(()),
        }
    }
}
