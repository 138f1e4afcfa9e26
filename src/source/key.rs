//! Ids made from senders' keys, so that a repetition is recognised.

use uuid::Uuid;

use super::Source;

/// The namespace of ids made from keys (UUID version 5, RFC 9562 section 5.5).
/// Changing it would make every repeated ticket a new one.
const KEY_NAMESPACE: Uuid = Uuid::from_u128(0x7b0d_51b2_6f5c_4e0a_9f8e_1c0d_3a6b_27d4);

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 255;

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
pub fn id_of_key(source: Option<&Source>, key: &[u8]) -> Uuid {
    match source {
        None => Uuid::new_v5(&KEY_NAMESPACE, key),
        Some(source) => {
            let name = [source.as_str().as_bytes(), b" ", key].concat();
            Uuid::new_v5(&KEY_NAMESPACE, &name)
        }
    }
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
