//! `ticketd dead`: the tickets that could not be stored, listed, shown, replayed and purged.

mod replay;

use std::io::Write;

use anyhow::{Context, bail};
use serde_json::json;
use tracing::error;

use super::progress::ProgressLine;
use crate::broker::Broker;
use crate::config::{DeadAction, DeadSelection, DeadSettings, ListFormat};
use crate::consumer::{CollectError, collect_dead_letters};
use crate::store::{DeadList, DeadTicket, DeadTickets};
use replay::{Replay, Replayed};

/// Lists dead tickets, shows one, replays some or purges some.
pub async fn dead(settings: &DeadSettings, out: &mut impl Write) -> anyhow::Result<()> {
    let database = settings.database.config().map_err(anyhow::Error::msg);
    let tickets = DeadTickets::connect(&database.context("DATABASE_URL")?).await;
    let mut tickets = tickets.context("DATABASE_URL")?;
    match &settings.action {
        DeadAction::List { filter, format } => {
            let everything = DeadSelection {
                numbers: Vec::new(),
                all: true,
                filter: filter.clone(),
                dry_run: true,
            };
            list(&tickets, &everything, *format, out).await
        }
        DeadAction::Collect => collect(settings, out).await,
        DeadAction::Show { number } => Ok(out.write_all(&body(&tickets, *number).await?)?),
        DeadAction::Replay(selection) | DeadAction::Purge(selection) if selection.dry_run => {
            list(&tickets, selection, ListFormat::Text, out).await
        }
        DeadAction::Replay(selection) => {
            let replay = Replay::new(&settings.broker);
            replay_all(&mut tickets, selection, replay, out).await
        }
        DeadAction::Purge(selection) => purge(&tickets, selection, out).await,
    }
}

/// The next of those that are selected; none at the end. Fails if a number is of none.
struct Selected {
    list: DeadList,
    missing: Vec<i64>,
}

impl Selected {
    async fn new(tickets: &DeadTickets, selection: &DeadSelection) -> anyhow::Result<Self> {
        let numbers = (!selection.all).then(|| selection.numbers.clone());
        let list = tickets.list(selection.filter.clone(), numbers).await?;
        Ok(Self {
            list,
            missing: selection.numbers.clone(),
        })
    }

    async fn next(&mut self, tickets: &DeadTickets) -> anyhow::Result<Vec<DeadTicket>> {
        let next = tickets.next(&mut self.list).await?;
        self.missing
            .retain(|number| next.iter().all(|ticket| ticket.number != *number));
        Ok(next)
    }

    fn end(&self) -> anyhow::Result<()> {
        match self.missing.first() {
            Some(number) => bail!(absent(*number)),
            None => Ok(()),
        }
    }
}

async fn list(
    tickets: &DeadTickets,
    selection: &DeadSelection,
    format: ListFormat,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let mut selected = Selected::new(tickets, selection).await?;
    loop {
        let next = selected.next(tickets).await?;
        if next.is_empty() {
            return selected.end();
        }
        for ticket in &next {
            writeln!(out, "{}", line(ticket, format))?;
        }
    }
}

fn line(ticket: &DeadTicket, format: ListFormat) -> String {
    let (number, id) = (ticket.number, ticket.ticket_id);
    let (at, reason) = (&ticket.created_at, &ticket.reason);
    match format {
        ListFormat::Text => format!("{number}\t{id}\t{at}\t{reason}"),
        ListFormat::Json => {
            let line = json!({
                "number": number, "id": id.to_string(), "set_aside_at": at, "reason": reason,
                "source": ticket.source, "issued_at": ticket.issued_at,
                "received_at": ticket.received_at, "bytes": ticket.bytes,
            });
            line.to_string()
        }
    }
}

async fn collect(settings: &DeadSettings, out: &mut impl Write) -> anyhow::Result<()> {
    let database = settings.database.config().map_err(anyhow::Error::msg)?;
    let broker = Broker::new(&settings.broker).map_err(anyhow::Error::msg);
    let broker = broker.context("AMQP_URL")?;
    let (mut progress, mut moved) = (ProgressLine::new("moved"), 0);
    let collected = collect_dead_letters(&broker, &database, |messages| {
        progress.add(messages as u64);
        moved += messages;
    });
    collected.await.map_err(|error| match error {
        CollectError::Broker(error) => anyhow::Error::new(error).context("AMQP_URL"),
        CollectError::Store(error) => anyhow::Error::new(error).context("DATABASE_URL"),
    })?;
    progress.end();
    writeln!(out, "{moved}")?;
    Ok(())
}

async fn body(tickets: &DeadTickets, number: i64) -> anyhow::Result<Vec<u8>> {
    let body = tickets.body(number).await?;
    body.with_context(|| absent(number))
}

fn absent(number: i64) -> String {
    format!("there is no dead ticket {number}")
}

/// Replays one after the other, and goes on after one that cannot be; but not without a server, for
/// which each would only wait in turn.
async fn replay_all(
    tickets: &mut DeadTickets,
    selection: &DeadSelection,
    mut replay: Replay<'_>,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let mut selected = Selected::new(tickets, selection).await?;
    let mut progress = ProgressLine::new("replayed");
    let mut failed = 0_u64;
    loop {
        let next = selected.next(tickets).await?;
        if next.is_empty() {
            break;
        }
        for DeadTicket { number, .. } in next {
            match replay.replay(tickets, number).await? {
                Replayed::As(ids) => {
                    progress.add(1);
                    for id in ids {
                        writeln!(out, "{id}")?;
                    }
                }
                Replayed::Impossible(why) => {
                    failed += 1;
                    error!(number, why, "not replayed");
                }
            }
        }
    }
    progress.end();
    selected.end()?;
    match failed {
        0 => Ok(()),
        failed => bail!("{failed} could not be replayed, and are still on the list"),
    }
}

async fn purge(
    tickets: &DeadTickets,
    selection: &DeadSelection,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let mut selected = Selected::new(tickets, selection).await?;
    let mut progress = ProgressLine::new("purged");
    let mut purged = 0;
    loop {
        let next = selected.next(tickets).await?;
        if next.is_empty() {
            break;
        }
        let numbers: Vec<i64> = next.iter().map(|ticket| ticket.number).collect();
        let removed = tickets.purge(&numbers).await?;
        progress.add(removed);
        purged += removed;
    }
    progress.end();
    selected.end()?;
    writeln!(out, "{purged}")?;
    Ok(())
}
