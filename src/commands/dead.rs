//! `ticketd dead`: the tickets that could not be stored, listed, shown and replayed.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::timeout;
use tracing::info;
use uuid::Uuid;

use crate::broker::Broker;
use crate::clock::unix_us;
use crate::config::{BrokerSettings, DeadAction, DeadSettings, INFLIGHT_BYTES_MAX};
use crate::message::{self, GroupVersion, Record};
use crate::publisher::{PublishLimits, Publisher};
use crate::source::{Origin, SourceRef};
use crate::store::{DeadTickets, Identity, TakenTicket};
use crate::ticket::text;

/// Maximum time to publish one ticket again.
const REPLAY_TIMEOUT: Duration = Duration::from_secs(10);

/// Lists dead tickets, shows one, or replays one.
pub async fn dead(settings: &DeadSettings, out: &mut impl Write) -> anyhow::Result<()> {
    let database = settings.database.config().map_err(anyhow::Error::msg);
    let tickets = DeadTickets::connect(&database.context("DATABASE_URL")?).await;
    let mut tickets = tickets.context("DATABASE_URL")?;
    match settings.action {
        DeadAction::List => list(&tickets, out).await,
        DeadAction::Show { number } => Ok(out.write_all(&body(&tickets, number).await?)?),
        DeadAction::Replay { number } => {
            for id in replay(&settings.broker, &mut tickets, number).await? {
                writeln!(out, "{id}")?;
            }
            Ok(())
        }
    }
}

async fn list(tickets: &DeadTickets, out: &mut impl Write) -> anyhow::Result<()> {
    for ticket in tickets.list().await? {
        let (number, id) = (ticket.number, ticket.ticket_id);
        let (at, reason) = (ticket.created_at, ticket.reason);
        writeln!(out, "{number}\t{id}\t{at}\t{reason}")?;
    }
    Ok(())
}

async fn body(tickets: &DeadTickets, number: i64) -> anyhow::Result<Vec<u8>> {
    let body = tickets.body(number).await?;
    body.with_context(|| absent(number))
}

fn absent(number: i64) -> String {
    format!("there is no dead ticket {number}")
}

/// Publishes a dead ticket again and takes it off the list; returns its id, or those of the tickets
/// of a group.
///
/// It is off the list before it is published, and stays off only if RabbitMQ
/// confirms it: whoever finds meanwhile that it must die again waits for the
/// row's end and adds a new one, instead of finding it on the list and leaving
/// it at that. After a crash between the two it is published and on the list,
/// and replaying it again changes nothing.
async fn replay(
    settings: &BrokerSettings,
    tickets: &mut DeadTickets,
    number: i64,
) -> anyhow::Result<Vec<Uuid>> {
    let taken = tickets.take(number).await?;
    let taken = taken.with_context(|| absent(number))?;
    let (mut ids, mut unsent) = (Vec::new(), Vec::new());
    for record in records(&taken)? {
        match taken.identify(record.id, record.body).await? {
            Identity::Stored(id) => {
                info!("the ticket is stored already, as {id}");
                ids.push(id);
            }
            Identity::Free(id) => {
                unsent.push(Record { id, ..record });
                ids.push(id);
            }
            Identity::Taken => bail!("both ids that it could have belong to other tickets"),
        }
    }
    if !unsent.is_empty() {
        publish(settings, &unsent).await?;
    }
    let committed = taken.commit().await;
    committed.context("the ticket was published, but is still on the list")?;
    Ok(ids)
}

/// What was set aside: a ticket, or a whole group of a version that the consumer could not read.
fn records<'a>(taken: &'a TakenTicket<'_>) -> anyhow::Result<Vec<Record<'a>>> {
    let version = GroupVersion::V2;
    // What a sender may choose is text, and is never taken for a group.
    if text(&taken.body).is_err() && message::count(version, &taken.body).is_ok() {
        return Ok(message::records(version, &taken.body).collect());
    }
    let source = taken.source.as_deref().map(str::as_bytes);
    let source = source.map(SourceRef::parse).transpose();
    let record = Record {
        id: taken.ticket_id,
        received_at_us: unix_us(taken.received_at),
        origin: Origin {
            source: source.context("the dead ticket's source")?,
            issued_at_us: taken.issued_at.map(unix_us),
        },
        body: &taken.body,
    };
    Ok(vec![record])
}

async fn publish(settings: &BrokerSettings, records: &[Record<'_>]) -> anyhow::Result<()> {
    let limits = PublishLimits {
        group: 1,
        version: GroupVersion::V1,
        inflight: records.len(),
        inflight_bytes: INFLIGHT_BYTES_MAX,
        confirm_timeout: REPLAY_TIMEOUT,
    };
    let published = async {
        let broker = Broker::new(settings).map_err(anyhow::Error::msg);
        let publisher = Publisher::connect(broker.context("AMQP_URL")?, limits).await?;
        let submit = |record: &Record<'_>| publisher.submit(*record);
        let confirms: Result<Vec<_>, _> = records.iter().map(submit).collect();
        for confirm in confirms? {
            confirm.await.context("the publisher has ended")??;
        }
        anyhow::Ok(())
    };
    match timeout(REPLAY_TIMEOUT, published).await {
        Ok(published) => published.context("RabbitMQ did not accept the ticket"),
        Err(_elapsed) => bail!("RabbitMQ did not answer in time"),
    }
}
