//! Values that several settings have in common.

use std::time::{Duration, SystemTime};

/// A name in AMQP, of 1 to 200 bytes.
pub(super) fn amqp_name(text: &str) -> Result<String, String> {
    // 255 bytes is AMQP 0-9-1's short string (section 4.2.5.3); room is left for the derived names.
    match text.len() {
        1..=200 => Ok(text.to_owned()),
        n => Err(format!("a name has 1 to 200 bytes, this one {n}")),
    }
}

/// A duration of at least `MS` milliseconds and at most a day.
pub(super) fn duration_at_least<const MS: u64>(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{error} (a duration is written like 500ms, 5s or 2m)"))?;
    if duration < Duration::from_millis(MS) || duration > Duration::from_secs(86_400) {
        return Err(format!("it must be between {MS}ms and 1day"));
    }
    Ok(duration)
}

/// Reads a time, or how long ago it is.
pub(super) fn past_time(text: &str) -> Result<SystemTime, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        let ago = ago.min(Duration::from_secs(100 * 365 * 86_400));
        return SystemTime::now()
            .checked_sub(ago)
            .ok_or_else(|| "it is too long ago".into());
    }
    humantime::parse_rfc3339_weak(text).map_err(|_form| {
        "a time is written like 2026-11-27T12:00:00Z, or how long ago it is like 2h".into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_past_time_is_one_or_how_long_ago() {
        let noon = humantime::parse_rfc3339("2026-11-27T12:00:00Z").expect("a time");
        assert_eq!(past_time("2026-11-27T12:00:00Z"), Ok(noon));
        assert_eq!(past_time("2026-11-27 12:00:00"), Ok(noon));
        let ago = past_time("2h").expect("a time").elapsed().expect("past");
        assert!((7200..7300).contains(&ago.as_secs()), "{ago:?}");
        for wrong in ["", "yesterday", "2026-13-01T00:00:00Z", "2 parsecs"] {
            assert!(past_time(wrong).is_err(), "{wrong}");
        }
    }
}
