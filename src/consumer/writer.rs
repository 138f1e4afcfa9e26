//! A batch's tickets into PostgreSQL, however long that takes.
//!
//! A batch that cannot be stored as a whole because of one of its tickets is
//! halved until that ticket stands alone and goes to `dead_tickets`, unless the
//! fault is the tables': then it is held. Whatever else fails is repeated on a
//! new connection.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use super::bisect::{Next, Search};
use super::dedup::Plan;
use super::evidence::{Evidence, Kind};
use super::held::Held;
use super::job::{Job, StoredBatch, WriterEvent};
use super::known_products::KnownProducts;
use crate::backoff::Backoff;
use crate::clock::now_us;
use crate::config::DatabaseConfig;
use crate::health::Health;
use crate::metrics::{FlushFailed, StoreMetrics};
use crate::store::Encoded;
use crate::store::{Store, StoreError, Tables, ensure_schema};

/// One connection that stores.
pub struct Writer {
    index: usize,
    config: DatabaseConfig,
    jobs: mpsc::Receiver<Job>,
    events: mpsc::Sender<WriterEvent>,
    health: Arc<Health>,
    metrics: StoreMetrics,
    store: Option<Store>,
    /// Shared by all writers of the consumer.
    known: Arc<Mutex<KnownProducts>>,
    /// What the writers together know of the tables.
    evidence: Arc<Evidence>,
    held: Held,
}

/// What became of an attempt to store a batch.
enum Outcome {
    /// All of it is committed.
    Stored,
    /// Nobody could acknowledge it any more.
    Abandoned,
    /// Some of it may be refused for the tables' sake, and has to wait.
    Refused,
}

impl Writer {
    /// Not connected yet. `index` is its place among the writers.
    pub fn new(
        index: usize,
        config: DatabaseConfig,
        jobs: mpsc::Receiver<Job>,
        events: mpsc::Sender<WriterEvent>,
        health: Arc<Health>,
        known: Arc<Mutex<KnownProducts>>,
        evidence: Arc<Evidence>,
    ) -> Self {
        let metrics = StoreMetrics::new();
        Self {
            index,
            config,
            jobs,
            events,
            held: Held::new(health.clone(), metrics.clone()),
            health,
            known,
            metrics,
            store: None,
            evidence,
        }
    }

    /// Stores one batch after the other, until no more can come.
    pub async fn run(mut self) {
        // Said once for each batch, so that no second one is handed out
        // while the first waits for a connection.
        let mut said_idle = false;
        loop {
            self.connect(&AtomicBool::new(false)).await;
            if !said_idle
                && self
                    .events
                    .send(WriterEvent::Idle(self.index))
                    .await
                    .is_err()
            {
                return;
            }
            said_idle = true;
            let job = tokio::select! {
                job = self.jobs.recv() => job,
                () = closed(self.store.as_mut()) => {
                    self.disconnect();
                    continue;
                }
                () = due(self.held.due()) => {
                    self.store_held().await;
                    continue;
                }
            };
            let Some(job) = job else { return };
            said_idle = false;
            let search = self.search(&job);
            let stored = self.store_or_hold(job, search).await;
            self.held.settle();
            if stored {
                self.held.compare(&self.evidence);
            }
        }
    }

    /// Tries what is held again, until one batch has to wait once more.
    async fn store_held(&mut self) {
        for _ in 0..self.held.len() {
            let Some((job, search)) = self.held.pop() else {
                break;
            };
            if !self.store_or_hold(job, search).await {
                break;
            }
        }
        self.held.settle();
    }

    /// Stores a batch and says so, or holds it. False: it is held.
    async fn store_or_hold(&mut self, job: Job, mut search: Search) -> bool {
        match self.write(&job, &mut search).await {
            Outcome::Refused => {
                self.held.push(job, search);
                return false;
            }
            Outcome::Abandoned => {}
            Outcome::Stored => {
                let tags = job.messages.iter().map(|message| message.tag).collect();
                // Without a listener the whole consumer has ended.
                let stored = StoredBatch {
                    subscription: job.subscription,
                    batch: job.batch,
                    tags,
                };
                let _unheard = self.events.send(WriterEvent::Stored(stored)).await;
            }
        }
        true
    }

    /// A new batch, of which nothing was tried yet.
    fn search(&self, job: &Job) -> Search {
        let tickets = job.messages.iter().map(|message| message.tickets).sum();
        self.metrics
            .batch_rows
            .record(u32::try_from(tickets).map_or(f64::MAX, f64::from));
        Search::new(0..tickets, &self.evidence)
    }

    /// Stores a batch, or as much of it as the search gets to.
    async fn write(&mut self, job: &Job, search: &mut Search) -> Outcome {
        let mut plan = Plan::new(&job.messages, job.pacing);
        let mut backoff = Backoff::new();
        while let Some(range) = search.next(&self.evidence) {
            let failure = match self.attempt(&mut plan, range.clone()).await {
                Ok(()) => continue,
                Err(failure) => match self.refused(&mut plan, search, &range, failure).await {
                    Ok(()) => continue,
                    Err(failure) => failure,
                },
            };
            match failure {
                StoreError::Timeout(_) if range.len() > 1 => search.halve(&range),
                _ => search.again(range),
            }
            warn!("storing a batch failed and is repeated: {failure:#}");
            self.metrics.failed(failure.reason());
            self.held.unfit(matches!(failure, StoreError::Schema(_)));
            self.disconnect();
            self.ensure_schema(&failure).await;
            tokio::time::sleep(backoff.next()).await;
            if !self.connect(&job.abandoned).await {
                return Outcome::Abandoned;
            }
        }
        if search.is_done() {
            Outcome::Stored
        } else {
            Outcome::Refused
        }
    }

    /// Decides what becomes of tickets that PostgreSQL refuses. An error where
    /// that is not what has failed.
    async fn refused(
        &mut self,
        plan: &mut Plan<'_>,
        search: &mut Search,
        range: &Range<usize>,
        failure: StoreError,
    ) -> Result<(), StoreError> {
        let (why, products) = match failure {
            StoreError::Products(why) => (why, true),
            StoreError::Conflict(why) | StoreError::Unique(why) | StoreError::Data(why) => {
                (why, false)
            }
            other => return Err(other),
        };
        self.metrics.failed(FlushFailed::Data);
        if range.len() > 1 {
            debug!(
                tickets = range.len(),
                "halving a batch to find what PostgreSQL refuses: {why}"
            );
            search.halve(range);
            return Ok(());
        }
        let at = range.start;
        let kind = match plan.kind(at) {
            Some(_) if products => Kind::Products,
            Some(kind) => kind,
            // It is dead_tickets that refuses it, or nothing that can be told.
            None => return Err(StoreError::Unavailable(why)),
        };
        match search.refused(at, kind, plan.is_alone(at), &self.evidence) {
            Next::SetAside => {
                error!("a ticket cannot be stored and goes to dead_tickets: {why}");
                plan.dead_letter(at, &why.to_string());
                self.dismiss(plan, range.clone());
                search.again(range.clone());
            }
            Next::Compare if self.takes_another(kind).await? => search.again(range.clone()),
            Next::Compare => search.wait(at, kind),
            Next::Wait => {}
        }
        search.why = why.to_string();
        Ok(())
    }

    /// Whether the tables would take a copy of a ticket that was stored.
    async fn takes_another(&mut self, kind: Kind) -> Result<bool, StoreError> {
        let Some(sample) = self.evidence.sample(kind) else {
            return Ok(false);
        };
        let plan = Plan::copy_of(&sample, Uuid::now_v7());
        let mut none_known = KnownProducts::new(Duration::ZERO);
        let (rows, changes) = plan.encode(plan.all(), &mut none_known, Instant::now());
        let tried = self.store()?.try_out(&rows, &changes.rows).await;
        match tried {
            // A key that somebody else has put on the table is the copy's own affair.
            Ok(()) | Err(StoreError::Unique(_)) => {
                self.evidence.took(kind);
                Ok(true)
            }
            Err(StoreError::Data(_) | StoreError::Products(_) | StoreError::Conflict(_)) => {
                Ok(false)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Stores these tickets. If some of them turn out to be stored already, it
    /// stores the others; a conflict that is left has another cause.
    async fn attempt(
        &mut self,
        plan: &mut Plan<'_>,
        range: Range<usize>,
    ) -> Result<(), StoreError> {
        if !plan.possible_duplicates.is_empty() {
            let stored = self
                .store()?
                .stored_texts(&plan.possible_duplicates)
                .await?;
            plan.settle(plan.all(), &stored);
            plan.possible_duplicates.clear();
        }
        match self.flush(plan, range.clone()).await {
            Err(StoreError::Conflict(why)) => {
                self.metrics.failed(FlushFailed::Conflict);
                let whole = plan.with_whole_ids(range.clone());
                let stored = self.store()?.stored_texts(&plan.ids(whole.clone())).await?;
                if !plan.settle(whole.clone(), &stored) {
                    return Err(StoreError::Conflict(why));
                }
                self.dismiss(plan, whole);
                self.flush(plan, range).await
            }
            flushed => flushed,
        }
    }

    async fn flush(&mut self, plan: &Plan<'_>, range: Range<usize>) -> Result<(), StoreError> {
        let started = Instant::now();
        let (rows, changes) = plan.encode(range.clone(), &mut self.known(), started);
        self.metrics.encode.record(started.elapsed());
        let flushed = match self.store() {
            Ok(store) => store.flush(&rows, &changes.rows, plan.pacing).await,
            Err(failure) => Err(failure),
        };
        match flushed {
            Ok(written) => self.known().committed(&changes, &written, Instant::now()),
            Err(failure) => {
                self.known().failed(&changes);
                return Err(failure);
            }
        }
        self.held.unfit(false);
        plan.vouch(
            range.clone(),
            &rows,
            !changes.rows.is_empty(),
            &self.evidence,
        );
        self.count(plan, range, &rows);
        Ok(())
    }

    /// What was encoded before it was found to be dead must not count as seen.
    fn dismiss(&self, plan: &Plan<'_>, range: Range<usize>) {
        let dead = plan.dead(range);
        if !dead.is_empty() {
            self.known().dismiss(&dead);
        }
    }

    fn known(&self) -> MutexGuard<'_, KnownProducts> {
        // Nothing panics while it holds the lock.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&mut self) -> Result<&mut Store, StoreError> {
        self.store
            .as_mut()
            .ok_or_else(|| StoreError::Unavailable("not connected".into()))
    }

    fn count(&self, plan: &Plan<'_>, range: Range<usize>, rows: &Encoded<'_>) {
        self.metrics.valid.increment(rows.valid);
        self.metrics.invalid.increment(rows.invalid);
        self.metrics.dead.increment(rows.dead.len() as u64);
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

    /// Connects, however long it takes; false once the work at hand is abandoned.
    async fn connect(&mut self, abandoned: &AtomicBool) -> bool {
        let mut backoff = Backoff::new();
        while self.store.is_none() {
            if abandoned.load(Ordering::Relaxed) {
                return false;
            }
            let opened = Store::open(&self.config, self.metrics.clone()).await;
            match opened {
                Ok(store) => {
                    info!("storing in PostgreSQL");
                    self.store = Some(store);
                    self.metrics.pg_connected.increment(1.0);
                    self.health.writer_up(true);
                }
                Err(failure) => {
                    warn!("no connection to PostgreSQL for storing: {failure:#}");
                    self.ensure_schema(&failure).await;
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
        true
    }

    /// Ensures the schema again, when that is what failed: another database may
    /// have taken the place of the first.
    async fn ensure_schema(&self, failure: &StoreError) {
        let StoreError::Schema(_) = failure else {
            return;
        };
        match ensure_schema(&self.config).await {
            Ok(Tables::Ready) => {}
            Ok(held @ Tables::NeedMigrate(_)) => warn!("{held}"),
            Err(failure) => {
                warn!("schema migration failed: {failure:#}");
            }
        }
    }

    fn disconnect(&mut self) {
        if self.store.take().is_some() {
            self.known().disconnected();
            self.metrics.pg_connected.decrement(1.0);
            self.health.writer_up(false);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.disconnect();
    }
}

/// Waits until then; for ever if there is no such time.
async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

async fn closed(store: Option<&mut Store>) {
    match store {
        Some(store) => store.closed().await,
        None => std::future::pending().await,
    }
}
