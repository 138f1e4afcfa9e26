//! The tables: made where there are none, and brought up to date where an older version or the Go
//! service made them, without keeping others from writing. One process migrates at a time.
//!
//! - A fresh database gets schema.sql, and counts as at the newest version.
//! - Any other gets the migrations that it has not had, in their order (`versions`).
//! - What takes longer than an instant is done `online`, and follows from the catalogs (`plan`).
//! - `tickets` may be partitioned, and is looked after then (`partitions`).
//! - A database at a newer version is left as it is: while a fleet is upgraded, older processes go on.

mod catalog;
mod exclusive;
mod fill;
mod index;
mod obstacles;
mod online;
mod partitions;
mod plan;
mod script;
mod session;
mod spec;
mod versions;

use std::fmt;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_postgres::{Client, Error};
use tracing::{info, warn};

use super::StoreError;
use crate::config::DatabaseConfig;
pub(crate) use partitions::{Partition, Partitions, list_partitions, watch_partitions};

use exclusive::{FORCED_AFTER, staying_in};
use session::Session;
use versions::{MIGRATIONS, Migration, Outcome, Versions};

const NUMBERING: &str = include_str!("migrate/numbering.sql");

/// Between two attempts at a migration whose table is in use.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The state of the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tables {
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

/// What may be done to the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effort {
    /// What takes an instant, and waits for nobody.
    Instant,
    /// Whatever it takes.
    Unlimited,
}

/// Creates the tables, or brings them up to date, however long it takes.
pub(crate) async fn migrate(config: &DatabaseConfig) -> Result<(), StoreError> {
    let session = Session::open(config).await?;
    let tables = session.bring_up_to_date(Effort::Unlimited).await?;
    info!("{tables}");
    Ok(())
}

/// Does the same if it takes an instant.
pub(crate) async fn ensure_schema(config: &DatabaseConfig) -> Result<Tables, StoreError> {
    let session = Session::open(config).await?;
    session.bring_up_to_date(Effort::Instant).await
}

impl Session<'_> {
    async fn bring_up_to_date(&self, effort: Effort) -> Result<Tables, StoreError> {
        let versions = Versions::read(&self.client).await;
        let versions = versions.map_err(StoreError::classify)?;
        if let Some(newer) = versions.newer() {
            info!(
                "a newer ticketd has migrated the tables, to version {newer}: they stay as they are"
            );
            return Ok(Tables::Ready);
        }
        let plans = self.plans().await?;
        let large = plans.iter().filter(|plan| !plan.is_instant());
        let large: Vec<_> = large.map(|plan| plan.spec.name).collect();
        if effort == Effort::Instant && !large.is_empty() {
            return Ok(Tables::NeedMigrate(large.join(" and ")));
        }
        self.look_for_obstacles(&plans).await?;
        self.create_or_migrate(&versions, effort).await?;
        finish(&self.client).await.map_err(StoreError::classify)?;
        Ok(Tables::Ready)
    }

    async fn create_or_migrate(
        &self,
        versions: &Versions,
        effort: Effort,
    ) -> Result<(), StoreError> {
        if versions.is_fresh() {
            let created = versions.create(&self.client).await;
            return created.map_err(StoreError::classify);
        }
        if effort == Effort::Unlimited {
            versions.check_readable()?;
        }
        for migration in MIGRATIONS {
            self.upgrade_for(migration, effort).await?;
            let pending = versions.is_pending(migration);
            if pending && !self.apply(versions, migration, effort).await? {
                break;
            }
        }
        Ok(())
    }

    /// Does what has to be done online. Not only once: what was changed since is corrected.
    async fn upgrade_for(&self, migration: &Migration, effort: Effort) -> Result<(), StoreError> {
        for &spec in migration.online {
            self.upgrade(spec).await?;
            if effort == Effort::Unlimited {
                self.set_defaults(spec).await?;
            }
        }
        Ok(())
    }

    /// Applies a migration. False: it had to be left for later, which does no harm.
    async fn apply(
        &self,
        versions: &Versions,
        migration: &Migration,
        effort: Effort,
    ) -> Result<bool, StoreError> {
        let mut asked = Instant::now();
        loop {
            let staying = staying_in(&self.client, migration.alters).await;
            let staying = staying.map_err(StoreError::classify)?;
            let outcome = match staying {
                Some(_) if effort == Effort::Instant || asked.elapsed() < FORCED_AFTER => {
                    Outcome::InUse
                }
                _ => {
                    asked = Instant::now();
                    let outcome = versions.apply(&self.client, migration).await;
                    outcome.map_err(StoreError::classify)?
                }
            };
            let why = match outcome {
                Outcome::Applied => return Ok(true),
                Outcome::InUse if effort == Effort::Unlimited => {
                    info!("{migration} waits for a table that is in use");
                    sleep(RETRY_DELAY).await;
                    continue;
                }
                Outcome::InUse => "a table is in use".to_owned(),
                Outcome::NotAllowed(why) => why,
            };
            let why = format!("{migration} could not be applied: {why}");
            if !migration.is_optional {
                return Err(StoreError::Schema(why.into()));
            }
            warn!("{why}; run `ticketd migrate` as the tables' owner");
            return Ok(false);
        }
    }
}

/// What is looked at whenever the tables are.
async fn finish(client: &Client) -> Result<(), Error> {
    let numbering = format!("begin; set local lock_timeout = '10s'; {NUMBERING} commit");
    client.batch_execute(&numbering).await?;
    warn_if_unsafe(client).await
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
