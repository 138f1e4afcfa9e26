//! The wall clock in the unit in which tickets carry it.

use std::time::{SystemTime, UNIX_EPOCH};

/// µs since the Unix epoch; 0 where the machine's clock is before it.
pub fn now_us() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
