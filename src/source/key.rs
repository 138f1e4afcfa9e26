//! Ids made from senders' keys, so that a repetition is recognised.

use std::ops::Range;

use uuid::{Uuid, Variant};

use super::Source;

/// The namespace of ids made from keys (UUID version 5, RFC 9562 section 5.5).
/// Changing it would make every repeated ticket a new one.
const KEY_NAMESPACE: Uuid = Uuid::from_u128(0x7b0d_51b2_6f5c_4e0a_9f8e_1c0d_3a6b_27d4);

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 255;

/// The times, in ms since the Unix epoch, of which a UUID of version 7 may be for it to count as one:
/// from 2020 on, before 2100. Fixed for ever, as the id of a key is.
const KEY_TIMES_MS: Range<u128> = 1_577_836_800_000..4_102_444_800_000;

/// How a UUID is written in a key.
const HYPHENATED_BYTES: usize = 36;

/// The bits of a UUID that hold its time, if it is of version 7, and those that hold the version.
const TIME: u128 = 0xffff_ffff_ffff << 80;
const VERSION: u128 = 0xf << 76;

/// What is wrong with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyError {
    /// It is there twice.
    Several,
    /// It is too long, or has other characters.
    NoKey,
}

impl KeyError {
    /// What its sender is told.
    pub fn detail(self) -> &'static str {
        match self {
            Self::Several => "more than one key",
            Self::NoKey => "a key has 1 to 255 visible ASCII characters",
        }
    }
}

/// Whether it has the form of a key: 1 to [`KEY_BYTES_MAX`] visible ASCII characters.
pub fn is_key(key: &[u8]) -> bool {
    (1..=KEY_BYTES_MAX).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic)
}

/// The id of a key. Keys belong to their source: neither has a blank, so no other source and key,
/// and no key without a source, make the same name.
///
/// A key that is itself a UUID of version 7 is the id, so that tickets lie in the order of their time.
/// Of a source it gives the id no more than its time, as all the rest would let one source choose the
/// id of another's ticket.
pub fn id_of_key(source: Option<&Source>, key: &[u8]) -> Uuid {
    let timed = time_ordered(key);
    let Some(source) = source else {
        return timed.unwrap_or_else(|| Uuid::new_v5(&KEY_NAMESPACE, key));
    };
    let lower = timed.map(|_| key.to_ascii_lowercase());
    let key = lower.as_deref().unwrap_or(key);
    let name = [source.as_str().as_bytes(), b" ", key].concat();
    let id = Uuid::new_v5(&KEY_NAMESPACE, &name);
    timed.map_or(id, |timed| with_time_of(timed, id))
}

/// The UUID of version 7 that a key is, if its time is one of [`KEY_TIMES_MS`].
fn time_ordered(key: &[u8]) -> Option<Uuid> {
    let uuid = Uuid::try_parse_ascii(key).ok()?;
    let is_usual = key.len() == HYPHENATED_BYTES
        && uuid.get_version_num() == 7
        && uuid.get_variant() == Variant::RFC4122;
    (is_usual && KEY_TIMES_MS.contains(&(uuid.as_u128() >> 80))).then_some(uuid)
}

/// A UUID of version 7 with the time of one, and all that is not its time of the other.
fn with_time_of(timed: Uuid, id: Uuid) -> Uuid {
    let taken = TIME | VERSION;
    Uuid::from_u128(timed.as_u128() & taken | id.as_u128() & !taken)
}

/// The id of one of many tickets that are sent with one key: UUID version 5 of its number, from 1 and
/// in decimal, in the namespace that is the id of the key. That is the id of no other key's ticket, as
/// ids of keys are of another namespace.
pub fn id_of_nth(id_of_key: Uuid, number: u64) -> Uuid {
    Uuid::new_v5(&id_of_key, number.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_source(source: Option<&str>, key: &[u8]) -> Uuid {
        let source = source.map(|name| Source::parse(name).expect("a source"));
        id_of_key(source.as_ref(), key)
    }

    /// Made by Python's uuid.uuid5, so that others can make them too.
    #[test]
    fn ids_of_keys_are_the_documented_ones() {
        let plain = of_source(None, b"till-7/4711").to_string();
        assert_eq!(plain, "60a157f9-cf37-518c-b6be-d7c484b9bfa6");
        let of_shop = of_source(Some("shop-1"), b"till-7/4711").to_string();
        assert_eq!(of_shop, "e52bc03d-bf2a-546e-acb3-d16f6a319ee2");
    }

    /// Likewise.
    #[test]
    fn ids_of_many_are_the_documented_ones() {
        let key = of_source(Some("shop-1"), b"till-7/2026-11-27");
        let ids = [1, 2, 10].map(|number| id_of_nth(key, number).to_string());
        assert_eq!(
            ids,
            [
                "5fa6a56b-d43d-58f7-a28b-a995aa0bc37f",
                "c068c0b0-8fad-5687-908b-c6e4008ad3fd",
                "7ea1007f-6de1-551a-ba75-3d60b4cf08b4",
            ]
        );
    }

    const TIMED: &str = "0192f0c1-7a2b-7c3d-8e4f-5a6b7c8d9e0f";

    /// Likewise: of uuid5's bytes the first six are those of the key, and the next begins with a 7.
    #[test]
    fn a_key_of_version_7_gives_its_time() {
        let of = |source, key: &str| of_source(source, key.as_bytes()).to_string();
        let of_shop = "0192f0c1-7a2b-7166-87b4-af39ddeb38ef";
        for key in [TIMED.to_owned(), TIMED.to_uppercase()] {
            assert_eq!(of(None, &key), TIMED);
            assert_eq!(of(Some("shop-1"), &key), of_shop);
        }
        let other = of(Some("shop-2"), TIMED);
        assert!(other.starts_with("0192f0c1-7a2b-7"), "{other}");
        assert_ne!(other, of_shop);
        assert_ne!(other, TIMED);
    }

    /// Whatever else looks like one has the id that it always had.
    #[test]
    fn only_a_key_of_version_7_and_a_likely_time_does() {
        for key in [
            // Versions 4 and 6, another variant, and the last ms of 2019 and first of 2100.
            "0192f0c1-7a2b-4c3d-8e4f-5a6b7c8d9e0f",
            "0192f0c1-7a2b-6c3d-8e4f-5a6b7c8d9e0f",
            "0192f0c1-7a2b-7c3d-ce4f-5a6b7c8d9e0f",
            "016f5e66-e7ff-7c3d-8e4f-5a6b7c8d9e0f",
            "03bb2cc3-d800-7c3d-8e4f-5a6b7c8d9e0f",
            // Other spellings.
            "0192f0c17a2b7c3d8e4f5a6b7c8d9e0f",
            "{0192f0c1-7a2b-7c3d-8e4f-5a6b7c8d9e0f}",
            "urn:uuid:0192f0c1-7a2b-7c3d-8e4f-5a6b7c8d9e0f",
            "0192f0c1-7a2b-7c3d-8e4f-5a6b7c8d9e0g",
            "0192f0c1-7a2b-7c3d-8e4f-5a6b7c8d9e0f-1",
        ] {
            let id = of_source(None, key.as_bytes());
            assert_eq!(id, Uuid::new_v5(&KEY_NAMESPACE, key.as_bytes()), "{key}");
            let of_shop = of_source(Some("shop-1"), key.as_bytes());
            assert_eq!(of_shop.get_version_num(), 5, "{key}");
        }
        for key in [
            "016f5e66-e800-7c3d-8e4f-5a6b7c8d9e0f",
            "03bb2cc3-d7ff-7c3d-be4f-5a6b7c8d9e0f",
        ] {
            assert_eq!(of_source(None, key.as_bytes()).to_string(), key);
        }
    }

    #[test]
    fn keys_belong_to_their_source() {
        let ids = [
            of_source(None, b"a-b-c"),
            of_source(Some("a"), b"b-c"),
            of_source(Some("a"), b"-b-c"),
            of_source(Some("a-b"), b"c"),
            of_source(Some("b"), b"b-c"),
            of_source(Some("a"), b"a-b-c"),
        ];
        let different: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(different.len(), ids.len());
        assert_eq!(of_source(Some("a"), b"b-c"), ids[1]);
    }
}
