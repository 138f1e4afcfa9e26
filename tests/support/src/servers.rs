//! The two servers, and what one name stands for in both.
//!
//! Failures are errors here: the load test must put its servers away whatever happens.

use anyhow::{Context, Result};
use lapin::options::{ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Connection, ConnectionProperties};
use tokio_postgres::{Client, NoTls};

/// A session that was killed may hold its locks a little longer.
const LOCK_TIMEOUT: &str = "set lock_timeout = '20s'";

/// Where RabbitMQ and PostgreSQL are.
#[derive(Debug, Clone)]
pub struct Servers {
    /// RabbitMQ's URL.
    pub amqp_url: String,
    /// PostgreSQL's URL, or a string of keywords and values.
    pub database_url: String,
}

impl Servers {
    /// Those of `AMQP_URL` and `DATABASE_URL`, which `make test` sets.
    ///
    /// # Panics
    ///
    /// Without one of them.
    #[must_use]
    pub fn of_environment() -> Self {
        Self {
            amqp_url: setting("AMQP_URL"),
            database_url: setting("DATABASE_URL"),
        }
    }

    /// The database's URL, with a schema in it: the one that its connections see.
    #[must_use]
    pub fn schema_url(&self, schema: &str) -> String {
        in_schema(&self.database_url, schema)
    }

    /// A connection to the broker.
    ///
    /// # Errors
    ///
    /// Fails when the broker does.
    pub async fn broker(&self) -> Result<Connection> {
        let connecting = Connection::connect(&self.amqp_url, ConnectionProperties::default());
        connecting.await.context("cannot connect to the broker")
    }

    /// Makes an empty schema of that name; queues come with the first ticketd. Returns a connection
    /// that sees it.
    ///
    /// # Errors
    ///
    /// Fails when the database does, or has that schema.
    pub async fn create(&self, name: &str) -> Result<Client> {
        let database = connect(&self.schema_url(name)).await?;
        let create = format!("create schema {name}");
        let created = database.batch_execute(&create).await;
        created.with_context(|| format!("cannot create the schema {name}"))?;
        Ok(database)
    }

    /// Takes away the schema, and ticketd's queues and exchanges, of that name; what is not there
    /// is no error.
    ///
    /// # Errors
    ///
    /// Fails when a server does.
    pub async fn remove(&self, name: &str) -> Result<()> {
        let database = connect(&self.database_url).await?;
        database.batch_execute(LOCK_TIMEOUT).await?;
        let drop = format!("drop schema if exists {name} cascade");
        let dropped = database.batch_execute(&drop).await;
        dropped.with_context(|| format!("cannot drop the schema {name}"))?;
        let broker = self.broker().await?;
        for suffix in ["", ".dead", ".unrouted"] {
            let name = format!("{name}{suffix}");
            let deleted = delete(&broker, &name).await;
            deleted.with_context(|| format!("cannot delete the queue {name}"))?;
        }
        hang_up(&broker).await;
        Ok(())
    }
}

/// A file of the certificates that the servers of a checkout have: `ca.pem`, their own `localhost.pem`,
/// and a client's, `certified.pem`; keys are beside them, with `.key`.
///
/// # Panics
///
/// Without `STACK_TLS_DIR`.
#[must_use]
pub fn stack_certificate(file: &str) -> String {
    format!("{}/{file}", setting("STACK_TLS_DIR"))
}

/// Where RabbitMQ speaks TLS.
///
/// # Panics
///
/// Without `AMQPS_URL`.
#[must_use]
pub fn amqps_url() -> String {
    setting("AMQPS_URL")
}

/// A URL, or a string of keywords and values, whose connections see one schema.
#[must_use]
pub fn in_schema(url: &str, schema: &str) -> String {
    if url.contains("://") {
        let separator = if url.contains('?') { '&' } else { '?' };
        format!("{url}{separator}options=-c%20search_path%3D{schema}")
    } else {
        format!("{url} options='-c search_path={schema}'")
    }
}

/// A connection to a database; its end shows as an error of the next query.
///
/// # Errors
///
/// Fails when the database does.
pub async fn connect(url: &str) -> Result<Client> {
    let connecting = tokio_postgres::connect(url, NoTls);
    let (client, connection) = connecting.await.context("cannot connect to the database")?;
    tokio::spawn(connection);
    Ok(client)
}

/// How many messages a queue holds that nobody has taken.
///
/// # Errors
///
/// Fails without the queue.
pub async fn depth(broker: &Connection, queue: &str) -> Result<u32> {
    let channel = broker.create_channel().await?;
    let passive = QueueDeclareOptions {
        passive: true,
        ..Default::default()
    };
    let declared = channel.queue_declare(queue.into(), passive, FieldTable::default());
    let depth = declared.await?.message_count();
    channel.close(200, "looked".into()).await?;
    Ok(depth)
}

/// Closes a connection. What was done over it was answered before, so a failure to say goodbye is
/// no failure.
pub async fn hang_up(broker: &Connection) {
    let _closed = broker.close(200, "".into()).await;
}

async fn delete(broker: &Connection, name: &str) -> Result<()> {
    let channel = broker.create_channel().await?;
    let name = ShortString::from(name);
    channel
        .queue_delete(name.clone(), QueueDeleteOptions::default())
        .await?;
    channel
        .exchange_delete(name, ExchangeDeleteOptions::default())
        .await?;
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the tests' own settings, of which there are two"
)]
fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_unset| {
        panic!("{name} is not set: run the tests with `make test`, which brings the servers up")
    })
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
            let config: tokio_postgres::Config = in_schema(url, "bench_1").parse().unwrap();
            assert_eq!(config.get_options(), Some("-c search_path=bench_1"));
        }
    }
}
