//! A batch's tickets into PostgreSQL, however long that takes.
//!
//! A batch that cannot be stored as a whole because of one of its tickets is halved until that
//! ticket stands alone and is dead-lettered, unless the fault is the tables': then it is held.
//! Whatever else fails is retried on a new connection.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until};
use tracing::{debug, warn};

use super::bisect::{OnRefusal, Search};
use super::dedup::Plan;
use super::evidence::{Evidence, Kind};
use super::flusher::{Flusher, Shared};
use super::held::HeldBatches;
use super::job::{Job, StoredBatch, WriterEvent};
use crate::backoff::Backoff;
use crate::metrics::{FlushFailed, StoreMetrics};
use crate::store::{Comparison, StoreError};

/// Stores one batch at a time, over one connection.
pub(super) struct Writer {
    index: usize,
    jobs: mpsc::Receiver<Job>,
    events: mpsc::Sender<WriterEvent>,
    metrics: StoreMetrics,
    flusher: Flusher,
    evidence: Arc<Evidence>,
    held: HeldBatches,
}

/// What became of an attempt to store a batch.
enum BatchOutcome {
    /// All of it is committed; whether some of it was there already.
    Stored(bool),
    /// Nobody could acknowledge it any more.
    Abandoned,
    /// Some of it may be refused because of the tables, and has to wait.
    Refused(Search),
}

impl Writer {
    /// Not connected yet. `index` is its place among the writers.
    pub(super) fn new(
        index: usize,
        jobs: mpsc::Receiver<Job>,
        events: mpsc::Sender<WriterEvent>,
        shared: Shared,
    ) -> Self {
        let metrics = StoreMetrics::new();
        Self {
            index,
            jobs,
            events,
            held: HeldBatches::new(shared.health.clone(), metrics.clone()),
            evidence: shared.evidence.clone(),
            flusher: Flusher::new(shared, metrics.clone()),
            metrics,
        }
    }

    /// Stores one batch after the other, until no more can come.
    pub(super) async fn run(mut self) {
        // Once for each batch, so that no second one is dispatched while the first waits for a
        // connection.
        let mut reported_idle = false;
        loop {
            self.flusher.connect(&AtomicBool::new(false)).await;
            if !reported_idle && !self.report(WriterEvent::Idle(self.index)).await {
                return;
            }
            reported_idle = true;
            let job = tokio::select! {
                job = self.jobs.recv() => job,
                () = self.flusher.closed() => continue,
                () = due(self.held.due()) => {
                    self.store_held().await;
                    continue;
                }
            };
            let Some(job) = job else { return };
            reported_idle = false;
            self.count(&job);
            let stored = self.store_or_hold(job, None).await;
            self.held.schedule();
            if stored {
                self.held.retry_comparable(&self.evidence);
            }
        }
    }

    /// Tells the consumer; false if that has ended.
    async fn report(&self, event: WriterEvent) -> bool {
        self.events.send(event).await.is_ok()
    }

    /// Retries what is held, until one batch has to wait once more.
    async fn store_held(&mut self) {
        for _ in 0..self.held.len() {
            let Some((job, search)) = self.held.pop() else {
                break;
            };
            if !self.store_or_hold(job, Some(search)).await {
                break;
            }
        }
        self.held.schedule();
    }

    /// Stores a batch and reports it, or holds it. False: it is held. Without a search, nothing of
    /// it was tried yet.
    async fn store_or_hold(&mut self, job: Job, search: Option<Search>) -> bool {
        match self.write(&job, search).await {
            BatchOutcome::Refused(search) => {
                self.held.push(job, search);
                return false;
            }
            BatchOutcome::Abandoned => {}
            BatchOutcome::Stored(met_stored) => {
                let tags = job.messages.iter().map(|message| message.tag).collect();
                let stored = StoredBatch {
                    subscription: job.subscription,
                    batch: job.batch,
                    tags,
                    met_stored,
                };
                self.report(WriterEvent::Stored(stored)).await;
            }
        }
        true
    }

    fn count(&self, job: &Job) {
        let tickets: usize = job.messages.iter().map(|message| message.tickets).sum();
        self.metrics
            .batch_rows
            .record(u32::try_from(tickets).map_or(f64::MAX, f64::from));
    }

    /// Stores a batch, or as much of it as the search gets to, which is for ids and not for tickets:
    /// those of one id are stored together.
    async fn write(&mut self, job: &Job, search: Option<Search>) -> BatchOutcome {
        let mut plan = Plan::new(&job.messages, job.pacing);
        let mut search = search.unwrap_or_else(|| Search::new(0..plan.ids_len(), &self.evidence));
        let mut backoff = Backoff::new();
        while let Some(ids) = search.next(&self.evidence) {
            let range = plan.tickets_of(&ids);
            let error = match self.flusher.store(&mut plan, range.clone()).await {
                Ok(()) => {
                    self.held.set_schema_unusable(false);
                    continue;
                }
                Err(error) => match self.on_refusal(&mut plan, &mut search, &ids, error).await {
                    Ok(()) => continue,
                    Err(error) => error,
                },
            };
            let (batch, tickets) = (job.batch, range.len());
            warn!(error = %format_args!("{error:#}"), batch, tickets, "flush failed, retrying");
            match error {
                StoreError::Timeout(_) if ids.len() > 1 => search.halve(&ids),
                _ => search.retry(ids),
            }
            self.metrics.failed(error.reason());
            let unusable = matches!(error, StoreError::Schema(_));
            self.held.set_schema_unusable(unusable);
            self.flusher.disconnect(&error).await;
            plan.reopen();
            sleep(backoff.next()).await;
            if !self.flusher.connect(&job.abandoned).await {
                return BatchOutcome::Abandoned;
            }
        }
        if search.is_done() {
            BatchOutcome::Stored(plan.has_stored())
        } else {
            BatchOutcome::Refused(search)
        }
    }

    /// Decides what becomes of tickets that PostgreSQL refuses. An error if something else has
    /// failed.
    async fn on_refusal(
        &mut self,
        plan: &mut Plan<'_>,
        search: &mut Search,
        ids: &Range<usize>,
        error: StoreError,
    ) -> Result<(), StoreError> {
        let (cause, products) = match error {
            StoreError::Products(cause) => (cause, true),
            StoreError::Conflict(cause) | StoreError::Unique(cause) | StoreError::Data(cause) => {
                (cause, false)
            }
            other => return Err(other),
        };
        self.metrics.failed(FlushFailed::Data);
        if ids.len() > 1 {
            debug!(error = %cause, ids = ids.len(), "bisecting a batch that PostgreSQL refuses");
            search.halve(ids);
            return Ok(());
        }
        let range = plan.tickets_of(ids);
        let (at, kind) = match plan.candidate(range.clone()) {
            Some((at, _)) if products => (at, Kind::Products),
            Some(candidate) => candidate,
            // dead_tickets refuses it, or the cause is not known.
            None => return Err(StoreError::Unavailable(cause)),
        };
        match search.on_refusal(ids.start, kind, plan.is_alone(at), &self.evidence) {
            OnRefusal::DeadLetter if !self.is_at_fault(plan, search, ids, at, kind).await? => {}
            OnRefusal::DeadLetter => {
                debug!(error = %cause, "a ticket cannot be stored and goes to dead_tickets");
                plan.dead_letter(at, range.clone(), &cause.to_string());
                self.flusher.dismiss(plan, range);
                search.retry(ids.clone());
            }
            OnRefusal::Compare if self.flusher.accepts_copy(kind).await? => {
                search.retry(ids.clone());
            }
            OnRefusal::Compare => search.wait(ids.start, kind),
            OnRefusal::Wait => {}
        }
        search.reason = cause.to_string();
        Ok(())
    }

    /// Whether it is the ticket that is refused, and not everything: what changed the tables before
    /// or after it was refused does not count. If not, it waits, or is retried.
    async fn is_at_fault(
        &mut self,
        plan: &Plan<'_>,
        search: &mut Search,
        ids: &Range<usize>,
        at: usize,
        kind: Kind,
    ) -> Result<bool, StoreError> {
        match self.flusher.compare(plan, at, kind).await? {
            Comparison::OnlyKnownAccepted | Comparison::Unknown => return Ok(true),
            Comparison::NoneAccepted => search.wait(ids.start, kind),
            // It is only refused when it is stored.
            Comparison::BothAccepted if search.was_accepted(ids.start) => return Ok(true),
            Comparison::BothAccepted => search.retry(ids.clone()),
        }
        Ok(false)
    }
}

/// Waits until then; for ever if there is no such time.
async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
