//! The ids of many tickets, as the text of their response.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::publisher::PublishError;

/// What an id takes: 36 characters, two quotes and a comma.
pub(super) const ID_BYTES: usize = Hyphenated::LENGTH + 3;

/// Room for what stands before the ids: `{"accepted":`, 20 digits and `,"ids":[`.
const HEAD_BYTES: usize = 40;

/// The ids of the tickets of one body, charged to the memory that all of them may take.
pub(super) struct Ids {
    text: Vec<u8>,
    budget: Arc<Semaphore>,
    charge: Option<OwnedSemaphorePermit>,
}

/// Held until its client has taken it.
struct ResponseText {
    text: Vec<u8>,
    _charge: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for ResponseText {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

impl Ids {
    /// None yet.
    pub(super) fn new(budget: Arc<Semaphore>) -> Self {
        Self {
            text: vec![0; HEAD_BYTES],
            budget,
            charge: None,
        }
    }

    /// Charges so many ids more.
    pub(super) fn charge(&mut self, ids: usize) -> Result<(), PublishError> {
        let bytes = u32::try_from(ids * ID_BYTES).unwrap_or(u32::MAX);
        let charged = self.budget.clone().try_acquire_many_owned(bytes);
        let charged = charged.map_err(|_full| PublishError::Overloaded)?;
        match &mut self.charge {
            Some(charge) => charge.merge(charged),
            none => *none = Some(charged),
        }
        Ok(())
    }

    /// Adds one.
    pub(super) fn push(&mut self, id: Uuid) {
        let mut text = [0; Hyphenated::LENGTH];
        let id = Hyphenated::from_uuid(id).encode_lower(&mut text);
        self.text.push(b'"');
        self.text.extend_from_slice(id.as_bytes());
        self.text.extend_from_slice(b"\",");
    }

    /// The response that so many tickets are confirmed.
    pub(super) fn into_response(mut self, accepted: u64) -> Bytes {
        self.text.pop();
        self.text.extend_from_slice(b"]}");
        let head = format!("{{\"accepted\":{accepted},\"ids\":[");
        let start = HEAD_BYTES.saturating_sub(head.len());
        if let Some(place) = self.text.get_mut(start..HEAD_BYTES) {
            place.copy_from_slice(head.as_bytes());
        }
        let text = ResponseText {
            text: self.text,
            _charge: self.charge,
        };
        Bytes::from_owner(text).slice(start..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_response_has_all_ids_and_what_they_take_until_it_is_sent() {
        let budget = Arc::new(Semaphore::new(3 * ID_BYTES));
        let mut ids = Ids::new(budget.clone());
        assert_eq!(ids.charge(1), Ok(()));
        assert_eq!(ids.charge(1), Ok(()));
        assert_eq!(ids.charge(2), Err(PublishError::Overloaded));
        (1..=2).for_each(|id| ids.push(Uuid::from_u128(id)));
        let response = ids.into_response(2);
        let expected = "{\"accepted\":2,\"ids\":[\"00000000-0000-0000-0000-000000000001\",\
                        \"00000000-0000-0000-0000-000000000002\"]}";
        assert_eq!(response, expected);
        assert_eq!(budget.available_permits(), ID_BYTES);
        drop(response);
        assert_eq!(budget.available_permits(), 3 * ID_BYTES);
        let most = Ids::new(budget).into_response(u64::MAX);
        assert!(most.starts_with(b"{\"accepted\":18446744073709551615,\"ids\":"));
    }
}
