//! The form that a text comes in, compressed or in an older charset, and its way into UTF-8. Pure.
//!
//! ```text
//! Decoder { inflate -> charset } -> UTF-8
//! ```

mod charset;
mod decoder;
mod inflate;

pub(crate) use charset::Charset;
pub(crate) use decoder::{BrokenBody, DecodeError, Decoder};
pub(crate) use inflate::ContentCoding;

/// The form of a body; UTF-8 without a coding by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Coding {
    /// What it is compressed by.
    pub content: Option<ContentCoding>,
    /// What its bytes mean once they are inflated.
    pub charset: Charset,
}

impl Coding {
    /// Whether the body is the ticket, as it is.
    pub(crate) fn is_plain(self) -> bool {
        self == Self::default()
    }
}

#[cfg(test)]
mod tests;
