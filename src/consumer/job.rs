//! What the consumer and its writers tell each other.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::delivery::Message;

/// A batch to store.
pub struct Job {
    /// The subscription it came from.
    pub session: u64,
    /// Its number there.
    pub batch: u64,
    /// Its messages.
    pub messages: Vec<Message>,
    /// How long PostgreSQL may take over its rows, so as to leave the cores to others.
    pub spread: Duration,
    /// Set when nobody can acknowledge it any more: it will be delivered again.
    pub abandoned: Arc<AtomicBool>,
}

/// What a writer tells the consumer.
pub enum Event {
    /// This writer is connected and has nothing to do.
    Idle(usize),
    /// This batch is committed.
    Stored(Stored),
}

/// A committed batch.
pub struct Stored {
    /// The subscription it came from.
    pub session: u64,
    /// Its number there.
    pub batch: u64,
    /// The delivery tags of its messages.
    pub tags: Vec<u64>,
}
