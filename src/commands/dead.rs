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
use crate::message::Record;
use crate::publisher::{PublishLimits, Publisher};
use crate::store::{DeadTickets, Identity, TakenTicket};

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
            let id = replay(&settings.broker, &mut tickets, number).await?;
            Ok(writeln!(out, "{id}")?)
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

/// Publishes a dead ticket again and takes it off the list; returns its id.
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
) -> anyhow::Result<Uuid> {
    let taken = tickets.take(number).await?;
    let taken = taken.with_context(|| absent(number))?;
    let id = match taken.identify().await? {
        Identity::Stored(id) => {
            info!("the ticket is stored already, as {id}");
            id
        }
        Identity::Free(id) => {
            publish(settings, id, &taken).await?;
            id
        }
        Identity::Taken => bail!("both ids that it could have belong to other tickets"),
    };
    let committed = taken.commit().await;
    committed.context("the ticket was published, but is still on the list")?;
    Ok(id)
}

async fn publish(
    settings: &BrokerSettings,
    id: Uuid,
    ticket: &TakenTicket<'_>,
) -> anyhow::Result<()> {
    let record = Record {
        id,
        received_at_us: unix_us(ticket.received_at),
        body: &ticket.body,
    };
    let limits = PublishLimits {
        group: 1,
        inflight: 1,
        inflight_bytes: INFLIGHT_BYTES_MAX,
        confirm_timeout: REPLAY_TIMEOUT,
    };
    let published = async {
        let broker = Broker::new(settings).map_err(anyhow::Error::msg);
        let publisher = Publisher::connect(broker.context("AMQP_URL")?, limits).await?;
        let confirmed = publisher.submit(record)?;
        anyhow::Ok(confirmed.await.context("the publisher has ended")??)
    };
    match timeout(REPLAY_TIMEOUT, published).await {
        Ok(published) => published.context("RabbitMQ did not accept the ticket"),
        Err(_elapsed) => bail!("RabbitMQ did not answer in time"),
    }
}
