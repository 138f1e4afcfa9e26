//! What the process knows of its own state, for /readyz and for refusing early.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// The state of each part; written by the part, read by http.
#[derive(Debug, Default)]
pub struct Health {
    publishes: bool,
    publishing: AtomicBool,
    consumes: bool,
    consuming: AtomicBool,
    writers_up: AtomicU32,
    draining: AtomicBool,
}

/// What /readyz answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readiness {
    /// The publisher's link is up and not blocked; none where nothing is published.
    pub publishing: Option<bool>,
    /// Deliveries are coming in; none where nothing is consumed.
    pub consuming: Option<bool>,
    /// PostgreSQL can be written to; none where nothing is consumed.
    pub database: Option<bool>,
    /// The process is ending.
    pub draining: bool,
}

impl Health {
    /// Nothing is up yet; each flag says whether the process has that part at all.
    pub fn new(publishes: bool, consumes: bool) -> Self {
        Self {
            publishes,
            consumes,
            ..Self::default()
        }
    }

    /// The publisher's link came up, or went away, or RabbitMQ blocked it.
    pub fn publishing(&self, up: bool) {
        self.publishing.store(up, Ordering::Relaxed);
    }

    /// The consumer is subscribed, or no longer.
    pub fn consuming(&self, up: bool) {
        self.consuming.store(up, Ordering::Relaxed);
    }

    /// A writer's connection to PostgreSQL came up, or went away.
    pub fn writer_up(&self, up: bool) {
        if up {
            self.writers_up.fetch_add(1, Ordering::Relaxed);
        } else {
            self.writers_up.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// From now on nothing new is taken.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the process is ending.
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// The answer to /readyz.
    pub fn readiness(&self) -> Readiness {
        let up = |part: &AtomicBool| part.load(Ordering::Relaxed);
        Readiness {
            publishing: self.publishes.then(|| up(&self.publishing)),
            consuming: self.consumes.then(|| up(&self.consuming)),
            database: self
                .consumes
                .then(|| self.writers_up.load(Ordering::Relaxed) > 0),
            draining: self.draining(),
        }
    }
}

impl Readiness {
    /// Everything that this process needs is there.
    pub fn ready(self) -> bool {
        let up = |part: Option<bool>| part.unwrap_or(true);
        up(self.publishing) && up(self.consuming) && up(self.database) && !self.draining
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_needs_every_part_of_the_role() {
        let health = Health::new(true, true);
        health.consuming(true);
        health.writer_up(true);
        assert!(!health.readiness().ready(), "nothing can be published");
        health.publishing(true);
        assert!(health.readiness().ready());
        health.writer_up(false);
        assert!(!health.readiness().ready(), "database away");
    }

    #[test]
    fn an_accept_role_does_not_wait_for_the_database() {
        let health = Health::new(true, false);
        health.publishing(true);
        assert!(health.readiness().ready());
        health.drain();
        assert!(!health.readiness().ready());
    }
}
