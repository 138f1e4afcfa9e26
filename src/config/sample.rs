//! `ticketd sample`: which made-up tickets, and what is done with them.

use std::path::PathBuf;

use clap::{Args, ValueEnum, value_parser};

/// The settings of `sample`.
#[derive(Debug, Clone, Args)]
pub struct SampleSettings {
    /// From how many shops
    #[arg(long, value_name = "SHOPS", default_value_t = 20, value_parser = value_parser!(u16).range(1..=1000))]
    pub sources: u16,
    /// Tickets a second [default: as fast as they are read]
    #[arg(long, value_name = "TICKETS", value_parser = value_parser!(u16).range(1..=1000))]
    pub rate: Option<u16>,
    /// How many tickets [default: without end]
    #[arg(long, value_name = "TICKETS")]
    pub count: Option<u64>,
    /// The same tickets for the same number, and so the same keys [default: by chance]
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// How they are written
    #[arg(long, value_enum, default_value_t = SampleFormat::Text)]
    pub format: SampleFormat,
    /// Only make credentials for the shops: FILE for CREDENTIALS_FILE, and FILE.tokens for --tokens
    #[arg(long, value_name = "FILE")]
    pub write_credentials: Option<PathBuf>,
}

/// The form of tickets on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SampleFormat {
    /// As tills write them, one after the other.
    Text,
    /// A JSON object a line, with key, `issued_at` and ticket.
    Json,
}
