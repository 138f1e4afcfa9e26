//! Settings that hold a password, and how a wrong one is rejected: no message says more of one than
//! its form, since a password that is not encoded may stand in any part of it.

use std::ffi::OsStr;

use clap::builder::TypedValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::credentials::{HASH_PREFIX, TOKEN_PREFIX, WEBHOOK_PREFIX};

/// What stands for what is not shown.
pub(super) const MASK: &str = "***";

/// What may stand in a URL as it is; else it is encoded.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A part of a URL.
pub(super) fn encoded(part: &str) -> String {
    utf8_percent_encode(part, ENCODED).to_string()
}

/// A host in a URL: an IPv6 address stands in brackets.
pub(super) fn host(name: &str) -> String {
    if name.contains(':') {
        return format!("[{name}]");
    }
    encoded(name)
}

/// Reads a setting that holds a password; clap's own parsers show a value that they refuse.
#[derive(Clone)]
pub(super) struct Secret<T>(pub(super) fn(&str) -> Result<T, String>);

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Secret<T> {
    type Value = T;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        let text = value.to_str().ok_or_else(|| "it is not UTF-8".to_owned());
        text.and_then(self.0).map_err(|why| {
            let name = argument.map(ToString::to_string).unwrap_or_default();
            let message = format!("invalid value for '{name}': {why}\n");
            clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command)
        })
    }
}

/// Takes out of clap's refusal what may be a password: clap quotes an argument that it did not
/// expect, and what was given to another setting by mistake.
pub(super) fn without_secrets(error: clap::Error, arguments: &[String]) -> clap::Error {
    let quoted = match error.kind() {
        ErrorKind::UnknownArgument => ContextKind::InvalidArg,
        ErrorKind::InvalidSubcommand => ContextKind::InvalidSubcommand,
        _ => ContextKind::InvalidValue,
    };
    let Some(ContextValue::String(text)) = error.get(quoted) else {
        return error;
    };
    // A password with a blank or a quote in it may have been cut into several arguments.
    let is_given = arguments.iter().any(|argument| holds_secret(argument));
    if is_flag(text) || !is_given && !holds_secret(text) {
        return error;
    }
    let what = match (quoted, error.get(ContextKind::InvalidArg)) {
        (ContextKind::InvalidValue, Some(name)) => format!("invalid value for '{name}'"),
        _ => "unexpected argument".into(),
    };
    let message = format!("{what}, which is not shown, as it may hold a password\n");
    clap::Error::raw(error.kind(), message)
}

/// Whether it looks like a URL, like a setting of libpq's, or like a credential.
pub(super) fn holds_secret(text: &str) -> bool {
    let marks = ["://", "password", WEBHOOK_PREFIX, HASH_PREFIX, TOKEN_PREFIX];
    marks.iter().any(|mark| text.contains(mark))
}

fn is_flag(text: &str) -> bool {
    text.strip_prefix("--")
        .is_some_and(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
}
