//! What handlers look at before they hand a ticket over.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use super::{Limits, Outcome, Refusal};

/// What handlers look at before they hand a ticket over.
pub struct Gate {
    state: AtomicU8,
    tickets: AtomicUsize,
    bytes: AtomicUsize,
    limits: Limits,
}

/// Tickets are taken.
pub const UP: u8 = 0;
/// There is no link to RabbitMQ.
pub const AWAY: u8 = 1;
/// RabbitMQ takes no messages.
pub const BLOCKED: u8 = 2;

impl Gate {
    /// Closed, and empty.
    pub fn new(limits: Limits) -> Self {
        Self {
            state: AtomicU8::new(AWAY),
            tickets: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            limits,
        }
    }

    /// What bounds it.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// How many tickets are between arrival and confirm.
    pub fn tickets(&self) -> usize {
        self.tickets.load(Ordering::Relaxed)
    }

    /// Takes note of a ticket that arrives, or refuses it.
    pub fn enter(&self, bytes: usize) -> Result<(), Refusal> {
        self.check()?;
        let tickets = self.tickets.fetch_add(1, Ordering::Relaxed);
        let held = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if tickets >= self.limits.inflight || held >= self.limits.inflight_bytes {
            self.leave(bytes);
            return Err(Refusal::Overloaded);
        }
        Ok(())
    }

    /// Takes note of a ticket that is answered.
    pub fn leave(&self, bytes: usize) {
        self.tickets.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether tickets are taken, and if not why.
    pub fn state(&self) -> u8 {
        self.state.load(Ordering::Relaxed)
    }

    fn check(&self) -> Outcome {
        match self.state() {
            UP => Ok(()),
            BLOCKED => Err(Refusal::Blocked),
            _ => Err(Refusal::Away),
        }
    }

    /// Says whether tickets are taken, and if not why.
    pub fn set(&self, state: u8) {
        self.state.store(state, Ordering::Relaxed);
    }
}
