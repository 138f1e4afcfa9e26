//! Whole groups, as whoever has many tickets at once makes them.

use std::sync::Arc;

use super::group::Group;
use super::limits::PublishLimits;
use super::queue::PublishQueue;
use crate::config::GROUP_BYTES_MAX;
use crate::message::{GroupVersion, Record};

/// Gathers tickets that came together into groups as large as they may be.
pub(crate) struct GroupBuilder {
    queue: Arc<PublishQueue>,
    limits: PublishLimits,
    filling: Group,
    /// How many tickets may be in it.
    filling_max: usize,
}

impl GroupBuilder {
    pub(super) fn new(queue: Arc<PublishQueue>, limits: PublishLimits) -> Self {
        let (filling, filling_max) = queue.empty_group();
        Self {
            queue,
            limits,
            filling,
            filling_max,
        }
    }

    /// Adds a ticket. The group that it does not fit into any more is to be submitted.
    pub(crate) fn add(&mut self, record: Record<'_>) -> Option<Group> {
        let full = if self.has_room_for(&record) {
            None
        } else {
            self.take()
        };
        self.filling.add(record);
        full
    }

    /// The tickets that are in no group yet; none if there are none.
    pub(crate) fn take(&mut self) -> Option<Group> {
        if self.filling.tickets() == 0 {
            return None;
        }
        let (next, next_max) = self.queue.empty_group();
        self.filling_max = next_max;
        Some(std::mem::replace(&mut self.filling, next))
    }

    /// A ticket that fits into no group that may be written is a message of its own.
    fn has_room_for(&self, record: &Record<'_>) -> bool {
        let needed = GroupVersion::needed_for(&record.origin).max(self.filling.version());
        self.filling.tickets() < self.filling_max
            && needed <= self.limits.version
            && self.filling.bytes_with(record) <= GROUP_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::publisher::replies::reply_channels;
    use crate::source::Origin;
    use uuid::Uuid;

    fn builder(group: usize, version: GroupVersion) -> GroupBuilder {
        let limits = PublishLimits {
            group,
            version,
            inflight: 1,
            inflight_bytes: 1,
            confirm_timeout: Duration::from_secs(5),
        };
        let (router, _replies) = reply_channels(1);
        GroupBuilder::new(Arc::new(PublishQueue::new(limits, router, 1)), limits)
    }

    fn record(issued_at_us: Option<i64>, body: &[u8]) -> Record<'_> {
        Record {
            id: Uuid::nil(),
            received_at_us: 0,
            origin: Origin {
                source: None,
                issued_at_us,
            },
            body,
        }
    }

    /// How many tickets are in each group.
    fn groups<'a>(
        mut builder: GroupBuilder,
        records: impl IntoIterator<Item = Record<'a>>,
    ) -> Vec<usize> {
        let mut groups: Vec<_> = records
            .into_iter()
            .filter_map(|record| builder.add(record))
            .collect();
        groups.extend(builder.take());
        assert!(builder.take().is_none());
        groups.iter().map(Group::tickets).collect()
    }

    #[test]
    fn groups_are_as_large_as_they_may_be() {
        let few = std::iter::repeat_n(record(None, b"x"), 7);
        assert_eq!(groups(builder(3, GroupVersion::V2), few), [3, 3, 1]);
        let none = std::iter::empty();
        assert!(groups(builder(3, GroupVersion::V2), none).is_empty());
        let large = vec![b'x'; GROUP_BYTES_MAX / 2];
        let larger = vec![b'x'; 2 * GROUP_BYTES_MAX];
        let records = [&large[..], b"x", &large, &larger, b"x"].map(|body| record(None, body));
        assert_eq!(groups(builder(9, GroupVersion::V2), records), [2, 1, 1, 1]);
    }

    #[test]
    fn what_the_written_version_cannot_hold_is_a_message_of_its_own() {
        let records = || [None, None, Some(1), Some(2), None].map(|at| record(at, b"x"));
        let of_version_1 = groups(builder(9, GroupVersion::V1), records());
        assert_eq!(of_version_1, [2, 1, 1, 1]);
        assert_eq!(groups(builder(9, GroupVersion::V2), records()), [5]);
    }
}
