//! The tables: made where there are none, and brought up to date where the Go service made them,
//! without keeping it from writing. One process migrates at a time.

mod catalog;
mod exclusive;
mod fill;
mod index;
mod obstacles;
mod online;
mod plan;
mod script;
mod session;
mod spec;

use std::fmt;

use tokio_postgres::{Client, Config, Error};
use tracing::{info, warn};

use super::StoreError;
use session::Session;
use spec::{PRODUCTS, TICKETS};

const SCHEMA: &str = include_str!("../../schema.sql");

/// The state of the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tables {
    /// They are as they should be.
    Ready,
    /// Bringing these up to date takes a while, which `ticketd migrate` is for.
    NeedMigrate(String),
}

impl fmt::Display for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => write!(f, "the tables are up to date"),
            Self::NeedMigrate(names) => {
                write!(
                    f,
                    "nothing is stored until `ticketd migrate` has upgraded {names}"
                )
            }
        }
    }
}

/// Creates the tables, or brings them up to date, however long it takes.
pub async fn migrate(config: &Config) -> Result<(), StoreError> {
    let session = Session::open(config).await?;
    let plans = session.plans().await?;
    session.look_for_obstacles(&plans).await?;
    for plan in &plans {
        session.upgrade(plan.spec).await?;
    }
    for spec in [&TICKETS, &PRODUCTS] {
        session.set_defaults(spec).await?;
    }
    session.apply_schema().await?;
    info!("{}", Tables::Ready);
    Ok(())
}

/// Does the same if it takes an instant.
pub async fn ensure_schema(config: &Config) -> Result<Tables, StoreError> {
    let session = Session::open(config).await?;
    let plans = session.plans().await?;
    let large = plans.iter().filter(|plan| !plan.is_instant());
    let large: Vec<_> = large.map(|plan| plan.spec.name).collect();
    if !large.is_empty() {
        return Ok(Tables::NeedMigrate(large.join(" and ")));
    }
    session.look_for_obstacles(&plans).await?;
    for plan in &plans {
        session.upgrade(plan.spec).await?;
    }
    session.apply_schema().await?;
    Ok(Tables::Ready)
}

impl Session<'_> {
    async fn apply_schema(&self) -> Result<(), StoreError> {
        let script = format!("begin; set local lock_timeout = '10s'; {SCHEMA} commit");
        self.client
            .batch_execute(&script)
            .await
            .map_err(StoreError::classify)?;
        warn_if_unfinished(&self.client)
            .await
            .map_err(StoreError::classify)?;
        warn_if_unsafe(&self.client)
            .await
            .map_err(StoreError::classify)
    }
}

/// Says so where dead tickets are kept without the time at which they were received.
async fn warn_if_unfinished(client: &Client) -> Result<(), Error> {
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
async fn warn_if_unsafe(client: &Client) -> Result<(), Error> {
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
