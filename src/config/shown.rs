//! Settings as they are shown to an operator: without secrets.

use clap::ArgMatches;

use super::broker::AmqpUrls;
use super::database::DatabaseUrl;
use super::secret::{MASK, holds_secret};

/// What stands for a setting that has no value.
const NONE: &str = "none";

/// A setting of a command, as it counts.
#[derive(Debug, Clone)]
pub struct ShownSetting {
    /// The environment variable's name.
    pub name: String,
    /// Its value, masked where it is secret; `none` without one.
    pub value: String,
    /// Where that comes from: a flag, the environment, a file, or the default.
    pub origin: String,
}

/// The value of an argument that is set, as far as it may be shown.
pub(super) fn value(argument: &clap::Arg, matches: &ArgMatches) -> Option<String> {
    let id = argument.get_id().as_str();
    if argument.is_hide_env_values_set() {
        return matches.contains_id(id).then(|| masked(id, matches));
    }
    let mut raw = matches.get_raw(id)?;
    let text = raw.next()?.to_string_lossy().into_owned();
    // It stands there by mistake.
    let is_secret = holds_secret(&text);
    Some(if is_secret { MASK.to_owned() } else { text })
}

/// What a setting is by default, as its help says; other settings' names stand there in braces.
pub(super) fn default(argument: &clap::Arg, of: impl Fn(&str) -> Option<String>) -> String {
    let help = argument
        .get_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let text = help
        .rsplit_once("[default: ")
        .and_then(|(_, text)| text.strip_suffix(']'));
    let text = text.unwrap_or(NONE);
    let Some(((before, name), after)) = text
        .split_once('}')
        .and_then(|(start, after)| Some((start.split_once('{')?, after)))
    else {
        return text.to_owned();
    };
    format!("{before}{}{after}", of(name).unwrap_or_default())
}

/// A secret: what of a URL is none, and nothing of anything else.
fn masked(id: &str, matches: &ArgMatches) -> String {
    if let Ok(Some(url)) = matches.try_get_one::<AmqpUrls>(id) {
        return url.masked();
    }
    if let Ok(Some(url)) = matches.try_get_one::<DatabaseUrl>(id) {
        return url.masked();
    }
    MASK.to_owned()
}
