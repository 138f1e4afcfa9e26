use super::*;
use hyper::header::{HeaderName, HeaderValue};

fn with(name: &HeaderName, values: &[&[u8]]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        let value = HeaderValue::from_bytes(value).expect("a header value");
        headers.append(name, value);
    }
    headers
}

#[test]
fn content_encoding_names_one_coding_at_most() {
    let read =
        |values: &[&[u8]]| coding_of(&with(&CONTENT_ENCODING, values)).map(|coding| coding.content);
    for values in [
        &[][..],
        &[b"identity".as_slice()],
        &[b"Identity"],
        &[b""],
        &[b" identity , identity"],
        &[b"identity", b"identity"],
    ] {
        assert_eq!(read(values), Ok(None), "{values:?}");
    }
    for (values, coding) in [
        (&[b"gzip".as_slice()][..], ContentCoding::Gzip),
        (&[b"GZip"], ContentCoding::Gzip),
        (&[b"x-gzip"], ContentCoding::Gzip),
        (&[b"zstd"], ContentCoding::Zstd),
        (&[b"identity, gzip"], ContentCoding::Gzip),
        (&[b"identity", b" zstd "], ContentCoding::Zstd),
    ] {
        assert_eq!(read(values), Ok(Some(coding)), "{values:?}");
    }
    for values in [
        &[b"br".as_slice()][..],
        &[b"deflate"],
        &[b"gzip, gzip"],
        &[b"gzip", b"zstd"],
        &[b"identity;q=1"],
        &[b"gzip;q=1"],
        &[b"x"],
        &[b"\xff"],
    ] {
        assert_eq!(read(values), Err(UnknownCoding::Content), "{values:?}");
    }
}

#[test]
fn content_type_names_one_charset_at_most() {
    let read =
        |values: &[&[u8]]| coding_of(&with(&CONTENT_TYPE, values)).map(|coding| coding.charset);
    for values in [
        &[][..],
        &[b"text/plain".as_slice()],
        &[b""],
        &[b"text/plain; charset=utf-8"],
        &[b"text/plain;charset=UTF-8"],
        &[b"TEXT/plain; CHARSET=\"utf8\""],
        &[b"text/plain; charset=US-ASCII"],
        &[b"text/plain; format=flowed; charset=utf-8"],
        &[b"text/plain; charset"],
        &[b"text/plain; x=\"; charset=latin1\""],
        &[b"text/plain; x=\"\\\"; charset=latin1\""],
        &[b"application/json; charset=latin1"],
        &[b"charset=latin1"],
        &[b"text/plain; charset=utf-8", b"text/plain"],
        &[b"text/plain; charset=utf-8; charset=ascii"],
    ] {
        assert_eq!(read(values), Ok(Charset::Utf8), "{values:?}");
    }
    for values in [
        &[b"text/plain; charset=iso-8859-1".as_slice()][..],
        &[b"text/plain; charset=ISO-8859-1"],
        &[b"text/csv ; charset = \"windows-1252\""],
        &[b"text/plain;charset=latin1;"],
        &[b"text/plain; x=\"a;b\"; charset=cp1252"],
    ] {
        assert_eq!(read(values), Ok(Charset::Windows1252), "{values:?}");
    }
    for values in [
        &[b"text/plain; charset=utf-16".as_slice()][..],
        &[b"text/plain; charset="],
        &[b"text/plain; charset=\"utf-8"],
        &[b"text/plain; charset=\xff"],
        &[b"text/plain; charset=utf-8; charset=latin1"],
        &[b"text/plain; charset=utf-8", b"text/plain; charset=latin1"],
    ] {
        assert_eq!(read(values), Err(UnknownCoding::Charset), "{values:?}");
    }
}
