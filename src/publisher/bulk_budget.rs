//! What groups that are submitted as a whole may hold together.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::error::PublishError;

/// The maximum size of all whole groups between their submission and their confirm, in bytes.
const BULK_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What whole groups may hold together.
pub(super) struct BulkBudget(Arc<Semaphore>);

/// What one of them holds, until it is dropped.
pub(super) struct BulkCharge {
    _bytes: OwnedSemaphorePermit,
}

impl BulkBudget {
    /// All of it is free.
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(BULK_BYTES_MAX)))
    }

    /// Waits until there is room for so many bytes, in the order of asking.
    pub(super) async fn charge(
        &self,
        bytes: usize,
        wait_max: Duration,
    ) -> Result<BulkCharge, PublishError> {
        let bytes = u32::try_from(bytes.min(BULK_BYTES_MAX)).unwrap_or(u32::MAX);
        let room = timeout(wait_max, self.0.clone().acquire_many_owned(bytes)).await;
        match room {
            Ok(Ok(room)) => Ok(BulkCharge { _bytes: room }),
            _ => Err(PublishError::Overloaded),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_submits_more_than_may_be_held_waits_but_not_for_ever() {
        let budget = BulkBudget::new();
        let wait = Duration::from_millis(10);
        let all = budget.charge(usize::MAX, wait).await.expect("room");
        let refused = budget.charge(1, wait).await.err();
        assert_eq!(refused, Some(PublishError::Overloaded));
        drop(all);
        assert!(budget.charge(1, wait).await.is_ok());
    }
}
