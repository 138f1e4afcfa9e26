//! Who a ticket came from, when it was made there, and the id that its sender's key gives it.

mod issued_at;
mod key;

pub use issued_at::{IssuedAtError, time_us};
pub use key::{KEY_BYTES_MAX, KeyError, id_of_key, id_of_nth, is_key};

use std::fmt;
use std::sync::Arc;

/// The longest name of a source, in bytes.
pub const SOURCE_BYTES_MAX: usize = 64;

/// The name of whoever sent a ticket: a shop, a till, a service. It has 1 to [`SOURCE_BYTES_MAX`]
/// characters of `[a-z0-9._-]`, so it needs no quoting anywhere, and two names that look alike are
/// the same. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(Arc<str>);

impl Source {
    /// Reads a name; an error if it is none.
    pub fn parse(name: &str) -> Result<Self, SourceError> {
        SourceRef::parse(name.as_bytes()).map(Self::from)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, borrowed.
    pub fn borrowed(&self) -> SourceRef<'_> {
        SourceRef(&self.0)
    }
}

impl From<SourceRef<'_>> for Source {
    fn from(source: SourceRef<'_>) -> Self {
        Self(source.0.into())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name of a source that lies elsewhere, such as in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceRef<'a>(&'a str);

impl<'a> SourceRef<'a> {
    /// Reads a name; an error if it is none.
    pub fn parse(name: &'a [u8]) -> Result<Self, SourceError> {
        // Without an early end, so that several bytes are looked at at once.
        let is_name = (1..=SOURCE_BYTES_MAX).contains(&name.len())
            && name.iter().fold(true, |all, &byte| all & is_allowed(byte));
        match std::str::from_utf8(name) {
            Ok(name) if is_name => Ok(Self(name)),
            _ => Err(SourceError),
        }
    }

    /// The name.
    pub fn as_str(self) -> &'a str {
        self.0
    }
}

fn is_allowed(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-')
}

/// A text is not the name of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceError;

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a source has 1 to {SOURCE_BYTES_MAX} characters of a-z, 0-9, '.', '_' and '-'"
        )
    }
}

impl std::error::Error for SourceError {}

/// What is known of a ticket besides its text: nothing, for most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Origin<'a> {
    /// Who sent it, where senders have to say so.
    pub source: Option<SourceRef<'a>>,
    /// When it was made, as its sender says, in µs since the Unix epoch.
    pub issued_at_us: Option<i64>,
}

impl Origin<'_> {
    /// Whether anything is known.
    pub fn is_known(&self) -> bool {
        self.source.is_some() || self.issued_at_us.is_some()
    }
}

/// An [`Origin`] that is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnedOrigin {
    /// Who sent the ticket.
    pub source: Option<Source>,
    /// When it was made, in µs since the Unix epoch.
    pub issued_at_us: Option<i64>,
}

impl OwnedOrigin {
    /// The same, borrowed.
    pub fn borrowed(&self) -> Origin<'_> {
        Origin {
            source: self.source.as_ref().map(Source::borrowed),
            issued_at_us: self.issued_at_us,
        }
    }
}

impl From<Origin<'_>> for OwnedOrigin {
    fn from(origin: Origin<'_>) -> Self {
        Self {
            source: origin.source.map(Source::from),
            issued_at_us: origin.issued_at_us,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_short_plain_name() {
        let longest = "a".repeat(SOURCE_BYTES_MAX);
        for name in ["a", "0", ".", "shop-12.till_3", &longest] {
            assert_eq!(Source::parse(name).expect("a source").as_str(), name);
        }
        let too_long = "a".repeat(SOURCE_BYTES_MAX + 1);
        for name in [
            "", "Shop", "a b", "a/b", "é", "a\0", "a:b", "a\n", &too_long,
        ] {
            assert_eq!(Source::parse(name), Err(SourceError), "{name:?}");
        }
        assert!(SourceRef::parse(b"\xff").is_err());
    }
}
