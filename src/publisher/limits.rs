//! What a publisher may hold, and how long it may wait.

use std::time::Duration;

use crate::config::{INFLIGHT_BYTES_MAX, PublishSettings};
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
            group: settings.publish_group_max as usize,
            version: match settings.wire_format {
                1 => GroupVersion::V1,
                _ => GroupVersion::V2,
            },
            inflight: settings.inflight_max as usize,
            inflight_bytes: INFLIGHT_BYTES_MAX,
            confirm_timeout: settings.confirm_timeout,
        }
    }
}
