//! Ensuring the schema: before anything is taken out of RabbitMQ, and again when it is what failed.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tracing::warn;

use crate::backoff::Backoff;
use crate::config::DatabaseConfig;
use crate::store::{self, StoreError, Tables};

/// How often it is checked whether somebody has run `ticketd migrate`.
const CHECK_EVERY: Duration = Duration::from_secs(2);

/// How often it is logged that somebody must.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Waits until the schema is up to date, and migrates it if that takes an instant. Fails if the
/// database can never hold tickets.
pub(super) async fn ready(database: &DatabaseConfig) -> Result<(), StoreError> {
    let mut backoff = Backoff::new();
    let mut logged: Option<Instant> = None;
    loop {
        match store::ensure_schema(database).await {
            Ok(Tables::Ready) => return Ok(()),
            Ok(outdated @ Tables::NeedMigrate(_)) => {
                if logged.is_none_or(|at| at.elapsed() > LOG_EVERY) {
                    logged = Some(Instant::now());
                    warn!("{outdated}");
                }
                sleep(CHECK_EVERY).await;
            }
            Err(error @ StoreError::Encoding(_)) => return Err(error),
            Err(error) => {
                log_failed(&error);
                sleep(backoff.next()).await;
            }
        }
    }
}

/// Tries once to bring the schema up to date; logs why not.
pub(super) async fn ensure_schema(database: &DatabaseConfig) {
    match store::ensure_schema(database).await {
        Ok(Tables::Ready) => {}
        Ok(outdated @ Tables::NeedMigrate(_)) => warn!("{outdated}"),
        Err(error) => log_failed(&error),
    }
}

fn log_failed(error: &StoreError) {
    warn!(error = %format_args!("{error:#}"), "schema migration failed");
}
