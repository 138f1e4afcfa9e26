//! The connection of the one process that migrates.

use std::time::Duration;

use tokio::time::sleep;
use tokio_postgres::{Client, Error};
use tracing::info;

use super::super::StoreError;
use super::super::connect::{Connected, Task, connect};
use crate::config::DatabaseConfig;

/// The advisory lock's number: "ticketd" in ASCII.
const LOCK: i64 = 0x0074_6963_6b65_7464;

// Each schema has a lock of its own, so that a long upgrade in one keeps nobody waiting in another.
// The number itself is what earlier versions take, whatever the schema.
const TRY_LOCK: &str = "select pg_try_advisory_lock(case s.name when 'public' then $1 \
    else hashtextextended(s.name, $1) end) from (select coalesce( \
        (select relnamespace::regnamespace::text from pg_class where oid = to_regclass('tickets')), \
        current_schema, 'public') as name) s";

/// Between two attempts to get the lock. Waiting in PostgreSQL would hold a snapshot, which
/// an index that is built concurrently waits for.
const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Zones in which a time without a zone is the same with one.
const UTC: [&str; 4] = ["UTC", "Etc/UTC", "GMT", "Etc/GMT"];

/// A connection that holds the advisory lock, for as long as it is there.
pub(super) struct Session<'a> {
    pub config: &'a DatabaseConfig,
    pub client: Client,
    _alive: Task,
    /// Whether its times are in UTC.
    pub is_utc: bool,
}

impl<'a> Session<'a> {
    /// Connects and waits for the lock.
    pub(super) async fn open(config: &'a DatabaseConfig) -> Result<Self, StoreError> {
        let Connected { client, task, .. } = connect(config, "ticketd migrate").await?;
        let is_utc = prepare(&client).await.map_err(StoreError::classify)?;
        Ok(Self {
            config,
            client,
            _alive: task,
            is_utc,
        })
    }
}

/// Gets the lock, and returns whether times are in UTC.
async fn prepare(client: &Client) -> Result<bool, Error> {
    // Large tables take as long as they take.
    let settings = "set statement_timeout = 0; set lock_timeout = 0";
    client.batch_execute(settings).await?;
    let mut said = false;
    while !client.query_one(TRY_LOCK, &[&LOCK]).await?.try_get(0)? {
        if !said {
            info!("another process migrates the tables: waiting for it");
            said = true;
        }
        sleep(LOCK_POLL_INTERVAL).await;
    }
    let zone = client.query_one("select current_setting('TimeZone')", &[]);
    let zone: String = zone.await?.try_get(0)?;
    Ok(UTC.contains(&zone.as_str()))
}
