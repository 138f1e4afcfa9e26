//! Waiting for the tables, before anything is taken out of RabbitMQ.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tracing::warn;

use crate::backoff::Backoff;
use crate::config::DatabaseConfig;
use crate::store::{self, StoreError, Tables};

/// Between two looks at whether somebody has upgraded them.
const LOOK: Duration = Duration::from_secs(2);

/// How often it is said that somebody must.
const SAY: Duration = Duration::from_secs(60);

/// Waits until the tables are as they should be, and sees to it if that takes an instant. Fails if
/// the database can never hold tickets.
pub async fn ready(database: &DatabaseConfig) -> Result<(), StoreError> {
    let mut backoff = Backoff::new();
    let mut said: Option<Instant> = None;
    loop {
        match store::ensure_schema(database).await {
            Ok(Tables::Ready) => return Ok(()),
            Ok(held @ Tables::NeedMigrate(_)) => {
                if said.is_none_or(|at| at.elapsed() > SAY) {
                    said = Some(Instant::now());
                    warn!("{held}");
                }
                sleep(LOOK).await;
            }
            Err(failure @ StoreError::Encoding(_)) => return Err(failure),
            Err(failure) => {
                warn!("schema migration failed: {failure:#}");
                sleep(backoff.next()).await;
            }
        }
    }
}
