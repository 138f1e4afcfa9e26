//! What a publisher may hold, and how long it may wait.

use std::time::Duration;

/// What a publisher may hold and how long it may wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PublishLimits {
    /// Maximum of tickets in one message.
    pub group: usize,
    /// Maximum of tickets between arrival and confirm.
    pub inflight: usize,
    /// Maximum of their bytes.
    pub inflight_bytes: usize,
    /// Maximum time from the submission of a ticket to its confirm, and from the publishing of a
    /// message to its confirm.
    pub confirm_timeout: Duration,
}
