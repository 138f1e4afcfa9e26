//! The batches that the tables refuse, until they take them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::{error, info};

use super::bisect::Search;
use super::evidence::Evidence;
use super::job::Job;
use crate::backoff::Backoff;
use crate::health::Health;
use crate::metrics::{FlushFailed, StoreMetrics};

/// How often it is said again that tickets are refused.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// What one writer holds, and when it tries again. How much that may be is
/// bounded by what RabbitMQ delivers without an acknowledgement.
pub struct Held {
    batches: VecDeque<(Job, Search)>,
    pause: Backoff,
    due: Option<Instant>,
    said: Option<Instant>,
    /// How many tickets the metric has been told of.
    counted: u32,
    /// Whether the tables are not what they should be.
    unfit: bool,
    /// Whether health has been told of either.
    refusing: bool,
    health: Arc<Health>,
    metrics: StoreMetrics,
}

impl Held {
    /// Nothing is held.
    pub fn new(health: Arc<Health>, metrics: StoreMetrics) -> Self {
        Self {
            batches: VecDeque::new(),
            pause: Backoff::new(),
            due: None,
            said: None,
            counted: 0,
            unfit: false,
            refusing: false,
            health,
            metrics,
        }
    }

    /// Keeps a batch whose search has ended without storing all of it.
    pub fn push(&mut self, job: Job, mut search: Search) {
        self.metrics.failed(FlushFailed::Refused);
        search.restart(fastrand::usize(..search.left().max(1)));
        if self.said.is_none_or(|said| said.elapsed() > SAY_EVERY) {
            self.said = Some(Instant::now());
            error!(
                tickets = search.left(),
                "PostgreSQL refuses tickets and has taken no other, so the fault may be the tables'. \
                None goes to dead_tickets; they are held and tried again until one is taken: {}",
                search.why
            );
        }
        self.batches.push_back((job, search));
    }

    /// The batch that was tried longest ago.
    pub fn pop(&mut self) -> Option<(Job, Search)> {
        self.batches
            .retain(|(job, _)| !job.abandoned.load(Ordering::Relaxed));
        self.batches.pop_front()
    }

    /// How many batches are held.
    pub fn len(&self) -> usize {
        self.batches.len()
    }

    /// When the next attempt is due; never while nothing is held.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Another batch was stored: what it tells of is tried again at once.
    pub fn compare(&mut self, evidence: &Evidence) {
        let mut searches = self.batches.iter().map(|(_, search)| search);
        if searches.any(|search| search.may_go_on(evidence)) {
            self.due = Some(Instant::now());
        }
    }

    /// Attempts have ended for now. Says what is held, and decides when it is
    /// tried again.
    pub fn settle(&mut self) {
        let now = Instant::now();
        self.due = match self.due {
            _ if self.batches.is_empty() => None,
            Some(due) if due > now => Some(due),
            _ => Some(now + self.pause.next()),
        };
        let held = self
            .batches
            .iter()
            .map(|(_, search)| search.left())
            .sum::<usize>();
        let held = u32::try_from(held).unwrap_or(u32::MAX);
        self.metrics.refusing(self.counted, held);
        self.counted = held;
        self.tell();
        if held == 0 && self.said.take().is_some() {
            info!("nothing is held any more that PostgreSQL refused");
            self.pause.reset();
        }
    }

    /// The tables cannot take a ticket as they are, or have taken some.
    pub fn unfit(&mut self, unfit: bool) {
        self.unfit = unfit;
        self.tell();
    }

    fn tell(&mut self) {
        let refusing = self.unfit || self.counted > 0;
        if refusing != self.refusing {
            self.refusing = refusing;
            self.health.refusing(refusing);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.batches.clear();
        self.unfit = false;
        self.settle();
    }
}
