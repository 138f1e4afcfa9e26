//! `ticketd day` and `ticketd silent`: which day, and what counts as odd there.

use clap::{Args, ValueEnum};

use super::database::DatabaseSettings;
use super::dead::ListFormat;
use crate::source::Source;

/// The settings of `day`.
#[derive(Debug, Args)]
pub struct DaySettings {
    /// The day.
    #[command(flatten)]
    pub day: BusinessDay,
    /// Only the tickets of this source
    #[arg(long, value_name = "NAME", value_parser = Source::parse)]
    pub source: Option<Source>,
    /// The highest rate of VAT there is, in percent: more than that of a total is listed
    #[arg(long, value_name = "PERCENT", default_value = "20", value_parser = percent)]
    pub vat_max: String,
    /// How what is found is written
    #[arg(long, value_enum, default_value_t = DayFormat::Text)]
    pub format: DayFormat,
    /// Where the tickets are.
    #[command(flatten)]
    pub database: DatabaseSettings,
}

/// A day of business.
#[derive(Debug, Clone, Args)]
pub struct BusinessDay {
    /// The day, like 2026-11-27
    #[arg(value_parser = date)]
    pub date: String,
    /// Which midnight.
    #[command(flatten)]
    pub zone: BusinessZone,
}

/// Where the days of business are.
#[derive(Debug, Clone, Args)]
pub struct BusinessZone {
    /// The time zone whose midnights part the days, by a name that PostgreSQL knows
    // Any other default would be wrong for most, and change with the machine.
    #[arg(
        id = "business_tz",
        long = "business-tz",
        env = "BUSINESS_TZ",
        value_name = "ZONE",
        default_value = "UTC"
    )]
    pub zone: String,
}

/// The form of what `day` finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DayFormat {
    /// A few lines for each source, for people.
    Text,
    /// A JSON object a line for each source, for machines.
    Json,
}

/// The settings of `silent`.
#[derive(Debug, Args)]
pub struct SilentSettings {
    /// How they are written
    #[arg(long, value_enum, default_value_t = ListFormat::Text)]
    pub format: ListFormat,
    /// Where the tickets are.
    #[command(flatten)]
    pub database: DatabaseSettings,
}

/// Reads a day of the calendar.
pub(super) fn date(text: &str) -> Result<String, String> {
    let midnight = humantime::parse_rfc3339_weak(&format!("{text} 00:00:00"));
    match midnight {
        Ok(_) if text.len() == 10 => Ok(text.to_owned()),
        _ => Err("a day of the calendar is written like 2026-11-27".into()),
    }
}

/// Reads a rate of 0 to 100, which stays as exact as it is written.
fn percent(text: &str) -> Result<String, String> {
    let is_plain = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.'));
    match text.parse::<f64>() {
        Ok(rate) if is_plain && text.len() <= 20 && rate <= 100.0 => Ok(text.to_owned()),
        _ => Err("it must be between 0 and 100, such as 20 or 25.5".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_one_of_the_calendar() {
        assert_eq!(date("2024-02-29"), Ok("2024-02-29".into()));
        for wrong in [
            "",
            "2026-02-29",
            "2026-13-01",
            "2026-1-1",
            "27.11.2026",
            "today",
        ] {
            assert!(date(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rate_is_a_plain_number_up_to_100() {
        for right in ["0", "20", "25.5", "100"] {
            assert_eq!(percent(right), Ok(right.into()));
        }
        for wrong in ["", "-1", "100.01", "1e1", "20%", "NaN", "inf", "."] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
    }
}
