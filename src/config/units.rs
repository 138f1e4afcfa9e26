//! Values that several settings have in common.

use std::time::Duration;

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
