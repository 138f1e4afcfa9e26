//! When a ticket was issued, as its sender says: tills queue for days, and the time of receipt is
//! not the day of business.

use hyper::header::{HeaderMap, HeaderName};

use crate::source::{IssuedAtError, time_us};

static ISSUED_AT: HeaderName = HeaderName::from_static("ticket-issued-at");

/// The time of issue in µs since the Unix epoch, cut off after the microsecond; none where the sender
/// gives none.
pub(super) fn issued_at_us(headers: &HeaderMap) -> Result<Option<i64>, IssuedAtError> {
    let mut times = headers.get_all(&ISSUED_AT).iter();
    let Some(time) = times.next() else {
        return Ok(None);
    };
    if times.next().is_some() {
        return Err(IssuedAtError::Several);
    }
    let time = time.to_str().ok().and_then(time_us);
    Ok(Some(time.ok_or(IssuedAtError::NoTime)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn read(value: &[u8]) -> Result<Option<i64>, IssuedAtError> {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_bytes(value).expect("a header value");
        headers.insert(&ISSUED_AT, value);
        issued_at_us(&headers)
    }

    #[test]
    fn a_time_with_its_offset_is_read_to_the_microsecond() {
        let noon = Ok(Some(1_795_777_200_000_000));
        for text in [
            "2026-11-27T12:00:00+01:00",
            "2026-11-27T11:00:00Z",
            "2026-11-27t11:00:00z",
            "2026-11-27T11:00:00.000000999Z",
            "2026-11-26T23:00:00-12:00",
        ] {
            assert_eq!(read(text.as_bytes()), noon, "{text}");
        }
        assert_eq!(read(b"1969-12-31T23:59:59.999999Z"), Ok(Some(-1)));
        assert_eq!(
            read(b"2016-12-31T23:59:60Z"),
            Ok(Some(1_483_228_800_000_000))
        );
        assert_eq!(issued_at_us(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn whatever_rfc_3339_allows_postgres_can_hold() {
        for text in [
            "0000-01-01T00:00:00+23:59",
            "9999-12-31T23:59:59.999999999-23:59",
        ] {
            let us = read(text.as_bytes()).expect("a time").expect("a time");
            assert!(
                (-62_200_000_000_000_000..254_000_000_000_000_000).contains(&us),
                "{us}"
            );
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            b"".as_slice(),
            b"2026-11-27",
            b"2026-11-27T12:00:00",
            b"2026-11-27T12:00Z",
            b"2026-11-27T24:00:00Z",
            b"2026-02-29T12:00:00Z",
            b"2026-11-27T12:00:00+01",
            b"2026-11-27T12:00:00+24:00",
            b"12026-11-27T12:00:00Z",
            b"+2026-11-27T12:00:00Z",
            b"2026-11-27T12:00:00Z ",
            b"1795777200",
            b"Fri, 27 Nov 2026 11:00:00 GMT",
            b"\xff",
        ] {
            assert!(read(text).is_err(), "{:?}", text.escape_ascii().to_string());
        }
        let mut twice = HeaderMap::new();
        for _ in 0..2 {
            twice.append(&ISSUED_AT, HeaderValue::from_static("2026-11-27T11:00:00Z"));
        }
        assert!(issued_at_us(&twice).is_err());
    }
}
