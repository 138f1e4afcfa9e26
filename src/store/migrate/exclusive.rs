//! A table's lock for an instant, without making its writers wait for long.
//!
//! A session that asks for the lock makes every later one wait behind it, for as long as it waits
//! itself. So it is asked for only while no old transaction holds the table, and not for long.
//!
//! Before that comes a weaker lock, for which nobody has to wait but vacuum and its like: PostgreSQL
//! ends an autovacuum for whoever waits for it, but only after `deadlock_timeout`.

use std::fmt;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};
use tracing::info;

use super::catalog::Table;

/// Maximum wait for the weaker lock, at a time.
const WAIT_FOR_VACUUM: Duration = Duration::from_secs(5);

/// Maximum time that writers wait behind a request of ours that is not granted.
const WAIT: Duration = Duration::from_millis(400);

/// Maximum wait for each further lock, while the table's is held.
const WAIT_WITHIN: Duration = Duration::from_millis(200);

/// Between two looks at who holds the table.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Writers have this long after each attempt that made them wait.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// It is asked for all the same after this long: old transactions may come one after the other.
pub(super) const FORCED_AFTER: Duration = Duration::from_secs(10);

/// Between two log lines about who holds the table.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

// A transaction of another user's begins at a time that we may not know.
const HOLDERS: &str = "select l.pid, coalesce(nullif(a.application_name, ''), a.backend_type, 'unknown'), \
    extract(epoch from clock_timestamp() - a.xact_start)::float8 \
    from pg_locks l left join pg_stat_activity a on a.pid = l.pid \
    where l.locktype = 'relation' and l.relation = any ($1) and l.granted and l.pid <> pg_backend_pid() \
    and l.mode <> 'ShareUpdateExclusiveLock' \
    and l.database = (select oid from pg_database where datname = current_database()) \
    order by 3 desc nulls last limit 1";

const OIDS: &str =
    "select c.oid from unnest($1::text[]) name join pg_class c on c.oid = to_regclass(name)";

/// A transaction this old may not be over in a moment.
const OLD_S: f64 = 0.5;

/// Runs statements in one transaction while nobody else uses the table.
pub(super) async fn exclusive(
    client: &Client,
    table: &Table,
    statements: &str,
) -> Result<(), Error> {
    let mut asked = Instant::now();
    let mut said: Option<Instant> = None;
    loop {
        if let Some(staying) = staying(client, &[table.oid]).await?
            && asked.elapsed() < FORCED_AFTER
        {
            if asked.elapsed() > RETRY_DELAY && said.is_none_or(|at| at.elapsed() > LOG_INTERVAL) {
                said = Some(Instant::now());
                info!("waiting for {staying}, which holds {}", table.name);
            }
            sleep(POLL_INTERVAL).await;
            continue;
        }
        if exclusive_once(client, table, statements).await? {
            return Ok(());
        }
        info!("{} is in use: trying again", table.name);
        asked = Instant::now();
        sleep(RETRY_DELAY).await;
    }
}

/// The same, once: true if it was done, false if somebody was in the way.
pub(super) async fn exclusive_once(
    client: &Client,
    table: &Table,
    statements: &str,
) -> Result<bool, Error> {
    match attempt(client, table, statements).await {
        Ok(()) => Ok(true),
        Err(error) if !client.is_closed() => {
            client.batch_execute("rollback").await?;
            if is_in_the_way(&error) {
                Ok(false)
            } else {
                Err(error)
            }
        }
        Err(error) => Err(error),
    }
}

async fn attempt(client: &Client, table: &Table, statements: &str) -> Result<(), Error> {
    let lock = |mode, wait: Duration| {
        let (path, wait) = (table.path(), wait.as_millis());
        format!("set local lock_timeout = {wait}; lock table only {path} in {mode} mode;")
    };
    let weaker = lock("share update exclusive", WAIT_FOR_VACUUM);
    client.batch_execute(&format!("begin; {weaker}")).await?;
    let stronger = lock("access exclusive", WAIT);
    let within = WAIT_WITHIN.as_millis();
    let script = format!("{stronger} set local lock_timeout = {within};\n{statements}commit");
    client.batch_execute(&script).await
}

/// Whether it may go better the next time.
pub(super) fn is_in_the_way(error: &Error) -> bool {
    error.code().is_some_and(|code| {
        [
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::T_R_DEADLOCK_DETECTED,
        ]
        .contains(code)
    })
}

/// A session that uses the table.
pub(super) struct Holder {
    pid: i32,
    application: String,
    age_s: Option<f64>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (pid, application) = (self.pid, &self.application);
        let age_s = self.age_s.unwrap_or_default();
        write!(f, "process {pid} ({application}), begun {age_s:.0} s ago")
    }
}

/// One that holds a table of these names and may not be done in a moment.
pub(super) async fn staying_in(client: &Client, tables: &[&str]) -> Result<Option<Holder>, Error> {
    let rows = client.query(OIDS, &[&tables]).await?;
    let oids: Result<Vec<u32>, _> = rows.iter().map(|row| row.try_get(0)).collect();
    staying(client, &oids?).await
}

async fn staying(client: &Client, tables: &[u32]) -> Result<Option<Holder>, Error> {
    let oldest = oldest(client, tables).await?;
    Ok(oldest.filter(|holder| holder.age_s.is_some_and(|age| age > OLD_S)))
}

/// The one whose transaction was begun first.
async fn oldest(client: &Client, tables: &[u32]) -> Result<Option<Holder>, Error> {
    let row = client.query_opt(HOLDERS, &[&tables]).await?;
    let holder = row.map(|row| {
        Ok(Holder {
            pid: row.try_get(0)?,
            application: row.try_get(1)?,
            age_s: row.try_get(2)?,
        })
    });
    holder.transpose()
}
