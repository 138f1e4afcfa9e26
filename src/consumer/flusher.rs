//! One connection to PostgreSQL, and the tickets of a batch written over it.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tracing::{info, warn};
use uuid::Uuid;

use super::dead_log::DeadLog;
use super::dedup::Plan;
use super::evidence::{Evidence, Kind};
use super::known_products::KnownProducts;
use super::schema::ensure_schema;
use crate::backoff::Backoff;
use crate::clock::now_us;
use crate::config::DatabaseConfig;
use crate::health::Health;
use crate::metrics::{FlushFailed, LinkGuard, StoreMetrics};
use crate::store::{Comparison, Encoded, Store, StoreError};

/// What the writers of a consumer share.
#[derive(Clone)]
pub(super) struct Shared {
    /// Where PostgreSQL is.
    pub database: DatabaseConfig,
    /// What /readyz answers from.
    pub health: Arc<Health>,
    /// What is known of the rows of `products`.
    pub known: Arc<Mutex<KnownProducts>>,
    /// What is known of the tickets that the tables accept.
    pub evidence: Arc<Evidence>,
    /// What the log says of dead tickets.
    pub dead: DeadLog,
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, KnownProducts> {
        // Nothing panics while it holds the lock.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is made again when it fails.
pub(super) struct Flusher {
    shared: Shared,
    metrics: StoreMetrics,
    store: Option<Store>,
    /// PostgreSQL is there, even if the connection is made anew for the tables' sake.
    up: Option<LinkGuard>,
}

impl Flusher {
    /// Not connected yet.
    pub(super) fn new(shared: Shared, metrics: StoreMetrics) -> Self {
        Self {
            shared,
            metrics,
            store: None,
            up: None,
        }
    }

    /// Connects, however long it takes; false once the work at hand is abandoned.
    pub(super) async fn connect(&mut self, abandoned: &AtomicBool) -> bool {
        let mut backoff = Backoff::new();
        while self.store.is_none() {
            if abandoned.load(Ordering::Relaxed) {
                return false;
            }
            let opened = Store::open(&self.shared.database, self.metrics.clone()).await;
            match opened {
                Ok(store) => {
                    info!("storing in PostgreSQL");
                    self.up = self.up.take().or_else(|| Some(self.link_up()));
                    self.store = Some(store);
                }
                Err(error) => {
                    warn!(error = %format_args!("{error:#}"), "no connection to PostgreSQL for storing");
                    self.disconnect(&error).await;
                    sleep(backoff.next()).await;
                }
            }
        }
        true
    }

    /// From now on, and for as long as the guard lives, tickets can be stored over this connection.
    fn link_up(&self) -> LinkGuard {
        let shared = self.shared.clone();
        LinkGuard::new(self.metrics.pg_connected.clone(), move |up| {
            shared.health.writer_up(up);
            if !up {
                shared.known().disconnected();
            }
        })
    }

    /// Disconnects after this error. The schema is ensured again, when that is what failed: another
    /// database may have taken the place of the first. PostgreSQL itself counts as connected then.
    pub(super) async fn disconnect(&mut self, error: &StoreError) {
        self.store = None;
        if let StoreError::Schema(_) = error {
            self.shared.known().disconnected();
            ensure_schema(&self.shared.database).await;
        } else {
            self.up = None;
        }
    }

    /// Waits until the connection ends, and disconnects.
    pub(super) async fn closed(&mut self) {
        match &mut self.store {
            Some(store) => store.closed().await,
            None => std::future::pending().await,
        }
        self.store = None;
        self.up = None;
    }

    /// Stores these tickets, which are all of their ids. If some of them turn out to be stored
    /// already, it stores the others; a conflict that is left has another cause.
    pub(super) async fn store(
        &mut self,
        plan: &mut Plan<'_>,
        range: Range<usize>,
    ) -> Result<(), StoreError> {
        if !plan.possible_duplicates.is_empty() {
            let stored = self.connected()?.stored_texts(&plan.possible_duplicates);
            plan.resolve(plan.all(), &stored.await?);
            plan.possible_duplicates.clear();
        }
        match self.flush(plan, range.clone()).await {
            Err(StoreError::Conflict(cause)) => {
                self.metrics.failed(FlushFailed::Conflict);
                let ids = plan.ids(range.clone());
                let stored = self.connected()?.stored_texts(&ids).await?;
                if !plan.resolve(range.clone(), &stored) {
                    return Err(StoreError::Conflict(cause));
                }
                self.dismiss(plan, range.clone());
                self.flush(plan, range).await
            }
            flushed => flushed,
        }
    }

    async fn flush(&mut self, plan: &Plan<'_>, range: Range<usize>) -> Result<(), StoreError> {
        let started = Instant::now();
        let (rows, changes) = plan.encode(range.clone(), &mut self.shared.known(), started);
        self.metrics.encode.record(started.elapsed());
        let flushed = match self.connected() {
            Ok(store) => store.flush(&rows, &changes.rows, plan.pacing).await,
            Err(error) => Err(error),
        };
        match flushed {
            Ok(written) => {
                let mut known = self.shared.known();
                known.committed(&changes, &written, Instant::now());
            }
            Err(error) => {
                self.shared.known().failed(&changes);
                return Err(error);
            }
        }
        let with_products = !changes.rows.is_empty();
        plan.record_evidence(range.clone(), &rows, with_products, &self.shared.evidence);
        self.count(plan, range, &rows);
        Ok(())
    }

    /// What was encoded before it was found to be dead must not count as seen.
    pub(super) fn dismiss(&self, plan: &Plan<'_>, range: Range<usize>) {
        let dead = plan.dead(range);
        if !dead.is_empty() {
            self.shared.known().dismiss(&dead);
        }
    }

    /// Whether the tables would accept a copy of a ticket that was stored. Nothing is stored.
    pub(super) async fn accepts_copy(&mut self, kind: Kind) -> Result<bool, StoreError> {
        let Some(sample) = self.shared.evidence.sample(kind) else {
            return Ok(false);
        };
        let plan = Plan::copy_of(&sample, Uuid::now_v7());
        let mut none_known = KnownProducts::new(Duration::ZERO);
        let (rows, changes) = plan.encode(plan.all(), &mut none_known, Instant::now());
        let tried = self.connected()?.try_out((&rows, &changes.rows)).await;
        match tried {
            // A unique key that somebody has added to the table is refused for the copy's sake.
            Ok(()) | Err(StoreError::Unique(_)) => {
                self.shared.evidence.accepted(kind);
                Ok(true)
            }
            Err(StoreError::Data(_) | StoreError::Products(_) | StoreError::Conflict(_)) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether a ticket of this kind is refused though the tables accept a copy of a stored one in
    /// the same transaction. Nothing is stored.
    pub(super) async fn compare(
        &mut self,
        plan: &Plan<'_>,
        at: usize,
        kind: Kind,
    ) -> Result<Comparison, StoreError> {
        let Some(sample) = self.shared.evidence.sample(kind) else {
            return Ok(Comparison::Unknown);
        };
        let copy = Plan::copy_of(&sample, Uuid::now_v7());
        let now = Instant::now();
        let mut none_known = [0; 2].map(|_| KnownProducts::new(Duration::ZERO));
        let [of_copy, of_ticket] = &mut none_known;
        let (copied, copied_products) = copy.encode(copy.all(), of_copy, now);
        let (rows, products) = plan.encode(at..at + 1, of_ticket, now);
        let store = self.connected()?;
        let compared = store.compare((&copied, &copied_products.rows), (&rows, &products.rows));
        compared.await
    }

    fn connected(&mut self) -> Result<&mut Store, StoreError> {
        let missing = || StoreError::Unavailable("not connected".into());
        self.store.as_mut().ok_or_else(missing)
    }

    fn count(&self, plan: &Plan<'_>, range: Range<usize>, rows: &Encoded<'_>) {
        self.metrics.valid.increment(rows.valid);
        self.metrics.invalid.increment(rows.invalid);
        self.metrics.dead.increment(rows.dead.len() as u64);
        let reasons = rows.dead.iter().map(|dead| dead.reason.as_str());
        self.shared.dead.add(reasons);
        let duplicates = range.len() as u64 - rows.valid - rows.invalid - rows.dead.len() as u64;
        self.metrics.duplicate.increment(duplicates);
        let now = now_us();
        for record in plan.records(range) {
            // A sender's clock may be ahead of ours.
            let waited_us = u64::try_from(now.saturating_sub(record.received_at_us)).unwrap_or(0);
            self.metrics
                .end_to_end
                .record(Duration::from_micros(waited_us));
        }
    }
}
