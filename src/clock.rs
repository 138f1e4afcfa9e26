//! The wall clock in the unit in which tickets carry it.

use std::time::{SystemTime, UNIX_EPOCH};

/// µs since the Unix epoch; 0 where the machine's clock is before it.
pub(crate) fn now_us() -> i64 {
    unix_us(SystemTime::now()).max(0)
}

/// µs since the Unix epoch, negative before it; a time too far away for that is the last or first that is not.
pub(crate) fn unix_us(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |us| -us),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_before_the_epoch_are_negative() {
        let second = Duration::from_secs(1);
        assert_eq!(unix_us(UNIX_EPOCH + second), 1_000_000);
        assert_eq!(unix_us(UNIX_EPOCH), 0);
        assert_eq!(unix_us(UNIX_EPOCH - second), -1_000_000);
        assert_eq!(
            unix_us(UNIX_EPOCH + Duration::from_secs(u64::MAX >> 2)),
            i64::MAX
        );
    }
}
