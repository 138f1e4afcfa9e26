//! When a ticket was issued, as its file tells.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The first time that is believed: 2000-01-01. A till whose battery is empty starts in 1970 or 1980.
const EARLIEST: Duration = Duration::from_secs(946_684_800);

/// How far ahead of this clock another file server's may be.
const AHEAD_MAX: Duration = Duration::from_secs(60);

/// The time of issue as Ticket-Issued-At has it: when the file was last written. None where that cannot
/// be right, so that the ticket is of the day on which it was received.
pub(super) fn issued_at(modified: SystemTime, now: SystemTime) -> Option<String> {
    let latest = now.checked_add(AHEAD_MAX)?;
    let is_plausible = modified >= UNIX_EPOCH + EARLIEST && modified <= latest;
    is_plausible.then(|| humantime::format_rfc3339_micros(modified).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_can_be_right_is_told() {
        let noon = UNIX_EPOCH + Duration::from_micros(1_795_777_200_000_001);
        let second = Duration::from_secs(1);
        let told = issued_at(noon, noon + second);
        assert_eq!(told.as_deref(), Some("2026-11-27T11:00:00.000001Z"));
        assert!(issued_at(noon + second, noon).is_some());
        for wrong in [
            noon + 2 * AHEAD_MAX,
            UNIX_EPOCH,
            UNIX_EPOCH - second,
            UNIX_EPOCH + EARLIEST - second,
            UNIX_EPOCH + Duration::from_secs(1 << 40),
        ] {
            assert_eq!(issued_at(wrong, noon), None, "{wrong:?}");
        }
    }
}
