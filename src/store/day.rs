//! What is on the books of a day, and who has fallen silent.
//!
//! PostgreSQL counts, and writes the JSON. Money and order ids stay text, since many readers turn a
//! JSON number into a float.

use std::time::SystemTime;

use serde_json::Value;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error};

use super::StoreError;
use super::connect::{Connected, Task, connect};
use crate::config::{BusinessDay, DatabaseConfig};
use crate::source::Source;

// Many tickets are counted at once, by an operator who waits. It writes nothing.
const SESSION: &str = "set statement_timeout = '30min'; set work_mem = '128MB'; \
    set timezone = 'UTC'; set default_transaction_read_only = on";

// Times are told in the zone from then on. Elsewhere PostgreSQL takes a name that it does not know for
// the rule of a zone of one's own, and Europe-3 is one.
const ZONE: &str = "select $1::text::date::timestamp at time zone name, \
    ($1::text::date + 1)::timestamp at time zone name, set_config('timezone', name, false) \
    from pg_timezone_names where lower(name) = lower($2)";

const DAY: &str = include_str!("day/day.sql");

const SILENT: &str = include_str!("day/silent.sql");

/// How many of each list are told: gaps, doubles, implausible VAT.
const LISTED_MAX: i64 = 20;

/// A connection that looks through the tickets of a day.
pub(crate) struct TicketDays {
    client: Client,
    _alive: Task,
}

/// Why nothing is known of a day.
#[derive(Debug)]
pub(crate) enum DayError {
    /// There is no such time zone.
    UnknownZone,
    /// The tables could not be read.
    Store(StoreError),
}

impl TicketDays {
    /// Connects.
    pub(crate) async fn connect(database: &DatabaseConfig) -> Result<Self, StoreError> {
        let Connected { client, task, .. } = connect(database, "ticketd day").await?;
        let _alive = task;
        let set = client.batch_execute(SESSION).await;
        set.map_err(StoreError::classify)?;
        Ok(Self { client, _alive })
    }

    /// What each source sent on a day of business, an object a source, by name. Which tickets a day
    /// has is said in docs/reference/commands.md.
    pub(crate) async fn day(
        &self,
        day: &BusinessDay,
        source: Option<&Source>,
        vat_max: &str,
    ) -> Result<Vec<Value>, DayError> {
        let (from, to) = self.bounds(day).await?;
        let source = source.map(Source::as_str);
        let parameters: [&(dyn ToSql + Sync); 5] = [&from, &to, &source, &vat_max, &LISTED_MAX];
        let found = self.objects(DAY, &parameters).await;
        found.map_err(DayError::Store)
    }

    /// The sources that have sent nothing for longer than they usually do, an object each, the
    /// longest silent first.
    pub(crate) async fn silent(&self) -> Result<Vec<Value>, StoreError> {
        self.objects(SILENT, &[]).await
    }

    /// The first moment of a day, and the first after it.
    async fn bounds(&self, day: &BusinessDay) -> Result<(SystemTime, SystemTime), DayError> {
        let row = self
            .client
            .query_opt(ZONE, &[&day.date, &day.zone.zone])
            .await;
        let bounds = match row {
            Ok(None) => return Err(DayError::UnknownZone),
            Ok(Some(row)) => row.try_get(0).and_then(|from| Ok((from, row.try_get(1)?))),
            Err(error) => Err(error),
        };
        bounds.map_err(|error| DayError::Store(StoreError::classify(error)))
    }

    async fn objects(
        &self,
        query: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Value>, StoreError> {
        let rows = self.client.query(query, parameters).await;
        let texts: Result<Vec<String>, _> =
            rows.and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect());
        let texts = texts.map_err(table_error)?;
        let objects = texts.iter().map(|text| serde_json::from_str(text));
        objects
            .collect::<Result<_, _>>()
            .map_err(|error| StoreError::Unavailable(error.to_string().into()))
    }
}

/// What reading `tickets` failed with, and what to do where it is of an older version.
pub(super) fn table_error(error: Error) -> StoreError {
    match error.code() {
        Some(&SqlState::UNDEFINED_COLUMN | &SqlState::UNDEFINED_TABLE) => {
            let why = "tickets is missing or of an older version: run `ticketd migrate`";
            StoreError::Schema(why.into())
        }
        _ => StoreError::classify(error),
    }
}
