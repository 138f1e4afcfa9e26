//! `ticketd dead`: the tickets that could not be stored, for people.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::broker::Broker;
use crate::clock::now_us;
use crate::config::{BrokerSettings, DeadAction, DeadSettings, INFLIGHT_BYTES_MAX};
use crate::health::Health;
use crate::message::Record;
use crate::publisher::{Limits, publishers};
use crate::store::{self, Connected};

/// Longest for one ticket's way back into RabbitMQ.
const REPLAY_TIMEOUT: Duration = Duration::from_secs(10);

/// How often it is looked whether RabbitMQ is there.
const LINK_TICK: Duration = Duration::from_millis(10);

/// Lists dead tickets, shows one, or sends one round again.
pub async fn dead(settings: &DeadSettings, out: &mut impl Write) -> anyhow::Result<()> {
    let connected = store::connect(&settings.database.database_url, "ticketd dead").await;
    let Connected {
        client,
        task: _alive,
    } = connected.context("DATABASE_URL")?;
    match settings.action {
        DeadAction::List => list(&client, out).await,
        DeadAction::Show { number } => Ok(out.write_all(&body(&client, number).await?)?),
        DeadAction::Replay { number } => {
            let id = replay(&settings.broker, &client, number).await?;
            client
                .execute("delete from dead_tickets where id = $1", &[&number])
                .await?;
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

/// Publishes a body as a ticket of its own, which is what its sender meant it
/// to be. Its id is made from both, so that a second replay changes nothing.
async fn replay(settings: &BrokerSettings, client: &Client, number: i64) -> anyhow::Result<Uuid> {
    let body = body(client, number).await?;
    let query = "select ticket_id from dead_tickets where id = $1";
    let ticket_id: Uuid = client.query_one(query, &[&number]).await?.try_get(0)?;
    let id = Uuid::new_v5(&ticket_id, &body);
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
        while !health.readiness().ready() {
            sleep(LINK_TICK).await;
        }
        let record = Record {
            id,
            received_at_us: now_us(),
            body: &body,
        };
        publisher
            .submit(record)
            .map_err(|refusal| refusal.reason())?
            .await
            .map_err(|_gone| "gone")?
            .map_err(|refusal| refusal.reason())
    };
    match timeout(REPLAY_TIMEOUT, published).await {
        Ok(Ok(())) => Ok(id),
        Ok(Err(reason)) => bail!("RabbitMQ did not take it: {reason}"),
        Err(_late) => bail!("RabbitMQ did not answer in time"),
    }
}
