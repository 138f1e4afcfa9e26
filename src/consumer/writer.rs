//! A batch's tickets into PostgreSQL, however long that takes.
//!
//! A batch that cannot be stored as a whole because of one of its tickets is
//! halved until that ticket stands alone and goes to `dead_tickets`. Whatever
//! else fails is repeated on a new connection.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::delivery::Message;
use super::known_products::KnownProducts;
use super::plan::Plan;
use crate::backoff::Backoff;
use crate::clock::now_us;
use crate::copy::Encoded;
use crate::health::Health;
use crate::metrics::StoreMetrics;
use crate::store::{Failure, Store, migrate};

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

/// One connection that stores.
pub struct Writer {
    index: usize,
    config: tokio_postgres::Config,
    jobs: mpsc::Receiver<Job>,
    events: mpsc::Sender<Event>,
    health: Arc<Health>,
    metrics: StoreMetrics,
    store: Option<Store>,
    /// Shared by all writers of the consumer.
    known: Arc<Mutex<KnownProducts>>,
}

impl Writer {
    /// Not connected yet. `index` is its place among the writers.
    pub fn new(
        index: usize,
        config: tokio_postgres::Config,
        jobs: mpsc::Receiver<Job>,
        events: mpsc::Sender<Event>,
        health: Arc<Health>,
        known: Arc<Mutex<KnownProducts>>,
    ) -> Self {
        Self {
            index,
            config,
            jobs,
            events,
            health,
            known,
            metrics: StoreMetrics::new(),
            store: None,
        }
    }

    /// Stores one batch after the other, until no more can come.
    pub async fn run(mut self) {
        // Said once for each batch, so that no second one is handed out
        // while the first waits for a connection.
        let mut said_idle = false;
        loop {
            self.connect(&AtomicBool::new(false)).await;
            if !said_idle && self.events.send(Event::Idle(self.index)).await.is_err() {
                return;
            }
            said_idle = true;
            let job = tokio::select! {
                job = self.jobs.recv() => job,
                () = closed(self.store.as_mut()) => {
                    self.disconnect();
                    continue;
                }
            };
            let Some(job) = job else { return };
            said_idle = false;
            if self.write(&job).await {
                let tags = job.messages.iter().map(|message| message.tag).collect();
                // Without a listener the whole consumer has ended.
                let stored = Stored {
                    session: job.session,
                    batch: job.batch,
                    tags,
                };
                let _unheard = self.events.send(Event::Stored(stored)).await;
            }
        }
    }

    /// Stores a batch. False: it was abandoned before that succeeded.
    async fn write(&mut self, job: &Job) -> bool {
        let mut plan = Plan::new(&job.messages, job.spread);
        self.metrics
            .batch_rows
            .record(u32::try_from(plan.all().len()).map_or(f64::MAX, f64::from));
        let mut backoff = Backoff::new();
        let mut ranges = vec![plan.all()];
        while let Some(range) = ranges.pop() {
            let failure = match self.attempt(&mut plan, range.clone()).await {
                Ok(()) => continue,
                Err(Failure::Conflict(why) | Failure::Data(why)) if range.len() > 1 => {
                    self.metrics.failed("data");
                    info!(
                        tickets = range.len(),
                        "halving a batch to find what PostgreSQL refuses: {why}"
                    );
                    ranges.extend(halves(&range));
                    continue;
                }
                Err(Failure::Conflict(why) | Failure::Data(why)) => {
                    bury(&mut plan, range.start, why)
                }
                Err(other) => Err(other),
            };
            match &failure {
                Err(Failure::Late(_)) if range.len() > 1 => ranges.extend(halves(&range)),
                _ => ranges.push(range),
            }
            if let Err(failure) = failure {
                warn!("storing a batch failed and is repeated: {failure}");
                self.metrics.failed(reason(&failure));
                self.disconnect();
                self.mend(&failure).await;
                tokio::time::sleep(backoff.next()).await;
                if !self.connect(&job.abandoned).await {
                    return false;
                }
            }
        }
        true
    }

    /// Stores these tickets. If some of them turn out to be stored already, it
    /// stores the others; a conflict that is left has another cause.
    async fn attempt(&mut self, plan: &mut Plan<'_>, range: Range<usize>) -> Result<(), Failure> {
        if !plan.suspects.is_empty() {
            let stored = self.store()?.stored_texts(&plan.suspects).await?;
            plan.settle(plan.all(), &stored);
            plan.suspects.clear();
        }
        match self.flush(plan, range.clone()).await {
            Err(Failure::Conflict(why)) => {
                self.metrics.failed("conflict");
                let whole = plan.with_whole_ids(range.clone());
                let stored = self.store()?.stored_texts(&plan.ids(whole.clone())).await?;
                if !plan.settle(whole, &stored) {
                    return Err(Failure::Conflict(why));
                }
                self.flush(plan, range).await
            }
            flushed => flushed,
        }
    }

    async fn flush(&mut self, plan: &Plan<'_>, range: Range<usize>) -> Result<(), Failure> {
        let started = Instant::now();
        let (rows, changes) = plan.encode(range.clone(), &mut self.known(), started);
        self.metrics.encode.record(started.elapsed());
        let flushed = match self.store() {
            Ok(store) => store.flush(&rows, &changes.rows, plan.spread).await,
            Err(failure) => Err(failure),
        };
        match flushed {
            Ok(written) => self.known().committed(&changes, &written, Instant::now()),
            Err(failure) => {
                self.known().failed(&changes);
                return Err(failure);
            }
        }
        self.count(plan, range, &rows);
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, KnownProducts> {
        // Nothing panics while it holds the lock.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&mut self) -> Result<&mut Store, Failure> {
        self.store
            .as_mut()
            .ok_or_else(|| Failure::Away("not connected".into()))
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
                    warn!("no connection to PostgreSQL for storing: {failure}");
                    self.mend(&failure).await;
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
        true
    }

    /// Looks after the tables again, when they are what failed: another
    /// database may have taken the place of the first.
    async fn mend(&self, failure: &Failure) {
        if let Failure::Schema(_) = failure
            && let Err(failure) = migrate(&self.config).await
        {
            warn!("the tables in PostgreSQL could not be looked after: {failure}");
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

fn halves(range: &Range<usize>) -> [Range<usize>; 2] {
    let middle = range.start + range.len() / 2;
    // The last one is taken first.
    [middle..range.end, range.start..middle]
}

/// Sends the ticket that PostgreSQL refuses to `dead_tickets`; an error if that
/// is where it was going.
fn bury(plan: &mut Plan<'_>, at: usize, why: String) -> Result<(), Failure> {
    if !plan.bury(at, &why) {
        return Err(Failure::Away(why));
    }
    error!("a ticket cannot be stored and goes to dead_tickets: {why}");
    Ok(())
}

/// The label in metrics.
fn reason(failure: &Failure) -> &'static str {
    match failure {
        Failure::Conflict(_) => "conflict",
        Failure::Data(_) => "data",
        Failure::Late(_) => "late",
        Failure::Schema(_) => "schema",
        Failure::Away(_) => "away",
    }
}

async fn closed(store: Option<&mut Store>) {
    match store {
        Some(store) => store.closed().await,
        None => std::future::pending().await,
    }
}
