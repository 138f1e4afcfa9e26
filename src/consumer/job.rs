//! What goes between the consumer and its writers.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::delivery::DeliveredMessage;

/// A batch to store.
pub(super) struct Job {
    /// The number of the subscription that it came from.
    pub subscription: u64,
    /// Its number there.
    pub batch: u64,
    /// Its messages.
    pub messages: Vec<DeliveredMessage>,
    /// How long COPY of its rows may be stretched, to leave the cores to accepting.
    pub pacing: Duration,
    /// Set when nobody can acknowledge it any more: it will be delivered again.
    pub abandoned: Arc<AtomicBool>,
}

/// What a writer reports to the consumer.
pub(super) enum WriterEvent {
    /// The writer of this index is connected and has nothing to do.
    Idle(usize),
    /// This batch is committed.
    Stored(StoredBatch),
}

/// A committed batch.
pub(super) struct StoredBatch {
    /// The number of the subscription that it came from.
    pub subscription: u64,
    /// Its number there.
    pub batch: u64,
    /// The delivery tags of its messages.
    pub tags: Vec<u64>,
    /// Some of its tickets were there already.
    pub met_stored: bool,
}
