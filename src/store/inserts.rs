//! The statements that write tickets and dead tickets, with columns for their origins and without.
//!
//! Tickets whose origin is not known are written as before these columns came, so that tables that
//! could not be given them yet are good enough. Nothing of a ticket is left out for them: one whose
//! origin is known waits in RabbitMQ until they are there.

use std::time::SystemTime;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Statement};
use uuid::Uuid;

use super::copy::{self, Dead, Encoded};
use super::error::StoreError;
use crate::source::SourceRef;

const INSERT_DEAD: &str = "insert into dead_tickets (ticket_id, reason, body, received_at) \
    select * from unnest($1::uuid[], $2::text[], $3::bytea[], $4::timestamptz[]) \
    on conflict do nothing";

// For a table that could not be given the column yet.
const INSERT_DEAD_WITHOUT_TIME: &str = "insert into dead_tickets (ticket_id, reason, body) \
    select ticket_id, reason, body \
    from unnest($1::uuid[], $2::text[], $3::bytea[], $4::timestamptz[]) \
        as dead (ticket_id, reason, body, received_at) \
    on conflict do nothing";

const INSERT_DEAD_WITH_ORIGIN: &str = "insert into dead_tickets \
    (ticket_id, reason, body, received_at, source, issued_at) \
    select * from unnest($1::uuid[], $2::text[], $3::bytea[], $4::timestamptz[], $5::text[], $6::timestamptz[]) \
    on conflict do nothing";

/// Whether both tables have the columns for tickets' origins, and what came before them.
const HAVE_ORIGINS: &str = "select count(*) = 5 from pg_attribute where not attisdropped and ( \
    attrelid in ('tickets'::regclass, 'dead_tickets'::regclass) and attname in ('source', 'issued_at') \
    or attrelid = 'dead_tickets'::regclass and attname = 'received_at')";

const NO_ORIGINS: &str = "tickets with a source or a time of issue wait until `ticketd migrate`, \
    run as the tables' owner, has given tickets and dead_tickets these columns";

/// The statements of a connection.
pub(super) struct Inserts {
    plain: Insert,
    /// None while the tables have no columns for origins.
    with_origins: Option<Insert>,
}

/// What writes rows of one form.
pub(super) struct Insert {
    /// COPY into `tickets`.
    pub copy_tickets: Statement,
    insert_dead: Statement,
}

impl Inserts {
    /// Prepares them.
    pub(super) async fn prepare(client: &Client) -> Result<Self, Error> {
        // Not told by preparing: PostgreSQL looks at COPY's columns when it is run.
        let have_origins = client.query_one(HAVE_ORIGINS, &[]).await?;
        let with_origins = match have_origins.try_get(0)? {
            true => Some(Insert::with_origins(client).await?),
            false => None,
        };
        Ok(Self {
            plain: Insert::plain(client).await?,
            with_origins,
        })
    }

    /// What writes these rows; an error where the tables have no columns for them.
    pub(super) fn of(&self, rows: &Encoded<'_>) -> Result<&Insert, StoreError> {
        if !rows.has_origins {
            return Ok(&self.plain);
        }
        let with_origins = self.with_origins.as_ref();
        with_origins.ok_or_else(|| StoreError::Schema(NO_ORIGINS.into()))
    }
}

impl Insert {
    async fn plain(client: &Client) -> Result<Self, Error> {
        Ok(Self {
            copy_tickets: prepare_copy(client, copy::TICKET_COLUMNS).await?,
            insert_dead: prepare_insert_dead(client).await?,
        })
    }

    async fn with_origins(client: &Client) -> Result<Self, Error> {
        let columns = format!("{}, {}", copy::TICKET_COLUMNS, copy::ORIGIN_COLUMNS);
        Ok(Self {
            copy_tickets: prepare_copy(client, &columns).await?,
            insert_dead: client.prepare(INSERT_DEAD_WITH_ORIGIN).await?,
        })
    }

    /// Inserts the dead tickets among these rows.
    pub(super) async fn insert_dead(
        &self,
        client: &Client,
        rows: &Encoded<'_>,
    ) -> Result<u64, Error> {
        let dead = &rows.dead;
        let ids: Vec<Uuid> = dead.iter().map(|dead| dead.ticket_id).collect();
        let reasons: Vec<&str> = dead.iter().map(|dead| dead.reason.as_str()).collect();
        let bodies: Vec<&[u8]> = dead.iter().map(|dead| dead.body).collect();
        let times: Vec<Option<SystemTime>> = dead.iter().map(Dead::received_at).collect();
        let sources = dead.iter().map(|dead| dead.origin.source);
        let sources: Vec<Option<&str>> = sources.map(|of| of.map(SourceRef::as_str)).collect();
        let issued: Vec<Option<SystemTime>> = dead.iter().map(Dead::issued_at).collect();
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&ids, &reasons, &bodies, &times];
        if rows.has_origins {
            parameters.extend::<[&(dyn ToSql + Sync); 2]>([&sources, &issued]);
        }
        client.execute(&self.insert_dead, &parameters).await
    }
}

async fn prepare_copy(client: &Client, columns: &str) -> Result<Statement, Error> {
    let copy = format!("copy tickets ({columns}) from stdin (format binary)");
    client.prepare(&copy).await
}

async fn prepare_insert_dead(client: &Client) -> Result<Statement, Error> {
    match client.prepare(INSERT_DEAD).await {
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_COLUMN) => {
            client.prepare(INSERT_DEAD_WITHOUT_TIME).await
        }
        prepared => prepared,
    }
}
