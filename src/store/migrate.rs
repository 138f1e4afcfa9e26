//! schema.sql, applied by one process at a time.

use tokio_postgres::{Config, Error};
use tracing::warn;

use super::connect::{Connected, connect};
use super::{Failure, failure};

const SCHEMA: &str = include_str!("../../schema.sql");

/// The advisory lock's number: "ticketd" in ASCII.
const LOCK: i64 = 0x0074_6963_6b65_7464;

/// Creates the tables, or brings them up to date.
pub async fn migrate(config: &Config) -> Result<(), Failure> {
    let Connected {
        client,
        task: _alive,
    } = connect(config, "ticketd migrate").await?;
    // Old tables can be large, and rewriting them takes as long as it takes.
    let script = format!(
        "set statement_timeout = 0; begin; select pg_advisory_xact_lock({LOCK}); {SCHEMA} commit"
    );
    client.batch_execute(&script).await.map_err(failure)?;
    warn_if_unfinished(&client).await.map_err(failure)?;
    warn_if_unsafe(&client).await.map_err(failure)
}

/// Says so where dead tickets are kept without the time at which they were received.
async fn warn_if_unfinished(client: &tokio_postgres::Client) -> Result<(), Error> {
    let column = "select from pg_attribute where attrelid = 'dead_tickets'::regclass \
        and attname = 'received_at' and not attisdropped";
    if client.query_opt(column, &[]).await?.is_none() {
        warn!(
            "dead_tickets could not be given the column received_at, because it is in use or \
            another role's: run `ticketd migrate` as its owner"
        );
    }
    Ok(())
}

/// Says so where PostgreSQL would lose what it committed.
async fn warn_if_unsafe(client: &tokio_postgres::Client) -> Result<(), Error> {
    for setting in ["fsync", "full_page_writes"] {
        let row = client
            .query_one("select current_setting($1)", &[&setting])
            .await?;
        if row.try_get::<_, String>(0)? != "on" {
            warn!(
                "PostgreSQL runs with {setting} off: a power failure there can lose tickets answered 202"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::SCHEMA;

    #[test]
    fn the_schema_leaves_the_transaction_to_its_caller() {
        let statements = SCHEMA
            .lines()
            .map(str::trim)
            .filter(|line| !line.starts_with("--"));
        for line in statements {
            assert!(
                !matches!(line, "begin;" | "commit;" | "rollback;"),
                "{line}"
            );
        }
    }
}
