//! The tickets that could not be stored, to be listed, shown and replayed.

use std::time::SystemTime;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, Row, Transaction};
use uuid::Uuid;

use super::StoreError;
use super::connect::{Connected, Task, connect};
use crate::config::{DatabaseConfig, DeadFilter};
use crate::source::Source;

const LIST: &str = "select id, ticket_id, created_at::text, reason, source, issued_at::text, \
    received_at::text, octet_length(body) from dead_tickets \
    where id > $1 and id <= $2 and ($3::uuid is null or ticket_id = $3) \
    and ($4::text is null or position($4 in reason) > 0) and ($5::text is null or source = $5) \
    and ($6::timestamptz is null or created_at >= $6) and ($7::timestamptz is null or created_at < $7) \
    and ($8::bigint[] is null or id = any($8)) order by id limit $9";

const LAST: &str = "select coalesce(max(id), 0) from dead_tickets";

const PURGE: &str = "delete from dead_tickets where id = any($1)";

/// How many are listed at once.
const PAGE: i64 = 500;

const BODY: &str = "select body from dead_tickets where id = $1";

// A ticket of before the column was there was received no later than it died.
const TAKE: &str = "delete from dead_tickets where id = $1 \
    returning ticket_id, coalesce(received_at, created_at), body, source, issued_at";

const STORED_TEXT: &str = "select ticket_text from tickets where ticket_id = $1";

/// A connection that looks at dead tickets.
pub(crate) struct DeadTickets {
    client: Client,
    _alive: Task,
}

/// A dead ticket without its text.
#[derive(Debug)]
pub(crate) struct DeadTicket {
    /// What it is called on the list.
    pub number: i64,
    /// The id that it was accepted under.
    pub ticket_id: Uuid,
    /// When it died, as PostgreSQL writes it.
    pub created_at: String,
    /// Why it could not be stored.
    pub reason: String,
    /// Who sent it, if that is known.
    pub source: Option<String>,
    /// When it was issued, if that is known.
    pub issued_at: Option<String>,
    /// When it was received, if that is known.
    pub received_at: Option<String>,
    /// The length of its text, in bytes.
    pub bytes: i32,
}

/// Some of the list, read in portions. What dies after it was begun is not of it: a ticket that dies
/// again would be met for ever.
pub(crate) struct DeadList {
    filter: DeadFilter,
    numbers: Option<Vec<i64>>,
    after: i64,
    last: i64,
}

impl DeadTickets {
    /// Connects.
    pub(crate) async fn connect(database: &DatabaseConfig) -> Result<Self, StoreError> {
        let Connected { client, task, .. } = connect(database, "ticketd dead").await?;
        let _alive = task;
        Ok(Self { client, _alive })
    }

    /// Those that fit, or those of these numbers, to be read by [`Self::next`].
    pub(crate) async fn list(
        &self,
        filter: DeadFilter,
        numbers: Option<Vec<i64>>,
    ) -> Result<DeadList, StoreError> {
        let last = self.client.query_one(LAST, &[]).await;
        let last = last.and_then(|row| row.try_get(0));
        Ok(DeadList {
            filter,
            numbers,
            after: 0,
            last: last.map_err(StoreError::classify)?,
        })
    }

    /// The next portion of a list, oldest first; empty at its end.
    pub(crate) async fn next(&self, list: &mut DeadList) -> Result<Vec<DeadTicket>, StoreError> {
        let DeadFilter {
            id,
            reason,
            source,
            since,
            until,
        } = &list.filter;
        let source = source.as_ref().map(Source::as_str);
        let rows = self
            .client
            .query(
                LIST,
                &[
                    &list.after,
                    &list.last,
                    id,
                    reason,
                    &source,
                    since,
                    until,
                    &list.numbers,
                    &PAGE,
                ],
            )
            .await;
        let tickets: Result<Vec<_>, _> =
            rows.and_then(|rows| rows.iter().map(DeadTicket::read).collect());
        let tickets = tickets.map_err(table_error)?;
        if let Some(last) = tickets.last() {
            list.after = last.number;
        }
        Ok(tickets)
    }

    /// Takes those of these numbers off the list for good; returns how many there were.
    pub(crate) async fn purge(&self, numbers: &[i64]) -> Result<u64, StoreError> {
        let purged = self.client.execute(PURGE, &[&numbers]).await;
        purged.map_err(StoreError::classify)
    }

    /// The exact bytes of one; none if there is none of that number.
    pub(crate) async fn body(&self, number: i64) -> Result<Option<Vec<u8>>, StoreError> {
        let row = self.client.query_opt(BODY, &[&number]).await;
        let body = row.and_then(|row| row.map(|row| row.try_get(0)).transpose());
        body.map_err(StoreError::classify)
    }

    /// Takes one off the list, if it is there, in a transaction that is still to be committed.
    pub(crate) async fn take(
        &mut self,
        number: i64,
    ) -> Result<Option<TakenTicket<'_>>, StoreError> {
        let transaction = self.client.transaction().await;
        let transaction = transaction.map_err(StoreError::classify)?;
        let row = transaction.query_opt(TAKE, &[&number]).await;
        let Some(row) = row.map_err(table_error)? else {
            return Ok(None);
        };
        let taken = TakenTicket::read(transaction, &row);
        taken.map(Some).map_err(StoreError::classify)
    }
}

impl DeadTicket {
    fn read(row: &Row) -> Result<Self, Error> {
        Ok(Self {
            number: row.try_get(0)?,
            ticket_id: row.try_get(1)?,
            created_at: row.try_get(2)?,
            reason: row.try_get(3)?,
            source: row.try_get(4)?,
            issued_at: row.try_get(5)?,
            received_at: row.try_get(6)?,
            bytes: row.try_get(7)?,
        })
    }
}

fn table_error(error: Error) -> StoreError {
    match error.code() {
        Some(&SqlState::UNDEFINED_COLUMN) => {
            StoreError::Schema("dead_tickets is of an older version: run `ticketd migrate`".into())
        }
        _ => StoreError::classify(error),
    }
}

/// A ticket that is off the list once this is committed, and stays on it otherwise.
pub(crate) struct TakenTicket<'a> {
    transaction: Transaction<'a>,
    /// The id that it was accepted under.
    pub ticket_id: Uuid,
    /// When it was received, or died if that is not known.
    pub received_at: SystemTime,
    /// The ticket as it came.
    pub body: Vec<u8>,
    /// Who sent it, if that is known.
    pub source: Option<String>,
    /// When it was issued, if that is known.
    pub issued_at: Option<SystemTime>,
}

/// What a dead ticket may be called, and whether it has to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// No ticket of this id is stored.
    Free(Uuid),
    /// The same text is stored under this id.
    Stored(Uuid),
    /// Every id that it could have belongs to another text.
    Taken,
}

impl<'a> TakenTicket<'a> {
    fn read(transaction: Transaction<'a>, row: &Row) -> Result<Self, Error> {
        Ok(Self {
            transaction,
            ticket_id: row.try_get(0)?,
            received_at: row.try_get(1)?,
            body: row.try_get(2)?,
            source: row.try_get(3)?,
            issued_at: row.try_get(4)?,
        })
    }

    /// The id that a ticket was accepted under, so that its sender may still repeat it; where
    /// another text has that by now, one that is made from both.
    pub(crate) async fn identify(&self, id: Uuid, body: &[u8]) -> Result<Identity, StoreError> {
        for id in [id, Uuid::new_v5(&id, body)] {
            let row = self.transaction.query_opt(STORED_TEXT, &[&id]).await;
            let Some(row) = row.map_err(StoreError::classify)? else {
                return Ok(Identity::Free(id));
            };
            let text: Option<String> = row.try_get(0).map_err(StoreError::classify)?;
            if text.is_some_and(|text| text.as_bytes() == body) {
                return Ok(Identity::Stored(id));
            }
        }
        Ok(Identity::Taken)
    }

    /// Leaves it off the list.
    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        let committed = self.transaction.commit().await;
        committed.map_err(StoreError::classify)
    }
}
