//! Tickets on their way into PostgreSQL, without RabbitMQ.

use std::time::Duration;

use anyhow::bail;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::sleep;

use super::sink::TicketSink;
use crate::commands::progress::ProgressLine;
use crate::config::{DatabaseConfig, ImportSettings};
use crate::consumer::{DIRECT_VERSION, DirectOutcome, store_directly};
use crate::message::{self, Record};
use crate::thread::Threads;

/// Maximum of tickets in a batch, which is one transaction.
const BATCH_TICKETS: usize = 8192;

/// Maximum size of a batch, in bytes; the last ticket may exceed it.
const BATCH_BYTES: usize = 2 * 1024 * 1024;

/// Batches that were gathered ahead.
const BATCHES_MAX: usize = 1;

/// Outcomes that were not looked at yet.
const OUTCOMES_MAX: usize = 4;

/// Tickets gathered for the next transaction, and how many are stored.
pub(super) struct DirectTickets {
    batch: Vec<u8>,
    tickets: usize,
    /// None once no more come.
    batches: Option<Sender<Vec<u8>>>,
    outcomes: Receiver<DirectOutcome>,
    handed_over: u64,
    stored: u64,
    timeout: Duration,
    progress: ProgressLine,
}

impl DirectTickets {
    /// None yet. Fails where no thread can be had.
    pub(super) fn new(database: DatabaseConfig, settings: &ImportSettings) -> anyhow::Result<Self> {
        let (batches, gathered) = mpsc::channel(BATCHES_MAX);
        let (sender, outcomes) = mpsc::channel(OUTCOMES_MAX);
        // Cutting files must not keep rows from being sent, nor encoding them from cutting.
        let _ended = Threads::new().run("store", store_directly(database, gathered, sender))?;
        Ok(Self {
            batch: Vec::new(),
            tickets: 0,
            batches: Some(batches),
            outcomes,
            handed_over: 0,
            stored: 0,
            timeout: settings.timeout,
            progress: ProgressLine::new("tickets"),
        })
    }

    /// Hands the batch over, once there is room for it.
    async fn submit(&mut self) -> anyhow::Result<()> {
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH_BYTES));
        self.handed_over += std::mem::take(&mut self.tickets) as u64;
        let Some(batches) = self.batches.clone() else {
            return Ok(());
        };
        let permit = loop {
            tokio::select! {
                Ok(permit) = batches.reserve() => break permit,
                outcome = self.outcomes.recv() => self.settle(outcome)?,
                () = sleep(self.timeout) => bail!(LATE),
            }
        };
        permit.send(batch);
        Ok(())
    }

    fn settle(&mut self, outcome: Option<DirectOutcome>) -> anyhow::Result<()> {
        match outcome {
            Some(Ok(tickets)) => {
                self.stored += tickets;
                self.progress.add(tickets);
                Ok(())
            }
            Some(Err(error)) => bail!("{error:#}"),
            None => bail!(ENDED),
        }
    }
}

const LATE: &str = "PostgreSQL stored nothing in time";
const ENDED: &str = "what stores them ended before all were";

impl TicketSink for DirectTickets {
    const DONE: &str = "stored";

    async fn add(&mut self, record: Record<'_>) -> anyhow::Result<()> {
        message::append(DIRECT_VERSION, &mut self.batch, record);
        self.tickets += 1;
        if self.tickets == BATCH_TICKETS || self.batch.len() >= BATCH_BYTES {
            self.submit().await?;
        }
        Ok(())
    }

    fn confirmed(&self) -> u64 {
        self.stored
    }

    async fn finish(&mut self) -> anyhow::Result<()> {
        if self.tickets > 0 {
            self.submit().await?;
        }
        self.batches = None;
        if self.handed_over == 0 {
            return Ok(());
        }
        // Its end comes last, once it has said which tickets are dead.
        loop {
            tokio::select! {
                outcome = self.outcomes.recv() => match outcome {
                    None => break,
                    outcome => self.settle(outcome)?,
                },
                () = sleep(self.timeout) => bail!(LATE),
            }
        }
        if self.stored < self.handed_over {
            bail!(ENDED);
        }
        self.progress.end();
        Ok(())
    }
}
