//! The tickets that could not be stored, to be listed, shown and replayed.

use std::time::SystemTime;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, Row, Transaction};
use uuid::Uuid;

use super::StoreError;
use super::connect::{Connected, Task, connect};
use crate::config::DatabaseConfig;

const LIST: &str = "select id, ticket_id, created_at::text, reason from dead_tickets order by id";

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
}

impl DeadTickets {
    /// Connects.
    pub(crate) async fn connect(database: &DatabaseConfig) -> Result<Self, StoreError> {
        let Connected { client, task } = connect(database, "ticketd dead").await?;
        let _alive = task;
        Ok(Self { client, _alive })
    }

    /// All of them, oldest first.
    pub(crate) async fn list(&self) -> Result<Vec<DeadTicket>, StoreError> {
        let rows = self.client.query(LIST, &[]).await;
        let tickets = rows.and_then(|rows| rows.iter().map(DeadTicket::read).collect());
        tickets.map_err(StoreError::classify)
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
