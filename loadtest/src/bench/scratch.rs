//! Places to measure in: a schema and queues of their own for each cell, taken away afterwards.

use std::cell::RefCell;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lapin::options::{ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties};
use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, NoTls};

/// Longest wait for a lock that a killed session still holds.
const LOCK_TIMEOUT: &str = "set lock_timeout = '20s'";

/// Longest wait until the broker counts all confirmed messages of a queue, and how often it is asked.
const COUNT_TIMEOUT: Duration = Duration::from_secs(10);
const COUNT_INTERVAL: Duration = Duration::from_millis(50);

/// The servers, and what this bench has made there.
pub(super) struct Scratch {
    amqp_url: String,
    database_url: String,
    /// Starts every name of this bench and of no other.
    prefix: String,
    places: RefCell<Vec<String>>,
}

/// One cell's schema and queue.
pub(super) struct Place {
    /// The name of the schema, the queue and the exchange.
    pub(super) name: String,
    /// Leads to the schema.
    pub(super) database_url: String,
}

impl Scratch {
    /// Makes nothing yet.
    pub(super) fn new(amqp_url: &str, database_url: &str, prefix: &str) -> Self {
        Self {
            amqp_url: amqp_url.to_owned(),
            database_url: database_url.to_owned(),
            prefix: prefix.to_owned(),
            places: RefCell::default(),
        }
    }

    /// A new schema, and the name that queues are to have.
    pub(super) async fn place(&self, number: usize) -> Result<Place> {
        let name = format!("{}_{number}", self.prefix);
        self.places.borrow_mut().push(name.clone());
        let client = connect(&self.database_url).await?;
        client
            .batch_execute(&format!("create schema {name}"))
            .await
            .context("cannot create a schema")?;
        Ok(Place {
            database_url: with_schema(&self.database_url, &name),
            name,
        })
    }

    /// Takes away what was made in a place.
    pub(super) async fn remove(&self, name: &str) -> Result<()> {
        let client = connect(&self.database_url).await?;
        client.batch_execute(LOCK_TIMEOUT).await?;
        client
            .batch_execute(&format!("drop schema if exists {name} cascade"))
            .await
            .with_context(|| format!("cannot drop the schema {name}"))?;
        let broker = self.broker().await?;
        let channel = broker.create_channel().await?;
        // Those of ticketd, and the one queue of the naive pipeline; deleting what is not there is no error.
        for name in [
            name,
            &format!("{name}.dead") as &str,
            &format!("{name}.unrouted"),
        ] {
            delete(&channel, name)
                .await
                .with_context(|| format!("cannot delete the queue {name}"))?;
        }
        hang_up(&broker).await;
        self.places.borrow_mut().retain(|place| place != name);
        Ok(())
    }

    /// Takes away what is left, trying everything before the first failure is told.
    pub(super) async fn remove_all(&self) -> Result<()> {
        let places = self.places.borrow().clone();
        let mut outcome = Ok(());
        for name in places {
            let removed = self.remove(&name).await;
            outcome = outcome.and(removed);
        }
        outcome
    }

    /// Waits until a queue holds as many messages as it must.
    pub(super) async fn expect_messages(&self, queue: &str, expected: u64) -> Result<()> {
        let broker = self.broker().await?;
        let channel = broker.create_channel().await?;
        let passive = QueueDeclareOptions {
            passive: true,
            ..Default::default()
        };
        let deadline = Instant::now() + COUNT_TIMEOUT;
        loop {
            let declared = channel
                .queue_declare(queue.into(), passive, FieldTable::default())
                .await?;
            let messages = u64::from(declared.message_count());
            if messages == expected {
                hang_up(&broker).await;
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "the queue holds {messages} messages of {expected}"
            );
            sleep(COUNT_INTERVAL).await;
        }
    }

    /// A connection to the broker.
    pub(super) async fn broker(&self) -> Result<Connection> {
        Connection::connect(&self.amqp_url, ConnectionProperties::default())
            .await
            .context("cannot connect to the broker")
    }
}

/// Closes a connection. What was done over it was answered before, so a failure to say goodbye is no failure.
pub(super) async fn hang_up(broker: &Connection) {
    let _closed = broker.close(200, "".into()).await;
}

/// A connection to the database.
pub(super) async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .context("cannot connect to the database")?;
    // Its end shows as an error of the next query.
    tokio::spawn(connection);
    Ok(client)
}

async fn delete(channel: &Channel, name: &str) -> Result<()> {
    channel
        .queue_delete(name.into(), QueueDeleteOptions::default())
        .await?;
    channel
        .exchange_delete(name.into(), ExchangeDeleteOptions::default())
        .await?;
    Ok(())
}

/// Adds the search path to a URL, or to a string of keywords and values.
fn with_schema(url: &str, schema: &str) -> String {
    if url.contains("://") {
        let separator = if url.contains('?') { '&' } else { '?' };
        format!("{url}{separator}options=-c%20search_path%3D{schema}")
    } else {
        format!("{url} options='-c search_path={schema}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_url_leads_to_the_schema() {
        for url in [
            "postgres://u@127.0.0.1:1/d",
            "postgres://u@127.0.0.1:1/d?connect_timeout=3",
            "host=127.0.0.1 user=u",
        ] {
            let config: tokio_postgres::Config = with_schema(url, "bench_1").parse().unwrap();
            assert_eq!(config.get_options(), Some("-c search_path=bench_1"));
        }
    }
}
