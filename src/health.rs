//! What the process knows of its own state, for /readyz and for refusing early.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// The state of each part; written by the part, read by http.
#[derive(Debug, Default)]
pub struct Health {
    publishers: u32,
    publishers_up: AtomicU32,
    consumes: bool,
    consuming: AtomicBool,
    writers_up: AtomicU32,
    draining: AtomicBool,
}

/// What /readyz answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readiness {
    /// Every publisher's link is up and not blocked; none where nothing is published.
    pub publishing: Option<bool>,
    /// Deliveries are coming in; none where nothing is consumed.
    pub consuming: Option<bool>,
    /// PostgreSQL can be written to; none where nothing is consumed.
    pub database: Option<bool>,
    /// The process is ending.
    pub draining: bool,
}

impl Health {
    /// Nothing is up yet. `publishers` is how many links `accept` keeps, 0 without that role.
    pub fn new(publishers: u32, consumes: bool) -> Self {
        Self {
            publishers,
            consumes,
            ..Self::default()
        }
    }

    /// A publisher's link came up, or went away.
    pub fn publisher_up(&self, up: bool) {
        if up {
            self.publishers_up.fetch_add(1, Ordering::Relaxed);
        } else {
            self.publishers_up.fetch_sub(1, Ordering::Relaxed);
        }
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
        let up = |count: &AtomicU32| count.load(Ordering::Relaxed);
        Readiness {
            publishing: (self.publishers > 0).then(|| up(&self.publishers_up) == self.publishers),
            consuming: self
                .consumes
                .then(|| self.consuming.load(Ordering::Relaxed)),
            database: self.consumes.then(|| up(&self.writers_up) > 0),
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
        let health = Health::new(2, true);
        health.publisher_up(true);
        health.consuming(true);
        health.writer_up(true);
        assert!(!health.readiness().ready(), "one of two publishers");
        health.publisher_up(true);
        assert!(health.readiness().ready());
        health.writer_up(false);
        assert!(!health.readiness().ready(), "database away");
    }

    #[test]
    fn an_accept_role_does_not_wait_for_the_database() {
        let health = Health::new(1, false);
        health.publisher_up(true);
        assert!(health.readiness().ready());
        health.drain();
        assert!(!health.readiness().ready());
    }
}
