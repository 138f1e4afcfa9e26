//! The writers, which of them are idle, and what they report.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::dead_log::DeadLog;
use super::error::SubscriptionError;
use super::flusher::Shared;
use super::job::{Job, StoredBatch, WriterEvent};
use super::known_products::KnownProducts;
use super::writer::Writer;
use crate::config::DatabaseConfig;
use crate::health::Health;

/// All writers of the consumer.
pub(super) struct WriterPool {
    tasks: JoinSet<()>,
    jobs: Vec<mpsc::Sender<Job>>,
    /// Which writers are connected and have nothing to do.
    idle: Vec<bool>,
    events: mpsc::Receiver<WriterEvent>,
    /// Kept so that the events never end.
    _sender: mpsc::Sender<WriterEvent>,
}

impl WriterPool {
    /// Starts so many writers, each of which connects.
    pub(super) fn start(
        writers: u16,
        product_refresh: Duration,
        database: &DatabaseConfig,
        health: &Arc<Health>,
        dead: DeadLog,
    ) -> Self {
        let count = usize::from(writers);
        let (sender, events) = mpsc::channel(2 * count);
        let known = KnownProducts::new(product_refresh);
        let shared = Shared {
            database: database.clone(),
            health: health.clone(),
            known: Arc::new(Mutex::new(known)),
            evidence: Arc::default(),
            dead,
        };
        let mut tasks = JoinSet::new();
        let start = |index| {
            let (jobs, work) = mpsc::channel(1);
            let writer = Writer::new(index, work, sender.clone(), shared.clone());
            tasks.spawn(writer.run());
            jobs
        };
        Self {
            jobs: (0..count).map(start).collect(),
            tasks,
            idle: vec![false; count],
            events,
            _sender: sender,
        }
    }

    /// Whether a writer could store a batch now.
    pub(super) fn has_idle(&self) -> bool {
        self.idle.contains(&true)
    }

    /// Waits until a writer could store a batch. What is stored meanwhile is of an earlier
    /// subscription, which cannot acknowledge it any more.
    pub(super) async fn wait_for_idle(&mut self) {
        while !self.has_idle() {
            let _earlier = self.next_event().await;
        }
    }

    /// Waits for a writer's next event; returns the batch that it stored, if that is the event.
    pub(super) async fn next_event(&mut self) -> Option<StoredBatch> {
        let event = self.events.recv().await?;
        self.on_writer_event(event)
    }

    fn on_writer_event(&mut self, event: WriterEvent) -> Option<StoredBatch> {
        match event {
            WriterEvent::Idle(writer) => {
                if let Some(idle) = self.idle.get_mut(writer) {
                    *idle = true;
                }
                None
            }
            WriterEvent::Stored(batch) => Some(batch),
        }
    }

    /// Gives a batch to an idle writer; fails if there is none.
    pub(super) fn dispatch(&mut self, job: Job) -> Result<(), SubscriptionError> {
        let writer = self.idle.iter().position(|&idle| idle);
        let writer = writer.and_then(|at| self.jobs.get(at).zip(self.idle.get_mut(at)));
        let Some((jobs, idle)) = writer else {
            return Err(SubscriptionError::WriterBusy);
        };
        *idle = false;
        jobs.try_send(job)
            .map_err(|_full| SubscriptionError::WriterBusy)
    }

    /// Ends the writers, whatever they are doing.
    pub(super) async fn shutdown(&mut self) {
        self.tasks.shutdown().await;
    }
}
