//! Tickets on their way in whole groups.

use std::time::Duration;

use super::sink::TicketSink;
use crate::commands::progress::ProgressLine;
use crate::config::ImportSettings;
use crate::message::Record;
use crate::publisher::{Group, GroupBuilder, Outcomes, PublishError, Publisher};

/// Tickets on their way, in the groups of all files.
pub(super) struct OutgoingTickets {
    publisher: Publisher,
    groups: GroupBuilder,
    outcomes: Outcomes,
    timeout: Duration,
    progress: ProgressLine,
    shown: u64,
}

impl OutgoingTickets {
    /// None yet.
    pub(super) fn new(publisher: Publisher, settings: &ImportSettings) -> Self {
        Self {
            groups: publisher.group_builder(),
            publisher,
            outcomes: Outcomes::default(),
            timeout: settings.timeout,
            progress: ProgressLine::new("tickets"),
            shown: 0,
        }
    }

    async fn submit(&mut self, group: Group) -> Result<(), PublishError> {
        self.outcomes.room().await?;
        self.show();
        // What was submitted outlasts a lost link; a new group has to wait for the next.
        self.publisher.ready(self.timeout).await?;
        let tickets = group.tickets();
        let outcome = self.publisher.submit_group(group).await?;
        self.outcomes.add(tickets, outcome);
        Ok(())
    }

    fn show(&mut self) {
        self.progress.add(self.outcomes.confirmed - self.shown);
        self.shown = self.outcomes.confirmed;
    }
}

impl TicketSink for OutgoingTickets {
    const DONE: &str = "published";

    async fn add(&mut self, record: Record<'_>) -> anyhow::Result<()> {
        match self.groups.add(record) {
            Some(full) => Ok(self.submit(full).await?),
            None => Ok(()),
        }
    }

    fn confirmed(&self) -> u64 {
        self.outcomes.confirmed
    }

    async fn finish(&mut self) -> anyhow::Result<()> {
        if let Some(rest) = self.groups.take() {
            self.submit(rest).await?;
        }
        self.outcomes.all().await;
        self.show();
        self.progress.end();
        match self.outcomes.failed {
            Some((error, _)) => Err(error.into()),
            None => Ok(()),
        }
    }
}
