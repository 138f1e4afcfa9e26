//! `ticketd reparse`: which stored tickets are judged again.

use std::time::SystemTime;

use clap::Args;

use super::database::DatabaseSettings;
use super::units::past_time;

/// The settings of `reparse`.
#[derive(Debug, Args)]
pub struct ReparseSettings {
    /// Which invalid tickets.
    #[command(flatten)]
    pub filter: ReparseFilter,
    /// Only those behind the one of this number, which a run that was interrupted has told
    #[arg(long, value_name = "NUMBER")]
    pub after: Option<i64>,
    /// Only count what would change
    #[arg(long)]
    pub dry_run: bool,
    /// Where they are.
    #[command(flatten)]
    pub database: DatabaseSettings,
}

/// Which invalid tickets: those for which all of this is true.
#[derive(Debug, Clone, Default, Args)]
pub struct ReparseFilter {
    /// Only those that were received since then: 2h or 3days ago, or a time such as 2026-11-27T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = past_time)]
    pub since: Option<SystemTime>,
    /// Only those that are invalid for this reason, such as bad_vat
    #[arg(long, value_name = "CODE")]
    pub reason: Option<String>,
}
