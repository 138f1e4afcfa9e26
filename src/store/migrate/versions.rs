//! The versions of the tables, and which of them a database has had.

use std::fmt;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};
use tracing::{debug, info};

use super::super::StoreError;
use super::exclusive::is_in_the_way;
use super::spec::{PRODUCTS, TICKETS, TableSpec};

/// The tables of a fresh database, at the newest version.
pub(super) const SCHEMA: &str = include_str!("../../../schema.sql");

/// The migration that makes the views of a day again, if one is missing: whoever changes a column that
/// they read has to drop them first.
const VIEWS: i32 = 5;

/// What brings the tables from one version to the next.
#[derive(Debug)]
pub(super) struct Migration {
    /// Its place in the order, from 1 on.
    pub version: i32,
    /// What it is about, as its file is named.
    pub name: &'static str,
    /// Tables that are brought up to date before it, beside their writers.
    pub online: &'static [&'static TableSpec],
    /// Tables that it changes, which their writers wait for: it is left for later while a transaction
    /// stays in one.
    pub alters: &'static [&'static str],
    /// The rest, which takes an instant. Run again, it does no harm.
    sql: &'static str,
    /// Whether tickets can be stored without it.
    pub is_optional: bool,
}

/// All of them. One that was released is never changed: what it did wrong, the next one puts right.
pub(super) const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "go_service",
        online: &[],
        alters: &[],
        sql: include_str!("../migrations/0001_go_service.sql"),
        is_optional: false,
    },
    Migration {
        version: 2,
        name: "ticketd",
        online: &[&TICKETS, &PRODUCTS],
        alters: &[],
        sql: include_str!("../migrations/0002_ticketd.sql"),
        is_optional: false,
    },
    Migration {
        version: 3,
        name: "dead_tickets_received_at",
        online: &[],
        alters: &[],
        sql: include_str!("../migrations/0003_dead_tickets_received_at.sql"),
        is_optional: true,
    },
    Migration {
        version: 4,
        name: "source_and_issued_at",
        online: &[],
        alters: &["tickets", "dead_tickets"],
        sql: include_str!("../migrations/0004_source_and_issued_at.sql"),
        // Those that have neither can; the others wait.
        is_optional: true,
    },
    Migration {
        version: VIEWS,
        name: "day_views",
        online: &[],
        alters: &[],
        sql: include_str!("../migrations/0005_day_views.sql"),
        is_optional: true,
    },
];

// What a migration waits for a lock, writers wait too.
const BEGIN: &str = "begin; set local lock_timeout = '1s'";

// In the schema of the tables; where there are none, in that which they will be made in.
const RECORD: &str = "select format('%I.ticketd_migrations', n.nspname), c.oid is not null, \
    coalesce(has_table_privilege(c.oid, 'select'), false), \
    coalesce((select pg_has_role(relowner, 'usage') from pg_class where oid = to_regclass('tickets')), true) \
    from pg_namespace n left join pg_class c on c.relnamespace = n.oid and c.relname = 'ticketd_migrations' \
    where n.oid = (select relnamespace from pg_class where oid = to_regclass('tickets')) \
    or to_regclass('tickets') is null and n.nspname = current_schema";

const OBJECTS: &str = "select count(to_regclass(name)), count(*) \
    from unnest(array['tickets', 'products', 'dead_tickets', 'ticket_lines']) name";

const HAS_VIEWS: &str = "select bool_and(to_regclass(name) is not null) \
    from unnest(array['ticket_facts', 'ticket_days', 'ticket_order_gaps', 'ticket_doubles', 'ticket_implausible_vat']) name";

/// Which migrations a database has had, as far as it says so.
#[derive(Debug)]
pub(super) struct Versions {
    /// The table that says so, with its schema.
    record: String,
    /// None without that table, or without the right to read it.
    applied: Option<Vec<i32>>,
    has_record: bool,
    /// Whether the table may be made here: nobody but the owner of the others could use it.
    is_owner: bool,
    objects: Objects,
    /// Whether all views of a day are there.
    has_views: bool,
}

/// How many of the tables and views are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Objects {
    None,
    Some,
    All,
}

/// What came of a migration.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Applied,
    /// Others' transactions are in the way.
    InUse,
    /// The role may not do it, or the server is a read-only replica.
    NotAllowed(String),
}

impl Versions {
    /// Reads what the database says.
    pub(super) async fn read(client: &Client) -> Result<Self, Error> {
        let row = client.query_opt(RECORD, &[]).await?;
        let objects = client.query_one(OBJECTS, &[]).await?;
        let views = client.query_one(HAS_VIEWS, &[]).await?;
        let mut versions = Self {
            record: "ticketd_migrations".to_owned(),
            applied: None,
            has_record: false,
            is_owner: true,
            objects: Objects::of(objects.try_get(0)?, objects.try_get(1)?),
            has_views: views.try_get(0)?,
        };
        // Without it there is no schema to make anything in, which making it will say.
        if let Some(row) = row {
            versions.record = row.try_get(0)?;
            versions.has_record = row.try_get(1)?;
            versions.is_owner = row.try_get(3)?;
            if row.try_get(2)? {
                versions.applied = Some(versions.read_record(client).await?);
            }
        }
        Ok(versions)
    }

    async fn read_record(&self, client: &Client) -> Result<Vec<i32>, Error> {
        let query = format!("select version from {} order by version", self.record);
        let rows = client.query(&query, &[]).await?;
        rows.iter().map(|row| row.try_get(0)).collect()
    }

    /// Fails where nobody can tell what is to be done.
    pub(super) fn check_readable(&self) -> Result<(), StoreError> {
        if self.applied.is_some() || !self.has_record {
            return Ok(());
        }
        let why = format!("this role may not read {}", self.record);
        Err(StoreError::Schema(why.into()))
    }

    /// Whether nothing of ticketd's or the Go service's is there.
    pub(super) fn is_fresh(&self) -> bool {
        !self.has_record && self.objects == Objects::None
    }

    /// The version, if it is newer than any that is known here.
    pub(super) fn newer(&self) -> Option<i32> {
        let last = self.applied.as_ref()?.last().copied();
        last.filter(|last| MIGRATIONS.iter().all(|known| known.version < *last))
    }

    /// Whether a migration is still to be applied. All are, where a table or view is missing, since
    /// somebody has dropped it. Where the role may not read what was applied, all counts as applied.
    pub(super) fn is_pending(&self, migration: &Migration) -> bool {
        match &self.applied {
            None => !self.has_record,
            Some(_) if self.objects != Objects::All => true,
            Some(_) if migration.version == VIEWS && !self.has_views => true,
            Some(applied) => !applied.contains(&migration.version),
        }
    }

    /// Makes the tables where there are none, at the newest version.
    pub(super) async fn create(&self, client: &Client) -> Result<(), Error> {
        let rows: String = MIGRATIONS.iter().map(|known| self.insert(known)).collect();
        let script = format!("{BEGIN}; {SCHEMA} {rows} commit");
        client.batch_execute(&script).await
    }

    /// Applies a migration and records it, in one transaction.
    pub(super) async fn apply(
        &self,
        client: &Client,
        migration: &Migration,
    ) -> Result<Outcome, Error> {
        if self.has_record || self.is_owner {
            let outcome = attempt(client, migration, &self.record(migration)).await?;
            let Outcome::NotAllowed(why) = &outcome else {
                if outcome == Outcome::Applied {
                    info!("{migration} is applied");
                }
                return Ok(outcome);
            };
            debug!("{migration} cannot be recorded: {why}");
        }
        // Where it has nothing to do, any role may find that out.
        attempt(client, migration, "").await
    }

    /// The statements that record a migration.
    fn record(&self, migration: &Migration) -> String {
        let table = if self.has_record {
            String::new()
        } else {
            let columns = "version integer primary key, name text not null, \
                applied_at timestamptz not null default now()";
            format!("create table if not exists {} ({columns});", self.record)
        };
        table + &self.insert(migration)
    }

    fn insert(&self, migration: &Migration) -> String {
        let (record, version, name) = (&self.record, migration.version, migration.name);
        format!(
            "insert into {record} (version, name) values ({version}, '{name}') \
             on conflict (version) do nothing; "
        )
    }
}

impl fmt::Display for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "migration {} ({})", self.version, self.name)
    }
}

impl Objects {
    fn of(found: i64, all: i64) -> Self {
        match found {
            0 => Self::None,
            found if found < all => Self::Some,
            _ => Self::All,
        }
    }
}

/// Applies a migration once, with these statements after it.
async fn attempt(client: &Client, migration: &Migration, record: &str) -> Result<Outcome, Error> {
    let script = format!("{BEGIN}; {} {record} commit", migration.sql);
    let Err(error) = client.batch_execute(&script).await else {
        return Ok(Outcome::Applied);
    };
    if !client.is_closed() {
        client.batch_execute("rollback").await?;
    }
    match error.as_db_error() {
        _ if is_in_the_way(&error) => Ok(Outcome::InUse),
        Some(db) if is_not_allowed(db.code()) => Ok(Outcome::NotAllowed(db.message().to_owned())),
        _ => Err(error),
    }
}

fn is_not_allowed(code: &SqlState) -> bool {
    [
        SqlState::INSUFFICIENT_PRIVILEGE,
        SqlState::READ_ONLY_SQL_TRANSACTION,
    ]
    .contains(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(applied: Option<&[i32]>, has_record: bool, objects: Objects) -> Versions {
        Versions {
            record: "public.ticketd_migrations".to_owned(),
            applied: applied.map(<[_]>::to_vec),
            has_record,
            is_owner: true,
            objects,
            has_views: true,
        }
    }

    fn all() -> Vec<i32> {
        MIGRATIONS.iter().map(|known| known.version).collect()
    }

    fn pending(versions: &Versions) -> Vec<i32> {
        let pending = MIGRATIONS.iter().filter(|known| versions.is_pending(known));
        pending.map(|pending| pending.version).collect()
    }

    #[test]
    fn versions_follow_each_other_and_leave_the_transaction_to_their_caller() {
        assert_eq!(all(), (1..=all().len() as i32).collect::<Vec<_>>());
        let scripts = MIGRATIONS.iter().map(|known| known.sql).chain([SCHEMA]);
        for line in scripts.flat_map(str::lines).map(str::trim) {
            let ends = ["begin;", "commit;", "rollback;"].contains(&line);
            assert!(!ends, "{line}");
        }
    }

    #[test]
    fn what_is_not_recorded_is_pending() {
        assert_eq!(pending(&versions(None, false, Objects::All)), all());
        let first_two = versions(Some(&[1, 2]), true, Objects::All);
        assert_eq!(pending(&first_two), all()[2..]);
        let newest = all();
        assert_eq!(
            pending(&versions(Some(&newest), true, Objects::All)),
            [0; 0]
        );
    }

    #[test]
    fn everything_is_pending_where_something_was_dropped() {
        let dropped = versions(Some(&all()), true, Objects::Some);
        assert_eq!(pending(&dropped), all());
        assert!(!dropped.is_fresh());
    }

    #[test]
    fn a_view_that_is_missing_is_made_again() {
        let mut without = versions(Some(&all()), true, Objects::All);
        without.has_views = false;
        assert_eq!(pending(&without), [VIEWS]);
    }

    #[test]
    fn a_record_that_may_not_be_read_is_trusted() {
        let trusted = versions(None, true, Objects::All);
        assert_eq!(pending(&trusted), [0; 0]);
        assert_eq!(trusted.newer(), None);
    }

    #[test]
    fn only_a_version_that_is_not_known_is_newer() {
        let newest = all().len() as i32;
        let at = |last| versions(Some(&[1, last]), true, Objects::All).newer();
        assert_eq!(at(newest), None);
        assert_eq!(at(newest + 1), Some(newest + 1));
    }

    #[test]
    fn a_database_is_fresh_only_with_nothing_in_it() {
        assert!(versions(None, false, Objects::None).is_fresh());
        assert!(!versions(None, false, Objects::Some).is_fresh());
        assert!(!versions(None, true, Objects::None).is_fresh());
    }
}
