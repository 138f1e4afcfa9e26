//! The batches that the tables refuse, until they accept them.

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

/// How often it is logged again that tickets are refused.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// What one writer holds, and when it tries again. How much that may be is bounded by what RabbitMQ
/// delivers without an acknowledgement.
pub(super) struct HeldBatches {
    batches: VecDeque<(Job, Search)>,
    pause: Backoff,
    due: Option<Instant>,
    logged: Option<Instant>,
    /// How many tickets the metric counts.
    counted: u32,
    /// Whether the tables cannot store a ticket as they are.
    schema_unusable: bool,
    /// Whether health knows of either.
    refusing: bool,
    health: Arc<Health>,
    metrics: StoreMetrics,
}

impl HeldBatches {
    /// Nothing is held.
    pub(super) fn new(health: Arc<Health>, metrics: StoreMetrics) -> Self {
        Self {
            batches: VecDeque::new(),
            pause: Backoff::new(),
            due: None,
            logged: None,
            counted: 0,
            schema_unusable: false,
            refusing: false,
            health,
            metrics,
        }
    }

    /// Keeps a batch whose search has ended without storing all of it.
    pub(super) fn push(&mut self, job: Job, mut search: Search) {
        self.metrics.failed(FlushFailed::Refused);
        search.restart(fastrand::usize(..search.remaining().max(1)));
        if self
            .logged
            .is_none_or(|logged| logged.elapsed() > LOG_EVERY)
        {
            self.logged = Some(Instant::now());
            error!(
                error = %search.reason,
                tickets = search.remaining(),
                "PostgreSQL refuses tickets and has accepted no other, so the tables may be at fault. \
                None goes to dead_tickets; they are held and retried until one is accepted"
            );
        }
        self.batches.push_back((job, search));
    }

    /// The batch that was tried longest ago.
    pub(super) fn pop(&mut self) -> Option<(Job, Search)> {
        self.batches
            .retain(|(job, _)| !job.abandoned.load(Ordering::Relaxed));
        self.batches.pop_front()
    }

    /// How many batches are held.
    pub(super) fn len(&self) -> usize {
        self.batches.len()
    }

    /// When the next attempt is due; none while nothing is held.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Another batch was stored: what can be compared with it is retried at once.
    pub(super) fn retry_comparable(&mut self, evidence: &Evidence) {
        let mut searches = self.batches.iter().map(|(_, search)| search);
        if searches.any(|search| search.can_continue(evidence)) {
            self.due = Some(Instant::now());
        }
    }

    /// Attempts have ended for now. Reports what is held, and schedules the next attempt.
    pub(super) fn schedule(&mut self) {
        let now = Instant::now();
        self.due = match self.due {
            _ if self.batches.is_empty() => None,
            Some(due) if due > now => Some(due),
            _ => Some(now + self.pause.next()),
        };
        let held = self
            .batches
            .iter()
            .map(|(_, search)| search.remaining())
            .sum::<usize>();
        let held = u32::try_from(held).unwrap_or(u32::MAX);
        self.metrics.refusing(self.counted, held);
        self.counted = held;
        self.report_health();
        if held == 0 && self.logged.take().is_some() {
            info!("no tickets are held any more");
            self.pause.reset();
        }
    }

    /// The tables cannot store a ticket as they are, or have stored some.
    pub(super) fn set_schema_unusable(&mut self, unusable: bool) {
        self.schema_unusable = unusable;
        self.report_health();
    }

    fn report_health(&mut self) {
        let refusing = self.schema_unusable || self.counted > 0;
        if refusing != self.refusing {
            self.refusing = refusing;
            self.health.refusing(refusing);
        }
    }
}

impl Drop for HeldBatches {
    fn drop(&mut self) {
        self.batches.clear();
        self.schema_unusable = false;
        self.schedule();
    }
}
