//! `tickets` as a table that is partitioned by the time in its ids: partitions made ahead, taken out and
//! dropped, and a plain table that becomes such a one.
//!
//! - `layout`: which partitions there are to be. Pure.
//! - `catalog`: which there are.
//! - `remove`: those of old tickets, taken out or dropped.
//! - `convert`: a plain table made one while others write to it; `swap` is its last step.
//! - `watch`: what a running process does about them.

mod catalog;
mod convert;
mod layout;
mod remove;
mod swap;
mod watch;

use std::time::Duration;

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;
use tracing::info;

use super::super::StoreError;
use super::super::connect::connect;
use super::catalog::Table;
use super::exclusive::exclusive;
use super::session::Session;
use super::spec::TICKETS;
use crate::clock::now_us;
use crate::config::DatabaseConfig;

pub(crate) use layout::Partition;
pub(crate) use watch::watch_partitions;

/// How far ahead partitions are made.
const AHEAD: Duration = Duration::from_secs(7 * 86_400);

// A superuser acts as the owner; any other role that may do it owns the table, or is a member of that.
const AS_OWNER: &str = "select case when r.rolsuper and r.oid <> c.relowner \
        then format('set local role %I', pg_get_userbyid(c.relowner)) else 'select' end \
    from pg_class c, pg_roles r where c.oid = $1 and r.rolname = current_user";

const NOT_PARTITIONED: &str =
    "tickets is not partitioned by ticketd: see `ticketd partitions convert`";

/// What changes the partitions. One process does at a time, and none that migrates the tables.
pub(crate) struct Partitions<'a> {
    session: Session<'a>,
}

/// The partitions, in the order of their ids; none where `tickets` is a plain table.
pub(crate) async fn list_partitions(config: &DatabaseConfig) -> Result<Vec<Partition>, StoreError> {
    let connected = connect(config, "ticketd partitions").await?;
    let partitions = catalog::read(&connected.client).await;
    partitions.map_err(StoreError::classify)
}

impl<'a> Partitions<'a> {
    /// Connects, and waits for whoever else is at it.
    pub(crate) async fn open(config: &'a DatabaseConfig) -> Result<Self, StoreError> {
        let session = Session::open(config).await?;
        Ok(Self { session })
    }

    /// Makes the partitions that are missing until a week from now, of that width; returns their names.
    pub(crate) async fn create(&self, width: Duration) -> Result<Vec<String>, StoreError> {
        let now = now_ms();
        let until = now + ms(AHEAD);
        let mut made = Vec::new();
        loop {
            let partitions = self.partitions().await?;
            let Some(cut) = layout::cut(&partitions, now, until, ms(width)) else {
                return Ok(made);
            };
            let table = self.table().await?;
            self.exclusively(&table, &cut.statements(&table.schema))
                .await?;
            let names = cut.spans.iter().map(|span| Partition::span(span).name);
            for name in names {
                info!("made partition {name}");
                made.push(name);
            }
        }
    }

    /// The partitions; an error where there are none of ticketd's making.
    async fn partitions(&self) -> Result<Vec<Partition>, StoreError> {
        let partitions = catalog::read(&self.session.client).await;
        let partitions = partitions.map_err(StoreError::classify)?;
        match layout::horizon(&partitions) {
            Some(_) => Ok(partitions),
            None => Err(StoreError::Schema(NOT_PARTITIONED.into())),
        }
    }

    async fn table(&self) -> Result<Table, StoreError> {
        let table = Table::read(&self.session.client, &TICKETS).await;
        let missing =
            || StoreError::Schema("there is no table tickets: run `ticketd migrate`".into());
        table.map_err(StoreError::classify)?.ok_or_else(missing)
    }

    /// Runs statements in one transaction while nobody else uses the table.
    async fn exclusively(&self, table: &Table, statements: &str) -> Result<(), StoreError> {
        let script = format!("{};\n{statements}", self.as_owner(table).await?);
        let done = exclusive(&self.session.client, table, &script).await;
        done.map_err(refused)
    }

    /// Runs statements in one transaction.
    async fn beside_others(&self, table: &Table, statements: &str) -> Result<(), StoreError> {
        let as_owner = self.as_owner(table).await?;
        let script = format!("begin; {as_owner};\n{statements}commit");
        let done = self.session.client.batch_execute(&script).await;
        done.map_err(refused)
    }

    /// Has what is made belong to the table's owner, whoever makes it.
    async fn as_owner(&self, table: &Table) -> Result<String, StoreError> {
        let row = self.session.client.query_one(AS_OWNER, &[&table.oid]).await;
        row.and_then(|row| row.try_get(0))
            .map_err(StoreError::classify)
    }
}

fn refused(error: Error) -> StoreError {
    match error.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => StoreError::Schema(
            "this role may not change the partitions of tickets: have its owner run \
             `ticketd partitions create` every day"
                .into(),
        ),
        _ => StoreError::classify(error),
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn now_ms() -> u64 {
    u64::try_from(now_us() / 1000).unwrap_or_default()
}
