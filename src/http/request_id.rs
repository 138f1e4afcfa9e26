//! The id of a request, by which a sender and a log can speak of the same one.

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id, in bytes.
const ID_BYTES_MAX: usize = 128;

/// An id of visible ASCII characters without `"` and `\\`, so that it needs no quoting in JSON or a log.
pub(crate) struct RequestId(HeaderValue);

impl RequestId {
    /// The id that a request brings; none if it is not of that form, or there are several. Boxed, as
    /// most requests bring none.
    pub(super) fn of(headers: &HeaderMap) -> Option<Box<Self>> {
        let mut ids = headers.get_all(&REQUEST_ID).iter();
        let id = ids.next()?;
        let is_alone = ids.next().is_none();
        (is_alone && is_id(id.as_bytes())).then(|| Box::new(Self(id.clone())))
    }

    /// A new one.
    pub(super) fn new() -> Self {
        let mut text = [0; Hyphenated::LENGTH];
        let id = Hyphenated::from_uuid(Uuid::now_v7()).encode_lower(&mut text);
        // It has the form of a header's value.
        Self(HeaderValue::from_str(id).unwrap_or_else(|_error| HeaderValue::from_static("-")))
    }

    /// As text.
    pub(super) fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// The header that tells it.
    pub(super) fn header(self) -> (HeaderName, HeaderValue) {
        (REQUEST_ID.clone(), self.0)
    }
}

fn is_id(bytes: &[u8]) -> bool {
    let is_allowed = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    (1..=ID_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = HeaderValue::from_bytes(value).expect("a header value");
            headers.append(&REQUEST_ID, value);
        }
        headers
    }

    #[test]
    fn an_id_needs_no_quoting() {
        for id in [b"1".as_slice(), b"a-b_c/d:~!#{}<>'", &[b'x'; ID_BYTES_MAX]] {
            let read = RequestId::of(&with(&[id])).expect("an id");
            assert_eq!(read.as_str().as_bytes(), id);
        }
        for ids in [
            &[][..],
            &[b"".as_slice()],
            &[&[b'x'; ID_BYTES_MAX + 1]],
            &[b"a b"],
            &[b"a\"b"],
            &[b"a\\b"],
            &[b"a\tb"],
            &[b"\xc3\xa9"],
            &[b"a", b"a"],
        ] {
            assert!(RequestId::of(&with(ids)).is_none(), "{ids:?}");
        }
        let (one, other) = (RequestId::new(), RequestId::new());
        assert!(is_id(one.as_str().as_bytes()) && one.as_str() != other.as_str());
    }
}
