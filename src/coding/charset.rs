//! The charset of a text, and its way into UTF-8.

use encoding_rs::WINDOWS_1252;

/// The names of UTF-8, and of what is a part of it.
const UTF_8: [&str; 4] = ["utf-8", "utf8", "us-ascii", "ascii"];

/// The names of windows-1252, and of what is read as it.
const LATIN: [&str; 4] = ["iso-8859-1", "latin1", "windows-1252", "cp1252"];

/// A charset that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Charset {
    /// UTF-8, of which US-ASCII is a part. It is passed on as it is: what is not UTF-8 is found later.
    #[default]
    Utf8,
    /// windows-1252, and iso-8859-1, which is read as browsers read it: as windows-1252. The two differ
    /// in 27 characters, the euro sign among them, for which the latter has control characters.
    Windows1252,
}

impl Charset {
    /// The charset of this name (RFC 2046 section 4.1.2), or of one that is as usual for it.
    pub(crate) fn named(name: &[u8]) -> Option<Self> {
        let is = |known: &&str| name.eq_ignore_ascii_case(known.as_bytes());
        if UTF_8.iter().any(is) {
            Some(Self::Utf8)
        } else if LATIN.iter().any(is) {
            Some(Self::Windows1252)
        } else {
            None
        }
    }

    /// Appends a text in this charset as UTF-8, in which each byte becomes three at most. Each is a
    /// character by itself, so a text may come in any pieces.
    pub(super) fn append(self, text: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Utf8 => out.extend_from_slice(text),
            Self::Windows1252 => {
                // Each byte has a meaning, so that nothing is replaced.
                let (text, _) = WINDOWS_1252.decode_without_bom_handling(text);
                out.extend_from_slice(text.as_bytes());
            }
        }
    }
}
