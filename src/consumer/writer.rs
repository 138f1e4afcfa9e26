//! A batch's tickets into PostgreSQL, however long that takes.
//!
//! A batch that cannot be stored as a whole because of one of its tickets is
//! halved until that ticket stands alone and goes to `dead_tickets`. Whatever
//! else fails is repeated on a new connection.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::delivery::Message;
use crate::backoff::Backoff;
use crate::clock::now_us;
use crate::copy::{Dead, Encoded, Rows};
use crate::health::Health;
use crate::message::Record;
use crate::metrics::StoreMetrics;
use crate::parser::parse;
use crate::store::{Failure, Store, migrate};
use crate::ticket::text;

/// A row of COPY data takes about this much more than the ticket's text.
const ROW_OVERHEAD_BYTES: usize = 128;

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

/// What is to be done with one ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Store,
    /// It is stored already.
    Duplicate,
    /// It goes to `dead_tickets` for this reason.
    Dead(String),
}

/// The tickets of a batch and what is to be done with each, in the order of
/// their ids: two writers that store the same tickets then wait for each other
/// instead of both for ever.
struct Plan<'a> {
    records: Vec<Record<'a>>,
    verdicts: Vec<Verdict>,
    /// Ids that may well be stored already, and are asked for first.
    suspects: Vec<Uuid>,
    /// How long PostgreSQL may take over the rows.
    spread: Duration,
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
}

impl Writer {
    /// Not connected yet. `index` is its place among the writers.
    pub fn new(
        index: usize,
        config: tokio_postgres::Config,
        jobs: mpsc::Receiver<Job>,
        events: mpsc::Sender<Event>,
        health: Arc<Health>,
    ) -> Self {
        Self {
            index,
            config,
            jobs,
            events,
            health,
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
            .record(u32::try_from(plan.records.len()).map_or(f64::MAX, f64::from));
        let mut backoff = Backoff::new();
        let mut ranges = Vec::from([Range {
            start: 0,
            end: plan.records.len(),
        }]);
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
                Err(Failure::Conflict(why) | Failure::Data(why)) => plan.bury(range.start, why),
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
            plan.settle(0..plan.records.len(), &stored);
            plan.suspects.clear();
        }
        match self.flush(plan, range.clone()).await {
            Err(Failure::Conflict(why)) => {
                self.metrics.failed("conflict");
                let stored = self.store()?.stored_texts(&plan.ids(range.clone())).await?;
                if !plan.settle(range.clone(), &stored) {
                    return Err(Failure::Conflict(why));
                }
                self.flush(plan, range).await
            }
            flushed => flushed,
        }
    }

    async fn flush(&mut self, plan: &Plan<'_>, range: Range<usize>) -> Result<(), Failure> {
        let started = Instant::now();
        let rows = plan.encode(range.clone());
        self.metrics.encode.record(started.elapsed());
        self.store()?.flush(&rows, plan.spread).await?;
        self.count(plan, range, &rows);
        Ok(())
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
        for record in plan.records.get(range).unwrap_or_default() {
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

/// What is stored of these messages if none of their tickets was stored before.
pub fn rows_of(messages: &[Message]) -> Encoded<'_> {
    let plan = Plan::new(messages, Duration::ZERO);
    plan.encode(0..plan.records.len())
}

impl<'a> Plan<'a> {
    /// Everything is to be stored, except what cannot even be read.
    fn new(messages: &'a [Message], spread: Duration) -> Self {
        let mut suspects = Vec::new();
        let mut tickets = Vec::new();
        for message in messages {
            for (record, dead) in message.records() {
                // Ids of version 7 are ours, and new with each ticket; others are made from keys.
                if message.redelivered || record.id.get_version_num() != 7 {
                    suspects.push(record.id);
                }
                let verdict =
                    dead.map_or(Verdict::Store, |reason| Verdict::Dead(reason.to_owned()));
                tickets.push((record, verdict));
            }
        }
        // Stable, so that the first of an id stays the first.
        tickets.sort_by_key(|(record, _)| record.id);
        let (records, verdicts) = tickets.into_iter().unzip();
        Self {
            records,
            verdicts,
            suspects,
            spread,
        }
    }

    /// Reads tickets and writes their rows, in one pass over their bytes.
    fn encode(&self, range: Range<usize>) -> Encoded<'a> {
        let records = self.records.get(range.clone()).unwrap_or_default();
        let verdicts = self.verdicts.get(range).unwrap_or_default();
        let bytes: usize = records
            .iter()
            .map(|record| record.body.len() + ROW_OVERHEAD_BYTES)
            .sum();
        let mut rows = Rows::new(bytes);
        let mut products = Vec::new();
        for (record, verdict) in records.iter().zip(verdicts) {
            let dead = |reason: String| Dead {
                ticket_id: record.id,
                reason,
                body: record.body,
            };
            match (verdict, text(record.body)) {
                (Verdict::Duplicate, _) => {}
                (Verdict::Dead(reason), _) => rows.dead(dead(reason.clone())),
                (Verdict::Store, Err(why)) => rows.dead(dead(why.to_string())),
                (Verdict::Store, Ok(text)) => {
                    let ticket = parse(text, &mut products);
                    rows.ticket(
                        record.id,
                        record.received_at_us,
                        text,
                        &ticket,
                        &mut products,
                    );
                }
            }
        }
        rows.finish()
    }

    fn ids(&self, range: Range<usize>) -> Vec<Uuid> {
        self.records
            .get(range)
            .unwrap_or_default()
            .iter()
            .map(|record| record.id)
            .collect()
    }

    /// The first ticket of an id stays. The same text again is a duplicate;
    /// another text is a key used for two tickets. False if nothing changed.
    fn settle(&mut self, range: Range<usize>, stored: &HashMap<Uuid, String>) -> bool {
        let records = self.records.get(range.clone()).unwrap_or_default();
        let verdicts = self.verdicts.get_mut(range).unwrap_or_default();
        let mut first: Option<Record<'_>> = None;
        let mut changed = false;
        for (record, verdict) in records.iter().zip(verdicts) {
            if *verdict != Verdict::Store || text(record.body).is_err() {
                continue;
            }
            let before = stored.get(&record.id).map(String::as_bytes);
            let before = before.or(first
                .filter(|first| first.id == record.id)
                .map(|first| first.body));
            match before {
                None => {
                    first = Some(*record);
                    continue;
                }
                Some(body) if body == record.body => *verdict = Verdict::Duplicate,
                Some(_) => {
                    *verdict =
                        Verdict::Dead("the idempotency key was used with another body".into())
                }
            }
            changed = true;
        }
        changed
    }

    /// Sends one ticket to `dead_tickets`; an error if that is what PostgreSQL refused.
    fn bury(&mut self, at: usize, why: String) -> Result<(), Failure> {
        match self.verdicts.get_mut(at) {
            Some(verdict @ Verdict::Store) => {
                error!("a ticket cannot be stored and goes to dead_tickets: {why}");
                *verdict = Verdict::Dead(why);
                Ok(())
            }
            _ => Err(Failure::Away(why)),
        }
    }
}
