//! `ticketd dead`: the tickets that could not be stored, for people.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::{sleep, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Transaction};
use tracing::info;
use uuid::Uuid;

use crate::broker::Broker;
use crate::clock::unix_us;
use crate::config::{BrokerSettings, DeadAction, DeadSettings, INFLIGHT_BYTES_MAX};
use crate::health::Health;
use crate::message::Record;
use crate::publisher::{Limits, publishers};
use crate::store::{self, Connected};

/// Longest for one ticket's way back into RabbitMQ.
const REPLAY_TIMEOUT: Duration = Duration::from_secs(10);

/// How often it is looked whether RabbitMQ is there.
const LINK_TICK: Duration = Duration::from_millis(10);

// A ticket of before the column was there was received no later than it died.
const TAKE: &str = "delete from dead_tickets where id = $1 \
    returning ticket_id, coalesce(received_at, created_at), body";

const STORED_TEXT: &str = "select ticket_text from tickets where ticket_id = $1";

/// Lists dead tickets, shows one, or sends one round again.
pub async fn dead(settings: &DeadSettings, out: &mut impl Write) -> anyhow::Result<()> {
    let connected = store::connect(&settings.database.database_url, "ticketd dead").await;
    let Connected {
        mut client,
        task: _alive,
    } = connected.context("DATABASE_URL")?;
    match settings.action {
        DeadAction::List => list(&client, out).await,
        DeadAction::Show { number } => Ok(out.write_all(&body(&client, number).await?)?),
        DeadAction::Replay { number } => {
            let id = replay(&settings.broker, &mut client, number).await?;
            Ok(writeln!(out, "{id}")?)
        }
    }
}

async fn list(client: &Client, out: &mut impl Write) -> anyhow::Result<()> {
    let query = "select id, ticket_id, created_at::text, reason from dead_tickets order by id";
    for row in client.query(query, &[]).await? {
        let (number, id): (i64, Uuid) = (row.try_get(0)?, row.try_get(1)?);
        let (at, reason): (String, String) = (row.try_get(2)?, row.try_get(3)?);
        writeln!(out, "{number}\t{id}\t{at}\t{reason}")?;
    }
    Ok(())
}

async fn body(client: &Client, number: i64) -> anyhow::Result<Vec<u8>> {
    let row = client
        .query_opt("select body from dead_tickets where id = $1", &[&number])
        .await?;
    match row {
        Some(row) => Ok(row.try_get(0)?),
        None => bail!("there is no dead ticket {number}"),
    }
}

/// A row of `dead_tickets` on its way back.
struct Dead {
    ticket_id: Uuid,
    received_at_us: i64,
    body: Vec<u8>,
}

/// Sends a dead ticket round again and takes it off the list; returns its id.
///
/// It is off the list before it is on its way, and stays off only if RabbitMQ
/// confirms it: whoever finds meanwhile that it must die again waits for the
/// row's end and adds a new one, instead of finding it on the list and leaving
/// it at that. After a crash between the two it is on its way and on the list,
/// and replaying it again changes nothing.
async fn replay(
    settings: &BrokerSettings,
    client: &mut Client,
    number: i64,
) -> anyhow::Result<Uuid> {
    let transaction = client.transaction().await?;
    let dead = take(&transaction, number).await?;
    let (id, stored) = identify(&transaction, &dead).await?;
    if stored {
        info!("the ticket is stored already, as {id}");
    } else {
        let record = Record {
            id,
            received_at_us: dead.received_at_us,
            body: &dead.body,
        };
        publish(settings, record).await?;
    }
    let gone = transaction.commit().await;
    gone.context("it is sent round again, but is still on the list")?;
    Ok(id)
}

async fn take(transaction: &Transaction<'_>, number: i64) -> anyhow::Result<Dead> {
    let taken = transaction.query_opt(TAKE, &[&number]).await;
    let taken = taken.map_err(|error| match error.code() {
        Some(&SqlState::UNDEFINED_COLUMN) => anyhow::Error::new(error)
            .context("dead_tickets is of an older version: run `ticketd migrate`"),
        _ => error.into(),
    })?;
    let Some(row) = taken else {
        bail!("there is no dead ticket {number}");
    };
    Ok(Dead {
        ticket_id: row.try_get(0)?,
        received_at_us: unix_us(row.try_get(1)?),
        body: row.try_get(2)?,
    })
}

/// The id that the ticket was accepted under, so that its sender may still
/// repeat it; where another text has that by now, one that is made from both.
/// True: it is stored under that id already.
async fn identify(transaction: &Transaction<'_>, dead: &Dead) -> anyhow::Result<(Uuid, bool)> {
    for id in [dead.ticket_id, Uuid::new_v5(&dead.ticket_id, &dead.body)] {
        let row = transaction.query_opt(STORED_TEXT, &[&id]).await?;
        let Some(row) = row else {
            return Ok((id, false));
        };
        let text: Option<String> = row.try_get(0)?;
        if text.is_some_and(|text| text.as_bytes() == dead.body) {
            return Ok((id, true));
        }
    }
    bail!("both ids that it could have belong to other tickets");
}

async fn publish(settings: &BrokerSettings, record: Record<'_>) -> anyhow::Result<()> {
    let broker = Broker::new(settings)
        .map_err(anyhow::Error::msg)
        .context("AMQP_URL")?;
    let limits = Limits {
        group: 1,
        inflight: 1,
        inflight_bytes: INFLIGHT_BYTES_MAX,
        confirm_timeout: REPLAY_TIMEOUT,
    };
    let health = Arc::new(Health::new(true, false));
    let (publisher, task) = publishers(broker, limits, health.clone(), 1)
        .next()
        .context("no publisher")?;
    let _task = tokio::spawn(task);
    let published = async {
        while !health.readiness().is_ready() {
            sleep(LINK_TICK).await;
        }
        publisher
            .submit(record)
            .map_err(|refusal| refusal.reason())?
            .await
            .map_err(|_gone| "gone")?
            .map_err(|refusal| refusal.reason())
    };
    let published = async {
        tokio::select! {
            published = published => published.map_err(str::to_owned),
            why = health.given_up() => Err(why),
        }
    };
    match timeout(REPLAY_TIMEOUT, published).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(reason)) => bail!("RabbitMQ did not take it: {reason}"),
        Err(_late) => bail!("RabbitMQ did not answer in time"),
    }
}
