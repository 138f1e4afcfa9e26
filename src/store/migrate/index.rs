//! An index built while the table is written to.

use std::time::Duration;

use tokio::time::{interval, sleep};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tracing::{debug, info};

use super::super::StoreError;
use super::super::connect::{Connected, connect};
use super::obstacles::duplicates;
use super::plan::{Build, TablePlan};
use super::script::quoted;
use crate::config::DatabaseConfig;

/// Between two log lines about progress.
const LOG_INTERVAL: Duration = Duration::from_secs(2);

/// Between two attempts.
const RETRY_DELAY: Duration = Duration::from_secs(1);

const PROGRESS: &str = "select p.phase, coalesce(100 * p.blocks_done / nullif(p.blocks_total, 0), 0), \
    a.pid, coalesce(nullif(a.application_name, ''), a.backend_type, 'unknown') from pg_stat_progress_create_index p \
    left join pg_stat_activity a on a.pid = nullif(p.current_locker_pid, 0) where p.pid = $1";

/// Builds an index. Where that fails because of values that are there twice, they are named, and
/// nothing is left behind that would refuse another one.
pub(super) async fn build(
    config: &DatabaseConfig,
    client: &Client,
    plan: &TablePlan,
    build: &Build,
) -> Result<(), StoreError> {
    let (name, schema) = (&build.name, &plan.table.schema);
    let clear = format!(
        "drop index concurrently if exists {schema}.{}",
        quoted(name)
    );
    if build.replaces_invalid {
        client
            .batch_execute(&clear)
            .await
            .map_err(StoreError::classify)?;
    }
    let pid = client.query_one("select pg_backend_pid()", &[]).await;
    let pid = pid
        .and_then(|row| row.try_get(0))
        .map_err(StoreError::classify)?;
    info!("building index {name} of {}", plan.table.name);
    let statement = build.statement(schema, &plan.table.path(), "concurrently");
    loop {
        let built = tokio::select! {
            built = client.batch_execute(&statement) => built,
            never = watch(config, pid, name) => match never {},
        };
        let Err(error) = built else { return Ok(()) };
        // It was not finished, and is in the way of writers all the same.
        client
            .batch_execute(&clear)
            .await
            .map_err(StoreError::classify)?;
        match error.code() {
            // An earlier ticketd waits for our lock, and we for its snapshot.
            Some(&SqlState::T_R_DEADLOCK_DETECTED) => sleep(RETRY_DELAY).await,
            Some(&SqlState::UNIQUE_VIOLATION) => {
                let duplicates = duplicates(client, plan)
                    .await
                    .map_err(StoreError::classify)?;
                return Err(match duplicates {
                    Some(duplicates) => StoreError::Schema(duplicates.into()),
                    None => StoreError::classify(error),
                });
            }
            _ => return Err(StoreError::classify(error)),
        }
    }
}

/// Says how far process `pid` is with it, on a connection of its own, for as long as it takes.
async fn watch(config: &DatabaseConfig, pid: i32, name: &str) -> std::convert::Infallible {
    let Err(why) = progress(config, pid, name).await;
    debug!("no progress can be told: {why:#}");
    std::future::pending().await
}

async fn progress(
    config: &DatabaseConfig,
    pid: i32,
    name: &str,
) -> Result<std::convert::Infallible, StoreError> {
    let Connected {
        client,
        task: _alive,
        ..
    } = connect(config, "ticketd migrate").await?;
    let mut tick = interval(LOG_INTERVAL);
    tick.tick().await;
    loop {
        tick.tick().await;
        let row = client
            .query_opt(PROGRESS, &[&pid])
            .await
            .map_err(StoreError::classify)?;
        let Some(row) = row else { continue };
        let (phase, percent): (String, i64) = (
            row.try_get(0).map_err(StoreError::classify)?,
            row.try_get(1).map_err(StoreError::classify)?,
        );
        let waits_for: Option<i32> = row.try_get(2).map_err(StoreError::classify)?;
        match waits_for {
            Some(pid) => {
                let application: String = row.try_get(3).map_err(StoreError::classify)?;
                info!("index {name}: {phase}, process {pid} ({application})");
            }
            None => info!("index {name}: {phase}, {percent} %"),
        }
    }
}
