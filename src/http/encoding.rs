//! The coding of a request's body (RFC 9110 section 8.4): none is read.

use hyper::header::{CONTENT_ENCODING, HeaderMap};

/// What a body may be in, as Accept-Encoding says it (RFC 9110 section 12.5.3).
pub(super) const ACCEPTED: &str = "identity";

/// Whether the body is said to be in any coding.
pub(super) fn is_encoded(headers: &HeaderMap) -> bool {
    let mut lists = headers.get_all(CONTENT_ENCODING).iter();
    !lists.all(|list| list.as_bytes().split(|byte| *byte == b',').all(is_identity))
}

fn is_identity(coding: &[u8]) -> bool {
    let coding = coding.trim_ascii();
    coding.is_empty() || coding.eq_ignore_ascii_case(ACCEPTED.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn with(values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = HeaderValue::from_bytes(value).expect("a header value");
            headers.append(CONTENT_ENCODING, value);
        }
        headers
    }

    #[test]
    fn only_identity_is_no_coding() {
        for values in [
            &[][..],
            &[b"identity".as_slice()],
            &[b"Identity"],
            &[b""],
            &[b" identity , identity"],
            &[b"identity", b"identity"],
        ] {
            assert!(!is_encoded(&with(values)), "{values:?}");
        }
        for values in [
            &[b"gzip".as_slice()][..],
            &[b"identity, gzip"],
            &[b"identity", b"br"],
            &[b"identity;q=1"],
            &[b"x"],
            &[b"\xff"],
        ] {
            assert!(is_encoded(&with(values)), "{values:?}");
        }
    }
}
