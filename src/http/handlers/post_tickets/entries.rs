//! The tickets of a body, in whichever form its `Content-Type` says.

use hyper::header::{CONTENT_TYPE, HeaderMap};

use super::halt::Halt;
use super::multipart::MultipartSplitter;
use crate::bulk::{Entry, EntryError, NdjsonSplitter, next_of_text};
use crate::ticket::TicketSplitter;

/// What a body of tickets one behind the other may be said to be; the last two by clients that say
/// nothing of their own.
const TEXT: [&str; 3] = [
    "text/plain",
    "application/octet-stream",
    "application/x-www-form-urlencoded",
];

/// What a body of a ticket a line may be said to be.
const NDJSON: [&str; 3] = [
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
];

/// Takes the pieces of a body, and gives the tickets in it.
pub(super) enum Entries {
    /// Tickets one behind the other.
    Text(TicketSplitter),
    /// A ticket a line, as JSON.
    Ndjson(NdjsonSplitter),
    /// A ticket a part.
    Multipart(MultipartSplitter),
}

impl Entries {
    /// Of a body with this head, with tickets of at most so many bytes.
    pub(super) fn of(headers: &HeaderMap, bytes_max: usize) -> Result<Self, Halt> {
        let Some(content_type) = headers.get(CONTENT_TYPE) else {
            return Ok(Self::Text(TicketSplitter::new(bytes_max)));
        };
        let content_type = content_type.to_str().map_err(|_not_text| Halt::NoType)?;
        let name = content_type.split(';').next().unwrap_or_default().trim();
        let is_one_of = |names: &[&str]| names.iter().any(|known| known.eq_ignore_ascii_case(name));
        if is_one_of(&TEXT) {
            Ok(Self::Text(TicketSplitter::new(bytes_max)))
        } else if is_one_of(&NDJSON) {
            Ok(Self::Ndjson(NdjsonSplitter::new(bytes_max)))
        } else if is_one_of(&["multipart/mixed"]) {
            let boundary = parameter(content_type, "boundary");
            let splitter = boundary.and_then(|name| MultipartSplitter::new(&name, bytes_max));
            splitter.map(Self::Multipart).ok_or(Halt::NoType)
        } else {
            Err(Halt::NoType)
        }
    }

    /// Takes the next piece.
    pub(super) fn push(&mut self, piece: &[u8]) {
        match self {
            Self::Text(splitter) => splitter.push(piece),
            Self::Ndjson(splitter) => splitter.push(piece),
            Self::Multipart(splitter) => splitter.push(piece),
        }
    }

    /// There is no more.
    pub(super) fn end(&mut self) {
        match self {
            Self::Text(splitter) => splitter.end(),
            Self::Ndjson(splitter) => splitter.end(),
            Self::Multipart(splitter) => splitter.end(),
        }
    }

    /// The next ticket that is complete, if there is one.
    pub(super) fn next_entry(&mut self) -> Result<Option<Entry<'_>>, EntryError> {
        match self {
            Self::Text(splitter) => next_of_text(splitter),
            Self::Ndjson(splitter) => splitter.next_entry(),
            Self::Multipart(splitter) => splitter.next_entry(),
        }
    }
}

/// A parameter of a content type, with its quotes undone (RFC 9110 section 5.6.6).
fn parameter(content_type: &str, wanted: &str) -> Option<String> {
    let mut rest = content_type.split_once(';')?.1;
    loop {
        let (name, after) = rest.split_once('=')?;
        let (value, after) = value(after)?;
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = after.trim_start().strip_prefix(';')?;
    }
}

/// A value, and what stands behind it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, after) = text.split_at(text.find(';').unwrap_or(text.len()));
        return Some((value.trim().to_owned(), after));
    };
    let (mut value, mut characters) = (String::new(), quoted.chars());
    loop {
        match characters.next()? {
            '"' => return Some((value, characters.as_str())),
            '\\' => value.push(characters.next()?),
            other => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn form(content_type: &str) -> Option<&'static str> {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_str(content_type).expect("a header value");
        headers.insert(CONTENT_TYPE, value);
        Entries::of(&headers, 1).ok().map(|entries| match entries {
            Entries::Text(_) => "text",
            Entries::Ndjson(_) => "ndjson",
            Entries::Multipart(_) => "multipart",
        })
    }

    #[test]
    fn the_content_type_tells_the_form() {
        assert!(Entries::of(&HeaderMap::new(), 1).is_ok());
        for (content_type, expected) in [
            ("text/plain", Some("text")),
            ("Text/Plain; charset=utf-8", Some("text")),
            ("application/x-www-form-urlencoded", Some("text")),
            ("application/x-ndjson", Some("ndjson")),
            ("multipart/mixed; boundary=b", Some("multipart")),
            (
                "multipart/mixed; a=\"x;y\\\"\" ; Boundary=\"b c\"",
                Some("multipart"),
            ),
            ("multipart/mixed", None),
            ("multipart/mixed; boundary=", None),
            ("multipart/mixed; boundary=\"b", None),
            ("multipart/form-data; boundary=b", None),
            ("application/json", None),
            ("", None),
        ] {
            assert_eq!(form(content_type), expected, "{content_type}");
        }
    }
}
