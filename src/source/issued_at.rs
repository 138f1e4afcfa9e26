//! When a ticket was issued, as text.

use chrono::DateTime;

/// Why there is no telling when a ticket was issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IssuedAtError {
    /// Its header is there twice.
    Several,
    /// Its header is no time.
    NoTime,
}

impl IssuedAtError {
    /// What its sender is told.
    pub fn detail(self) -> &'static str {
        match self {
            Self::Several => "more than one Ticket-Issued-At",
            Self::NoTime => "Ticket-Issued-At is a time like 2026-11-27T12:00:00+01:00 (RFC 3339)",
        }
    }
}

/// A time of RFC 3339 in µs since the Unix epoch, cut off after the microsecond.
pub fn time_us(text: &str) -> Option<i64> {
    let time = DateTime::parse_from_rfc3339(text).ok()?;
    Some(time.timestamp_micros())
}
