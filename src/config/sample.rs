//! `ticketd sample`: which made-up tickets, and what is done with them.

use std::path::PathBuf;

use clap::{Args, ValueEnum, value_parser};

use super::remote::RemoteSettings;

/// The settings of `sample`.
#[derive(Debug, Clone, Args)]
pub struct SampleSettings {
    /// Send them to TICKETD_URL; else they are written to standard output
    // Nothing made up is sent because a variable of the environment is set.
    #[arg(long, requires = "ticketd_url")]
    pub send: bool,
    /// From how many shops
    #[arg(long, value_name = "SHOPS", default_value_t = 20, value_parser = value_parser!(u16).range(1..=1000))]
    pub sources: u16,
    /// Tickets a second [default: 50 with --send, else as fast as they are read]
    #[arg(long, value_name = "TICKETS", value_parser = value_parser!(u16).range(1..=1000))]
    pub rate: Option<u16>,
    /// How many tickets [default: without end]
    #[arg(long, value_name = "TICKETS")]
    pub count: Option<u64>,
    /// The same tickets for the same number, and so the same keys [default: by chance]
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// How they are written
    #[arg(long, value_enum, default_value_t = SampleFormat::Text, conflicts_with = "send")]
    pub format: SampleFormat,
    /// Send each shop's with a token of its own, of this file; its shops count, and --sources does not
    #[arg(long, value_name = "FILE", requires = "send", conflicts_with_all = ["ticketd_token", "ticketd_token_file"])]
    pub tokens: Option<PathBuf>,
    /// Only make credentials for the shops: FILE for CREDENTIALS_FILE, and FILE.tokens for --tokens
    #[arg(long, value_name = "FILE", conflicts_with_all = ["send", "tokens"])]
    pub write_credentials: Option<PathBuf>,
    /// Where they are sent.
    #[command(flatten)]
    pub remote: RemoteSettings,
}

/// The form of tickets on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SampleFormat {
    /// As tills write them, one after the other.
    Text,
    /// A JSON object a line, with key, `issued_at` and ticket.
    Json,
}
