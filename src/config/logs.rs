//! Which logs are shown.

use tracing_subscriber::EnvFilter;

/// What is shown by default. The AMQP client logs each failure that ticketd logs as well.
pub(super) const DEFAULT: &str = "info,lapin=off";

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Reads the filter of logs. An empty one, as a script makes of a variable that is not set, is none.
pub(super) fn log_filter(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(DEFAULT.into());
    }
    EnvFilter::builder()
        .parse(text)
        .map_err(|error| error.to_string())?;
    let mut directives = text.split(',').map(str::trim);
    // A word that is no level is the name of a part to the filter, so that a mistyped level shows nothing.
    if let Some(word) = directives.clone().find(|directive| is_bare_name(directive))
        && !directives.any(|directive| is_level(directive) || directive.starts_with("ticketd"))
    {
        return Err(format!(
            "{word:?} is no level, of which there are {}, and nothing of ticketd would be logged",
            LEVELS.join(", ")
        ));
    }
    Ok(text.into())
}

fn is_bare_name(directive: &str) -> bool {
    !is_level(directive) && !directive.contains("::") && !directive.contains(['=', '['])
}

fn is_level(directive: &str) -> bool {
    let is_named = |level: &&str| level.eq_ignore_ascii_case(directive);
    LEVELS.iter().any(is_named) || matches!(directive.as_bytes(), [b'0'..=b'5'])
}
