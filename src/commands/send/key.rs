//! The key of a file: `NAME:HASH`, so that the same bytes under the same name are one ticket, however
//! often and by whomever they are sent.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::source::KEY_BYTES_MAX;

/// A SHA-256, in hexadecimal digits.
const HASH_CHARS: usize = 64;

/// The hash of a file's content, as 64 hexadecimal digits.
pub(super) fn hash_of(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

/// The key of a file of this name and hash. Of the name, bytes that are no visible ASCII characters,
/// and `%`, `:` and `*`, are written `%XX`; a name that is too long then is `*` and its own hash.
pub(in crate::commands) fn ticket_key(prefix: &str, name: &[u8], hash: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for &byte in name {
        if byte.is_ascii_graphic() && !b"%:*".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _written = write!(encoded, "%{byte:02X}");
        }
    }
    let room = KEY_BYTES_MAX - HASH_CHARS - ":".len();
    if prefix.len() + encoded.len() > room {
        encoded = format!("*{}", hash_of(name));
    }
    format!("{prefix}{encoded}:{hash}")
}

/// Bytes in hexadecimal digits.
pub(in crate::commands) fn hex(bytes: &[u8]) -> String {
    let mut hex = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _written = write!(hex, "{byte:02x}");
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::is_key;

    /// Made by coreutils' sha256sum, so that others can make them too.
    #[test]
    fn a_key_is_name_and_hash() {
        let hash = hash_of(b"abc");
        assert_eq!(
            hash,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let key = |name: &str| ticket_key("", name.as_bytes(), &hash);
        assert_eq!(key("0001.txt"), format!("0001.txt:{hash}"));
        assert_eq!(key("a b%:*é"), format!("a%20b%25%3A%2A%C3%A9:{hash}"));
        let prefixed = ticket_key("till-7/", b"1", &hash);
        assert_eq!(prefixed, format!("till-7/1:{hash}"));
        let long = hash_of("é".repeat(127).as_bytes());
        assert_eq!(key(&"é".repeat(127)), format!("*{long}:{hash}"));
    }

    #[test]
    fn every_name_has_a_key_of_its_own() {
        let hash = hash_of(b"");
        let mut names: Vec<Vec<u8>> = (1..=255).map(|byte| vec![byte]).collect();
        names.extend((2..=255).map(|length| vec![b'x'; length]));
        names.extend((2..=255).map(|length| vec![0xff; length]));
        names.push(b"%FF".to_vec());
        let prefixes = ["".to_owned(), "p".repeat(64)];
        let mut keys = std::collections::HashSet::new();
        for (prefix, name) in prefixes
            .iter()
            .flat_map(|prefix| names.iter().map(move |name| (prefix, name)))
        {
            let key = ticket_key(prefix, name, &hash);
            assert!(is_key(key.as_bytes()), "{key}");
            assert!(keys.insert(key), "{name:?}");
        }
    }
}
