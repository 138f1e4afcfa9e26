//! What a publisher may hold, and how long it may wait.

use std::time::Duration;

use crate::config::{GroupSettings, INFLIGHT_BYTES_MAX, PublishSettings};
use crate::message::GroupVersion;

/// What a publisher may hold and how long it may wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PublishLimits {
    /// Maximum of tickets in one message.
    pub group: usize,
    /// The newest version of groups that is written. What fits into none is a message of its own.
    pub version: GroupVersion,
    /// Maximum of tickets between arrival and confirm.
    pub inflight: usize,
    /// Maximum of their bytes.
    pub inflight_bytes: usize,
    /// Maximum time from the submission of a ticket to its confirm, and from the publishing of a
    /// message to its confirm.
    pub confirm_timeout: Duration,
}

impl PublishLimits {
    /// As these settings say.
    pub(crate) fn of(settings: &PublishSettings) -> Self {
        Self {
            inflight: settings.inflight_max as usize,
            ..Self::of_groups(&settings.groups, settings.confirm_timeout)
        }
    }

    /// Of one who submits whole groups, and no single tickets.
    pub(crate) fn of_groups(settings: &GroupSettings, confirm_timeout: Duration) -> Self {
        Self {
            group: settings.publish_group_max as usize,
            version: match settings.wire_format {
                1 => GroupVersion::V1,
                _ => GroupVersion::V2,
            },
            inflight: 0,
            inflight_bytes: INFLIGHT_BYTES_MAX,
            confirm_timeout,
        }
    }
}
