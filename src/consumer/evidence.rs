//! What is known of the tickets that the tables accept. No I/O.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::message::Record;
use crate::source::OwnedOrigin;

/// Maximum of tickets that are dead-lettered in a row with none stored in between.
pub(super) const DEAD_LETTERED_MAX: u32 = 2;

/// The largest ticket of which a copy is kept, in bytes.
const SAMPLE_BYTES_MAX: usize = 65_536;

/// What a ticket's transaction writes, and so which constraints it has to meet. One that was stored
/// vouches for its own kind and for those before it, but not for those after it, which write more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// An invalid ticket: most columns are null.
    Invalid,
    /// A valid one: every column.
    Valid,
    /// A valid one and its products.
    Products,
}

impl Kind {
    /// All of them, in their order.
    pub(super) const ALL: [Self; 3] = [Self::Invalid, Self::Valid, Self::Products];
}

/// What the writers together know of the tickets that the tables accept.
#[derive(Debug, Default)]
pub(super) struct Evidence(Mutex<[Accepted; Kind::ALL.len()]>);

#[derive(Debug, Default)]
struct Accepted {
    /// How often such tickets were stored.
    times: u64,
    /// How many were dead-lettered since the last time.
    dead_lettered: u32,
    /// A copy of one that was stored.
    sample: Option<Sample>,
}

/// A copy of a ticket that was stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sample {
    /// When it was received, in µs since the Unix epoch.
    pub received_at_us: i64,
    /// What else was known of it.
    pub origin: OwnedOrigin,
    /// The ticket as it came.
    pub body: Vec<u8>,
}

impl Evidence {
    /// Records that tickets of this kind were stored, or would be.
    pub(super) fn accepted(&self, kind: Kind) {
        self.vouched(kind, |accepted| {
            accepted.times += 1;
            accepted.dead_lettered = 0;
        });
    }

    /// Keeps a copy of a ticket that was stored, unless it is large.
    pub(super) fn keep(&self, kind: Kind, record: &Record<'_>) {
        if record.body.len() > SAMPLE_BYTES_MAX {
            return;
        }
        self.vouched(kind, |accepted| {
            let sample = accepted.sample.get_or_insert_default();
            sample.received_at_us = record.received_at_us;
            sample.origin = record.origin.into();
            sample.body.clear();
            sample.body.extend_from_slice(record.body);
        });
    }

    /// A ticket that was stored and vouches for this kind.
    pub(super) fn sample(&self, kind: Kind) -> Option<Sample> {
        self.known(kind, |accepted| accepted.sample.clone())
    }

    /// How often tickets were stored that vouch for this kind.
    pub(super) fn times(&self, kind: Kind) -> u64 {
        self.known(kind, |accepted| accepted.times)
    }

    /// Counts one more of this kind as dead-lettered, if that is allowed.
    pub(super) fn try_dead_letter(&self, kind: Kind) -> bool {
        let mut allowed = true;
        self.vouched(kind, |accepted| {
            allowed &= accepted.dead_lettered < DEAD_LETTERED_MAX
        });
        if allowed {
            self.vouched(kind, |accepted| accepted.dead_lettered += 1);
        }
        allowed
    }

    /// What is known of each kind that this one vouches for.
    fn vouched(&self, kind: Kind, act: impl FnMut(&mut Accepted)) {
        let mut known = self.lock();
        let kinds = Kind::ALL.iter().zip(known.iter_mut());
        let vouched = kinds.filter(|(other, _)| **other <= kind);
        vouched.map(|(_, accepted)| accepted).for_each(act);
    }

    /// What is known of a kind.
    fn known<T: Default>(&self, kind: Kind, read: impl FnOnce(&Accepted) -> T) -> T {
        let known = self.lock();
        let mut kinds = Kind::ALL.iter().zip(known.iter());
        let accepted = kinds.find(|(other, _)| **other == kind);
        accepted.map_or_else(T::default, |(_, accepted)| read(accepted))
    }

    fn lock(&self) -> MutexGuard<'_, [Accepted; Kind::ALL.len()]> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Kind::{Invalid, Valid};

    #[test]
    fn a_ticket_of_one_kind_is_compared_with_what_tells_of_it() {
        let evidence = Evidence::default();
        let record = |body| Record {
            id: uuid::Uuid::nil(),
            received_at_us: 1,
            origin: crate::source::Origin::default(),
            body,
        };
        let body = |kind| evidence.sample(kind).map(|sample| sample.body);
        evidence.keep(Valid, &record(b"valid"));
        assert_eq!(body(Invalid), Some(b"valid".to_vec()));
        evidence.keep(Invalid, &record(b"x"));
        evidence.keep(Invalid, &record(&[b'x'; SAMPLE_BYTES_MAX + 1]));
        assert_eq!(body(Valid), Some(b"valid".to_vec()));
        assert_eq!(body(Invalid), Some(b"x".to_vec()));
    }
}
