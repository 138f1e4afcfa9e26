//! The tables: made where there are none, and brought up to date where the Go service made them,
//! without keeping it from writing. One process migrates at a time.

mod catalog;
mod exclusive;
mod fill;
mod index;
mod obstacles;
mod plan;
mod script;
mod spec;

use std::fmt;
use std::time::Duration;

use tokio::time::sleep;
use tokio_postgres::{Client, Config, Error};
use tracing::{info, warn};

use super::StoreError;
use super::connect::{Connected, Task, connect};
use catalog::Table;
use exclusive::{exclusive, exclusive_once};
use plan::{TablePlan, UpgradeStep};
use spec::{PRODUCTS, TICKETS, TableSpec};

const SCHEMA: &str = include_str!("../../schema.sql");

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
    for plan in session.plans().await? {
        session
            .set_defaults(&plan)
            .await
            .map_err(StoreError::classify)?;
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

/// A connection that holds the advisory lock, for as long as it is there.
struct Session<'a> {
    config: &'a Config,
    client: Client,
    _alive: Task,
    is_utc: bool,
}

impl<'a> Session<'a> {
    async fn open(config: &'a Config) -> Result<Self, StoreError> {
        let Connected { client, task } = connect(config, "ticketd migrate").await?;
        let is_utc = prepare(&client).await.map_err(StoreError::classify)?;
        Ok(Self {
            config,
            client,
            _alive: task,
            is_utc,
        })
    }

    /// What the tables lack that are there.
    async fn plans(&self) -> Result<Vec<TablePlan>, StoreError> {
        let mut plans = Vec::new();
        for spec in [&TICKETS, &PRODUCTS] {
            plans.extend(self.plan(spec).await?);
        }
        Ok(plans)
    }

    async fn plan(&self, spec: &'static TableSpec) -> Result<Option<TablePlan>, StoreError> {
        let table = Table::read(&self.client, spec)
            .await
            .map_err(StoreError::classify)?;
        Ok(table.map(|table| TablePlan::new(spec, table, self.is_utc)))
    }

    /// Fails, naming all of them, if something is in the way of what is to be done.
    async fn look_for_obstacles(&self, plans: &[TablePlan]) -> Result<(), StoreError> {
        let mut found = Vec::new();
        for plan in plans.iter().filter(|plan| plan.next().is_some()) {
            let obstacles = obstacles::obstacles(&self.client, plan).await;
            found.extend(obstacles.map_err(StoreError::classify)?);
        }
        if found.is_empty() {
            return Ok(());
        }
        Err(StoreError::Schema(found.join("; ").into()))
    }

    /// Does one step after the other, each as the catalogs then say.
    async fn upgrade(&self, spec: &'static TableSpec) -> Result<(), StoreError> {
        let mut done = None;
        while let Some(plan) = self.plan(spec).await? {
            let Some(step) = plan.next() else { break };
            if done.as_ref() == Some(&step) {
                let why = format!("{} did not change by {step:?}", spec.name);
                return Err(StoreError::Schema(why.into()));
            }
            self.take(&plan, &step).await?;
            done = Some(step);
        }
        Ok(())
    }

    async fn take(&self, plan: &TablePlan, step: &UpgradeStep) -> Result<(), StoreError> {
        let (client, table) = (&self.client, &plan.table);
        match step {
            UpgradeStep::Begin => {
                info!("upgrading {}: {} pages", table.name, table.pages);
                exclusive(client, table, &plan.begin())
                    .await
                    .map_err(StoreError::classify)
            }
            UpgradeStep::Fill => {
                let check = plan.check().unwrap_or_default();
                fill::fill(client, plan, &check)
                    .await
                    .map_err(StoreError::classify)
            }
            UpgradeStep::Index(build) => index::build(self.config, client, plan, build).await,
            UpgradeStep::Finish => {
                self.finish(plan).await.map_err(StoreError::classify)?;
                info!("upgraded {}", table.name);
                Ok(())
            }
        }
    }

    async fn finish(&self, plan: &TablePlan) -> Result<(), Error> {
        let path = plan.table.path();
        // The columns that take the place of others are new to the planner.
        self.client
            .batch_execute(&format!("analyze {path}"))
            .await?;
        let query = format!("select coalesce(max(id), 0)::bigint from only {path}");
        let largest = self.client.query_one(&query, &[]).await?.try_get(0)?;
        exclusive(&self.client, &plan.table, &plan.finish(largest)).await
    }

    /// Lets INSERTs of others leave out what is ticketd's, where an earlier ticketd did not. Nothing
    /// of ours needs it, so nobody is waited for.
    async fn set_defaults(&self, plan: &TablePlan) -> Result<(), Error> {
        if plan.defaults.is_empty() {
            return Ok(());
        }
        let name = plan.spec.name;
        match exclusive_once(&self.client, &plan.table, &plan.only_defaults()).await {
            Ok(true) => {}
            Ok(false) => warn!(
                "columns of {name} have no default, and others' transactions are in the way: \
                 INSERTs of the Go service fail until ticketd migrate was run again"
            ),
            Err(error) if error.as_db_error().is_some() => {
                warn!(
                    "columns of {name} have no default: {:#}",
                    StoreError::classify(error)
                );
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

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
