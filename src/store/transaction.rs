//! One transaction for one batch: COPY, merge, COMMIT.
//!
//! A flush that reports success was committed with every statement's result
//! read, with `synchronous_commit` on, and without a warning: a synchronous
//! standby has it, where there is one. Everything else may or may not have been
//! committed and is done again: `tickets.ticket_id` keeps one row an id, so a
//! repetition changes nothing.
//!
//! What a repetition finds stored may be on this server alone, if it crashed or
//! the wait for the standby was cut short. So each transaction writes to the
//! WAL, even where it has no row to store: COMMIT waits for the standby only if
//! it did, and by then the standby has all that was written before.
//!
//! Tickets are copied straight into their table: a staging table and a merge
//! with ON CONFLICT cost half as much again, and almost every id is new. An id
//! that is not refuses the whole batch, and the caller asks which ones are
//! stored. Products are merged with ON CONFLICT, as most of them are there
//! already.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::SinkExt;
use futures_util::future::try_join;
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, CopyInSink, Error, Row, Statement};
use uuid::Uuid;

use super::chunks::Chunks;
use super::connect::{self, Connected, connect, unresponsive};
use super::copy::{Encoded, ProductRow};
use super::error::StoreError;
use super::inserts::Inserts;
use super::notices::Warnings;
use super::products;
use super::unique_keys::UniqueKeys;
use crate::config::DatabaseConfig;
use crate::metrics::StoreMetrics;

/// Maximum time for one flush until COMMIT. What hangs on a live connection of a
/// server that answers others, such as a stopped backend, ends only by this.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(40);

/// Maximum time for COMMIT, which `statement_timeout` does not end while it waits for a standby.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(40);

/// Writes a record to the WAL that means nothing to anybody
/// (<https://www.postgresql.org/docs/current/functions-admin.html#PG-LOGICAL-EMIT-MESSAGE>).
const WRITE_WAL: &str = "select pg_logical_emit_message(true, 'ticketd', '')";

/// Only a text of the length that is asked for can be the same, and only that is sent.
const STORED_TEXTS: &str = "select ticket_id, \
    case when octet_length(ticket_text) = asked.bytes then ticket_text else '' end \
    from unnest($1::uuid[], $2::int[]) as asked (id, bytes) join tickets on ticket_id = asked.id";

/// Each id is looked up by itself, so that of a partitioned table only those partitions are read that
/// ids may be in; what else is planned for them would read all.
const LOOK_UP_BY_INDEX: &str =
    "set enable_hashjoin = off; set enable_mergejoin = off; set enable_seqscan = off";

/// The most ids that are asked for at once.
const STORED_TEXTS_MAX: usize = 4096;

/// Tickets' rows, and products' rows, that are only tried.
pub(crate) type Trial<'a> = (&'a Encoded<'a>, &'a [ProductRow<'a>]);

/// Which rows the tables would accept, of those that they are known to accept, and suspected ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// Only the known ones: the others are at fault.
    OnlyKnownAccepted,
    /// Not even the known ones: the tables are at fault.
    NoneAccepted,
    /// Both.
    BothAccepted,
    /// The known ones were refused for a reason of their own.
    Unknown,
}

/// A connection with its prepared statements.
pub(crate) struct Store {
    client: Client,
    connection: connect::Task,
    warnings: Arc<Warnings>,
    server: DatabaseConfig,
    inserts: Inserts,
    merge_products: Statement,
    stored_texts: Statement,
    unique_keys: UniqueKeys,
    metrics: StoreMetrics,
}

impl Store {
    /// Connects and prepares every statement, which fails if the tables do not fit.
    pub(crate) async fn open(
        config: &DatabaseConfig,
        metrics: StoreMetrics,
    ) -> Result<Self, StoreError> {
        let connected = connect(config, "ticketd store").await?;
        let preparing = timeout(FLUSH_TIMEOUT, Self::prepare(connected, metrics)).await;
        let store =
            preparing.map_err(|_late| StoreError::Unavailable("no answer in time".into()))?;
        store.map_err(StoreError::classify)
    }

    async fn prepare(connected: Connected, metrics: StoreMetrics) -> Result<Self, Error> {
        let Connected {
            client,
            task: connection,
            warnings,
            server,
        } = connected;
        client.batch_execute(LOOK_UP_BY_INDEX).await?;
        Ok(Self {
            unique_keys: UniqueKeys::read(&client).await?,
            inserts: Inserts::prepare(&client).await?,
            merge_products: products::prepare(&client).await?,
            stored_texts: client.prepare(STORED_TEXTS).await?,
            client,
            connection,
            warnings,
            server,
            metrics,
        })
    }

    /// Stores all rows, or none. The tickets go out over at most `pacing`. Returns
    /// the ids of the products whose rows were written, as none of them was newer.
    pub(crate) async fn flush(
        &mut self,
        rows: &Encoded<'_>,
        products: &[ProductRow<'_>],
        pacing: Duration,
    ) -> Result<HashSet<String>, StoreError> {
        let flushed = self.unless_hung(self.transaction(rows, products, pacing));
        match flushed.await {
            Err(error) => Err(self.sorted(error).await?),
            flushed => flushed,
        }
    }

    /// The same error, told apart by the keys as they are by now: those of a partition come with it.
    /// It is outside of any transaction.
    async fn sorted(&mut self, error: StoreError) -> Result<StoreError, StoreError> {
        if !self.unique_keys.is_unknown(&error) {
            return Ok(error);
        }
        let read = timeout(COMMIT_TIMEOUT, UniqueKeys::read(&self.client)).await;
        self.unique_keys = answered(read)?;
        Ok(self.unique_keys.sort(error))
    }

    /// Waits for this work, unless the server hangs meanwhile.
    async fn unless_hung<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        tokio::select! {
            done = work => done,
            () = unresponsive(&self.server) => {
                Err(StoreError::Unavailable("the server does not answer any more".into()))
            }
        }
    }

    async fn transaction(
        &self,
        rows: &Encoded<'_>,
        products: &[ProductRow<'_>],
        pacing: Duration,
    ) -> Result<HashSet<String>, StoreError> {
        let merged = timeout(FLUSH_TIMEOUT, self.merge(rows, products, pacing)).await;
        match merged.unwrap_or_else(|_late| Err(StoreError::Timeout("no answer in time".into()))) {
            Ok(written) => {
                let committed = self.commit().await;
                committed.map_err(|error| error.of_products(!products.is_empty()))?;
                Ok(written)
            }
            Err(error @ StoreError::Timeout(_)) => Err(error),
            Err(error) => {
                let undone = timeout(COMMIT_TIMEOUT, self.client.batch_execute("rollback")).await;
                answered(undone)?;
                Err(error)
            }
        }
    }

    /// Success means that it is stored for good. A server that answers COMMIT with ROLLBACK reports no
    /// error here, but only after a statement that failed, and then there is none.
    async fn commit(&self) -> Result<(), StoreError> {
        let (started, warnings) = (Instant::now(), self.warnings.count());
        let written = self.client.batch_execute(WRITE_WAL);
        let committed = try_join(written, self.client.batch_execute("commit"));
        answered(timeout(COMMIT_TIMEOUT, committed).await)?;
        if self.warnings.count() != warnings {
            return Err(StoreError::Unavailable(
                "PostgreSQL warned at COMMIT, so the standby may not have it".into(),
            ));
        }
        self.metrics.commit.record(started.elapsed());
        Ok(())
    }

    async fn merge(
        &self,
        rows: &Encoded<'_>,
        products: &[ProductRow<'_>],
        pacing: Duration,
    ) -> Result<HashSet<String>, StoreError> {
        let inserts = self.inserts.of(rows)?;
        let started = Instant::now();
        let begin = self.client.batch_execute("begin");
        let tickets = Chunks::new(rows.tickets.clone(), pacing);
        let copied = try_join(begin, self.copy(&inserts.copy_tickets, tickets)).await;
        copied.map_err(|error| self.unique_keys.sort(StoreError::classify(error)))?;
        self.metrics.copy.record(started.elapsed());

        let started = Instant::now();
        let mut written = HashSet::new();
        if !products.is_empty() {
            let merged = products::merge(&self.client, &self.merge_products, products).await;
            written = merged.map_err(|error| {
                self.unique_keys
                    .sort(StoreError::classify(error))
                    .of_products(true)
            })?;
        }
        if !rows.dead.is_empty() {
            let inserted = inserts.insert_dead(&self.client, rows).await;
            inserted.map_err(StoreError::classify)?;
        }
        self.metrics.merge.record(started.elapsed());
        Ok(written)
    }

    /// Whether the tables would accept these rows now. Nothing is stored.
    pub(crate) async fn try_out(&mut self, trial: Trial<'_>) -> Result<(), StoreError> {
        let tried = self.rolled_back(async || self.check(trial).await).await;
        match tried {
            Err(error) => Err(self.sorted(error).await?),
            tried => tried,
        }
    }

    /// Whether the tables would accept these rows, and others after them in the same transaction,
    /// between which nobody can alter the tables. Nothing is stored.
    pub(crate) async fn compare(
        &mut self,
        known: Trial<'_>,
        suspect: Trial<'_>,
    ) -> Result<Comparison, StoreError> {
        let compared = self.rolled_back(async || {
            self.check(known).await?;
            Ok(self.check(suspect).await)
        });
        let error = match compared.await {
            Ok(Ok(())) => return Ok(Comparison::BothAccepted),
            Ok(Err(error)) => match self.sorted(error).await? {
                StoreError::Conflict(_) => return Ok(Comparison::BothAccepted),
                error if error.is_refusal() => return Ok(Comparison::OnlyKnownAccepted),
                error => return Err(error),
            },
            Err(error) => self.sorted(error).await?,
        };
        match error {
            // A unique key that somebody has added to the table is refused for the copy's sake.
            StoreError::Unique(_) => Ok(Comparison::Unknown),
            StoreError::Conflict(_) => Ok(Comparison::NoneAccepted),
            error if error.is_refusal() => Ok(Comparison::NoneAccepted),
            error => Err(error),
        }
    }

    async fn rolled_back<T>(
        &self,
        act: impl AsyncFnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let trying = async {
            let begun = self.client.batch_execute("begin").await;
            begun.map_err(StoreError::classify)?;
            let tried = act().await;
            let undone = self.client.batch_execute("rollback").await;
            undone.map_err(StoreError::classify)?;
            tried
        };
        let tried = timeout(FLUSH_TIMEOUT, self.unless_hung(trying)).await;
        tried.unwrap_or_else(|_late| Err(StoreError::Timeout("no answer in time".into())))
    }

    async fn check(&self, (rows, products): Trial<'_>) -> Result<(), StoreError> {
        let inserts = self.inserts.of(rows)?;
        let chunks = Chunks::new(rows.tickets.clone(), Duration::ZERO);
        let copied = self.copy(&inserts.copy_tickets, chunks).await;
        copied.map_err(|error| self.unique_keys.sort(StoreError::classify(error)))?;
        if !products.is_empty() {
            let merged = products::merge(&self.client, &self.merge_products, products).await;
            merged.map_err(|error| {
                self.unique_keys
                    .sort(StoreError::classify(error))
                    .of_products(true)
            })?;
        }
        // What COMMIT would check.
        let checked = self.client.batch_execute("set constraints all immediate");
        checked.await.map_err(StoreError::classify)
    }

    async fn copy(&self, statement: &Statement, mut chunks: Chunks) -> Result<u64, Error> {
        let sink: CopyInSink<Bytes> = self.client.copy_in(statement).await?;
        let mut sink = std::pin::pin!(sink);
        while let Some(chunk) = chunks.next().await {
            sink.send(chunk).await?;
        }
        sink.finish().await
    }

    /// The texts that are stored under these ids, each as far as it has so many
    /// bytes: another one is told as an empty text, which no ticket is.
    pub(crate) async fn stored_texts(
        &mut self,
        asked: &[(Uuid, usize)],
    ) -> Result<HashMap<Uuid, String>, StoreError> {
        let mut texts: HashMap<Uuid, String> = HashMap::new();
        for portion in asked.chunks(STORED_TEXTS_MAX) {
            let query = async {
                let rows = self.stored_portion(portion).await;
                rows.map_err(StoreError::classify)
            };
            let rows = timeout(FLUSH_TIMEOUT, self.unless_hung(query)).await;
            let rows =
                rows.map_err(|_late| StoreError::Unavailable("no answer in time".into()))??;
            for (id, text) in rows {
                let known = texts.entry(id).or_default();
                // An id may be asked for with several lengths.
                if !text.is_empty() {
                    *known = text;
                }
            }
        }
        Ok(texts)
    }

    async fn stored_portion(&self, asked: &[(Uuid, usize)]) -> Result<Vec<(Uuid, String)>, Error> {
        let ids: Vec<Uuid> = asked.iter().map(|(id, _)| *id).collect();
        let bytes = asked.iter().map(|(_, bytes)| i32::try_from(*bytes));
        let bytes: Vec<i32> = bytes.map(|bytes| bytes.unwrap_or(i32::MAX)).collect();
        let parameters: [&(dyn ToSql + Sync); 2] = [&ids, &bytes];
        let rows = self.client.query(&self.stored_texts, &parameters).await?;
        let pair = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?));
        rows.iter().map(pair).collect()
    }

    /// Waits until the connection ends.
    pub(crate) async fn closed(&mut self) {
        self.connection.ended().await;
    }
}

/// An answer that did not come in time leaves open what became of the statement: it is not that it
/// was too much at once.
fn answered<T>(answer: Result<Result<T, Error>, Elapsed>) -> Result<T, StoreError> {
    let answer = answer.map_err(|_late| StoreError::Unavailable("no answer in time".into()))?;
    answer.map_err(StoreError::classify)
}
