//! The form that a request says its body is in: its coding (RFC 9110 section 8.4) and its charset
//! (section 8.3.2).
//!
//! ```text
//! head -> Coding -> crate::coding
//! ```

mod content_type;

use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};

use crate::coding::{Charset, Coding, ContentCoding};

/// What a body may be in, as Accept-Encoding says it (RFC 9110 section 12.5.3).
pub(super) const ACCEPTED: &str = "gzip, zstd, identity";

/// The header that names a form which is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnknownCoding {
    /// Content-Encoding has another coding, or several.
    Content,
    /// Content-Type has another charset, or several.
    Charset,
}

/// What a head says.
pub(super) fn coding_of(headers: &HeaderMap) -> Result<Coding, UnknownCoding> {
    Ok(Coding {
        content: content_coding(headers)?,
        charset: charset(headers)?,
    })
}

fn content_coding(headers: &HeaderMap) -> Result<Option<ContentCoding>, UnknownCoding> {
    if !headers.contains_key(CONTENT_ENCODING) {
        return Ok(None);
    }
    let lists = headers.get_all(CONTENT_ENCODING).iter();
    let codings = lists.flat_map(|list| list.as_bytes().split(|byte| *byte == b','));
    let mut codings = codings
        .map(<[u8]>::trim_ascii)
        .filter(|coding| !is_identity(coding));
    let named = match (codings.next(), codings.next()) {
        (None, _) => return Ok(None),
        (Some(coding), None) => ContentCoding::named(coding),
        (Some(_), Some(_)) => None,
    };
    named.map(Some).ok_or(UnknownCoding::Content)
}

fn is_identity(coding: &[u8]) -> bool {
    coding.is_empty() || coding.eq_ignore_ascii_case(b"identity")
}

fn charset(headers: &HeaderMap) -> Result<Charset, UnknownCoding> {
    let types = headers.get_all(CONTENT_TYPE);
    // Nearly always there is none, or one without a parameter.
    if !types.iter().any(|value| value.as_bytes().contains(&b';')) {
        return Ok(Charset::default());
    }
    let mut names = types
        .iter()
        .flat_map(|content_type| content_type::charsets(content_type.as_bytes()));
    let Some(first) = names.next() else {
        return Ok(Charset::default());
    };
    let charset = Charset::named(first).ok_or(UnknownCoding::Charset)?;
    let is_alone = names.all(|name| Charset::named(name) == Some(charset));
    is_alone.then_some(charset).ok_or(UnknownCoding::Charset)
}

#[cfg(test)]
mod tests;
