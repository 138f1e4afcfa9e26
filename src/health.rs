//! What the process knows of its own state, for /readyz and for rejecting early.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use tokio_util::sync::CancellationToken;

/// The phases of the process, in their order; a shutdown goes through them all.
const SERVING: u8 = 0;
const LAME_DUCK: u8 = 1;
const CLOSING_CONNECTIONS: u8 = 2;
const DRAINING: u8 = 3;

/// The state of each part; written by the part, read by http.
#[derive(Debug, Default)]
pub(crate) struct Health {
    publishes: bool,
    publishing: AtomicBool,
    consumes: bool,
    consuming: AtomicBool,
    writers_up: AtomicU32,
    writers_refused: AtomicU32,
    phase: AtomicU8,
    futile: OnceLock<String>,
    given_up: CancellationToken,
}

/// What /readyz answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Readiness {
    /// The publisher's link is up and not blocked; none where nothing is published.
    pub publishing: Option<bool>,
    /// Deliveries are coming in; none where nothing is consumed.
    pub consuming: Option<bool>,
    /// PostgreSQL can be written to; none where nothing is consumed.
    pub database: Option<bool>,
    /// PostgreSQL is there, but its tables take no ticket.
    pub refusing: bool,
    /// The process is shutting down.
    pub shutting_down: bool,
}

impl Health {
    /// Nothing is up yet; each flag says whether the process has that part at all.
    pub(crate) fn new(publishes: bool, consumes: bool) -> Self {
        Self {
            publishes,
            consumes,
            ..Self::default()
        }
    }

    /// The publisher's link came up, or went away, or RabbitMQ blocked it.
    pub(crate) fn publishing(&self, up: bool) {
        self.publishing.store(up, Ordering::Relaxed);
    }

    /// The consumer is subscribed, or no longer.
    pub(crate) fn consuming(&self, up: bool) {
        self.consuming.store(up, Ordering::Relaxed);
    }

    /// A writer's connection to PostgreSQL came up, or went away.
    pub(crate) fn writer_up(&self, up: bool) {
        if up {
            self.writers_up.fetch_add(1, Ordering::Relaxed);
        } else {
            self.writers_up.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The tables take no ticket from a writer, or do again.
    pub(crate) fn refusing(&self, refusing: bool) {
        if refusing {
            self.writers_refused.fetch_add(1, Ordering::Relaxed);
        } else {
            self.writers_refused.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Says why this process can never do its work as it is set up. The first reason counts.
    pub(crate) fn give_up(&self, why: String) {
        let _later = self.futile.set(why);
        self.given_up.cancel();
    }

    /// Waits until a part gives up; returns why.
    pub(crate) async fn given_up(&self) -> String {
        self.given_up.cancelled().await;
        self.futile.get().cloned().unwrap_or_default()
    }

    /// From now on the process is not ready, though tickets are still accepted.
    pub(crate) fn lame_duck(&self) {
        self.phase.store(LAME_DUCK, Ordering::Relaxed);
    }

    /// From now on every response to a ticket closes its connection.
    pub(crate) fn close_connections(&self) {
        self.phase.store(CLOSING_CONNECTIONS, Ordering::Relaxed);
    }

    /// Whether responses to tickets close their connections.
    pub(crate) fn is_closing_connections(&self) -> bool {
        self.phase.load(Ordering::Relaxed) >= CLOSING_CONNECTIONS
    }

    /// From now on nothing new is accepted.
    pub(crate) fn drain(&self) {
        self.phase.store(DRAINING, Ordering::Relaxed);
    }

    /// Whether nothing new is accepted.
    pub(crate) fn is_draining(&self) -> bool {
        self.phase.load(Ordering::Relaxed) >= DRAINING
    }

    /// The answer to /readyz.
    pub(crate) fn readiness(&self) -> Readiness {
        let up = |part: &AtomicBool| part.load(Ordering::Relaxed);
        Readiness {
            publishing: self.publishes.then(|| up(&self.publishing)),
            consuming: self.consumes.then(|| up(&self.consuming)),
            database: self
                .consumes
                .then(|| self.writers_up.load(Ordering::Relaxed) > 0),
            refusing: self.writers_refused.load(Ordering::Relaxed) > 0,
            shutting_down: self.phase.load(Ordering::Relaxed) != SERVING,
        }
    }
}

impl Readiness {
    /// What this process is there for goes on: tickets are taken or, where none
    /// come in, stored. Accepting them works without the database, too.
    pub(crate) fn is_ready(self) -> bool {
        let up = |part: Option<bool>| part.unwrap_or(true);
        let stores = up(self.consuming) && up(self.database) && !self.refusing;
        self.publishing.unwrap_or(stores) && !self.shutting_down
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_tickets_is_ready_while_they_can_be_published() {
        for consumes in [true, false] {
            let health = Health::new(true, consumes);
            health.consuming(true);
            health.writer_up(true);
            assert!(!health.readiness().is_ready(), "nothing can be published");
            health.publishing(true);
            assert!(health.readiness().is_ready());
            health.refusing(true);
            health.writer_up(false);
            health.consuming(false);
            assert!(health.readiness().is_ready(), "tickets wait in the queue");
        }
    }

    #[test]
    fn who_only_stores_is_ready_while_that_goes_on() {
        let health = Health::new(false, true);
        health.consuming(true);
        assert!(!health.readiness().is_ready(), "database away");
        health.writer_up(true);
        assert!(health.readiness().is_ready());
        health.refusing(true);
        assert!(!health.readiness().is_ready(), "tables that take no ticket");
        health.refusing(false);
        assert!(health.readiness().is_ready());
        health.consuming(false);
        assert!(!health.readiness().is_ready(), "broker away");
    }

    #[test]
    fn the_end_comes_in_steps() {
        let health = Health::new(true, false);
        health.publishing(true);
        let seen = || {
            let ready = health.readiness().is_ready();
            (ready, health.is_closing_connections(), health.is_draining())
        };
        assert_eq!(seen(), (true, false, false));
        health.lame_duck();
        assert_eq!(seen(), (false, false, false));
        health.close_connections();
        assert_eq!(seen(), (false, true, false));
        health.drain();
        assert_eq!(seen(), (false, true, true));
    }
}
