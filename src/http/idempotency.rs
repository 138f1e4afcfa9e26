//! A ticket's id: from its sender's key, or new.

use hyper::header::HeaderMap;
use uuid::Uuid;

use crate::source::{KeyError, Source, id_of_key, is_key};

/// The headers that make a repetition recognisable: the IETF's draft of
/// Idempotency-Key, and Standard Webhooks. The first one present counts.
const KEY_HEADERS: [&str; 2] = ["idempotency-key", "webhook-id"];

/// The id of a ticket: made from its source and its key, so that a repetition is
/// recognised, or else a new one that grows with time (UUID version 7).
pub(super) fn ticket_id(source: Option<&Source>, headers: &HeaderMap) -> Result<Uuid, KeyError> {
    let key = key(headers)?;
    Ok(key.map_or_else(Uuid::now_v7, |key| id_of_key(source, key)))
}

/// The key that there is in a head.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<&[u8]>, KeyError> {
    for name in KEY_HEADERS {
        let mut keys = headers.get_all(name).iter();
        let Some(key) = keys.next() else { continue };
        let key = key.as_bytes();
        if keys.next().is_some() {
            return Err(KeyError::Several);
        }
        if !is_key(key) {
            return Err(KeyError::NoKey);
        }
        return Ok(Some(key));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::KEY_BYTES_MAX;
    use hyper::header::HeaderValue;

    fn with(name: &'static str, value: &[u8]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(
            name,
            HeaderValue::from_bytes(value).expect("a header value"),
        );
        headers
    }

    #[test]
    fn the_same_key_is_the_same_ticket_whichever_header_brings_it() {
        let id = ticket_id(None, &with("idempotency-key", b"till-7/4711")).expect("a good key");
        assert_eq!(
            id,
            ticket_id(None, &with("webhook-id", b"till-7/4711")).expect("a good key")
        );
        assert_ne!(
            id,
            ticket_id(None, &with("webhook-id", b"till-7/4712")).expect("a good key")
        );
        assert_eq!(id.get_version_num(), 5);
    }

    #[test]
    fn every_byte_of_a_key_counts() {
        let key = [b'k'; KEY_BYTES_MAX];
        let mut ids = vec![ticket_id(None, &with("idempotency-key", &key)).expect("a good key")];
        for at in 0..KEY_BYTES_MAX {
            let mut other = key;
            other[at] = b'x';
            ids.push(ticket_id(None, &with("webhook-id", &other)).expect("a good key"));
        }
        let shorter = ticket_id(None, &with("webhook-id", &key[1..]));
        ids.push(shorter.expect("a good key"));
        let different: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(different.len(), ids.len());
    }

    #[test]
    fn without_a_key_every_ticket_is_new() {
        let (one, two) = (
            ticket_id(None, &HeaderMap::new()),
            ticket_id(None, &HeaderMap::new()),
        );
        assert_ne!(one, two);
        assert_eq!(one.expect("an id").get_version_num(), 7);
    }

    #[test]
    fn a_key_is_short_visible_and_alone() {
        for key in [
            b"".as_slice(),
            &[b'k'; 256],
            b"two words",
            "clé".as_bytes(),
            b"tab\t",
        ] {
            assert!(
                ticket_id(None, &with("idempotency-key", key)).is_err(),
                "{key:?}"
            );
        }
        for key in [b"k".as_slice(), b"!~", &[b'k'; 255]] {
            assert!(
                ticket_id(None, &with("idempotency-key", key)).is_ok(),
                "{key:?}"
            );
        }
        let mut twice = with("idempotency-key", b"a");
        twice.append("idempotency-key", HeaderValue::from_static("b"));
        assert!(ticket_id(None, &twice).is_err());
    }
}
