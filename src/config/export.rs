//! `ticketd export`: which tickets, and how they are written.

use std::path::PathBuf;

use chrono::{DateTime, Datelike, SecondsFormat};
use clap::{Args, ValueEnum};

use super::database::DatabaseSettings;
use super::day::{BusinessZone, date};
use crate::source::Source;

/// The settings of `export`.
#[derive(Debug, Args)]
pub struct ExportSettings {
    /// When they were received.
    #[command(flatten)]
    pub span: ExportSpan,
    /// Only the tickets of this source
    #[arg(long, value_name = "NAME", value_parser = Source::parse)]
    pub source: Option<Source>,
    /// Write the products of valid tickets, a row each, instead of tickets
    #[arg(long)]
    pub lines: bool,
    /// How rows are written
    #[arg(long, value_enum, default_value_t = ExportFormat::Csv)]
    pub format: ExportFormat,
    /// Where to, instead of standard output: FILE.partial, which is renamed once it is whole
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Where the tickets are.
    #[command(flatten)]
    pub database: DatabaseSettings,
}

/// A time from a moment on, and up to another, which is not of it.
#[derive(Debug, Clone, Args)]
pub struct ExportSpan {
    /// Tickets received from then on: a day such as 2026-11-27, whose midnight that is in
    /// BUSINESS_TZ, or a time such as 2026-11-27T12:00:00+01:00
    #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
    pub from: Moment,
    /// Tickets received before then, in the same form: of a day, before it began
    #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
    pub to: Moment,
    /// Which midnight.
    #[command(flatten)]
    pub zone: BusinessZone,
}

/// A moment, as far as it is known without the time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moment {
    /// The beginning of this day.
    Midnight(String),
    /// This time, in RFC 3339 and UTC.
    At(String),
}

/// The form of what `export` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// RFC 4180 with a heading and plain line ends; the last line is a comment, `# complete: 3 rows`.
    Csv,
    /// A JSON object a line; the last one is `{"complete":true,"rows":3}`.
    Jsonl,
}

impl Moment {
    /// Reads a day, or a time with its offset (RFC 3339), to the microsecond.
    fn parse(text: &str) -> Result<Self, String> {
        if let Ok(day) = date(text) {
            return Ok(Self::Midnight(day));
        }
        match DateTime::parse_from_rfc3339(text).map(|moment| moment.to_utc()) {
            // The range in which PostgreSQL reads what is written here.
            Ok(moment) if (1..=9999).contains(&moment.year()) => Ok(Self::At(
                moment.to_rfc3339_opts(SecondsFormat::Micros, true),
            )),
            _ => {
                Err("it is a day like 2026-11-27, or a time like 2026-11-27T12:00:00+01:00".into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_day_or_a_time_with_its_offset() {
        let day = Moment::Midnight("2026-11-27".into());
        assert_eq!(Moment::parse("2026-11-27"), Ok(day));
        for (text, utc) in [
            ("2026-11-27T12:00:00Z", "2026-11-27T12:00:00.000000Z"),
            ("2026-11-27T00:30:00.5+01:00", "2026-11-26T23:30:00.500000Z"),
        ] {
            assert_eq!(Moment::parse(text), Ok(Moment::At(utc.into())));
        }
        for wrong in [
            "",
            "today",
            "2026-02-29",
            "2026-11-27T12:00:00",
            "2026-11-27T25:00:00Z",
            "0000-01-01T00:00:00Z",
        ] {
            assert!(Moment::parse(wrong).is_err(), "{wrong}");
        }
    }
}
