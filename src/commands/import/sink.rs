//! Where tickets go.

use crate::message::Record;

/// Takes tickets in the order of their files.
pub(super) trait TicketSink {
    /// What has to happen to all for them to be done with, as a message says it.
    const DONE: &str;

    /// Takes a ticket, and waits while too many are on their way.
    async fn add(&mut self, record: Record<'_>) -> anyhow::Result<()>;

    /// How many are safe so far.
    fn confirmed(&self) -> u64;

    /// Waits until all are safe; an error if one is not.
    async fn finish(&mut self) -> anyhow::Result<()>;
}
