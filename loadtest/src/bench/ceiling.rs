//! The ceiling of a backlog: PostgreSQL's own COPY of the rows that were drained, on the machine as it is now.
//!
//! Everything else of the work is left out: no broker, no reading of tickets, no products. The rows, their table, its
//! indexes, the size of a transaction and its way to the disk are the same.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, TryStreamExt, pin_mut};
use ticketd_testing::servers::connect;
use tokio::time::Instant;
use tokio_postgres::Client;

use super::scratch::Place;

/// Rows in one transaction: as many as ticketd puts there by default when they wait for it.
pub(super) const BATCH_ROWS: i64 = 8192;

/// Batches that are read ahead of their copying, to bound what is held in memory.
const READ_AHEAD: usize = 32;

/// The pieces in which the data of a batch is sent, as large as ticketd's.
const PIECE_BYTES: usize = 256 * 1024;

/// The columns that ticketd writes.
const COLUMNS: &str =
    "ticket_id, order_id, vat, total, valid, invalid_reason, ticket_text, received_at";

/// The table's twin is new and empty, as the table itself was.
const PREPARE: &str = "set synchronous_commit = on; set jit = off; \
    create table ceiling (like tickets including all)";

/// Copies what a place's `tickets` holds into a table like it, a transaction for each batch and one after the other over
/// one connection. Tells how many rows a second that were; reading them does not count.
pub(super) async fn copies_per_second(place: &Place) -> Result<f64> {
    let reader = connect(&place.database_url).await?;
    let writer = connect(&place.database_url).await?;
    writer.batch_execute(PREPARE).await?;
    let row = reader
        .query_one("select min(id), max(id), count(*) from tickets", &[])
        .await?;
    let (first, last): (Option<i64>, Option<i64>) = (row.get(0), row.get(1));
    let rows: i64 = row.get(2);
    let (first, last) = first.zip(last).context("there are no rows to copy")?;
    let starts: Vec<_> = (first..=last).step_by(BATCH_ROWS as usize).collect();
    let mut taken = Duration::ZERO;
    for starts in starts.chunks(READ_AHEAD) {
        let mut batches = Vec::new();
        for start in starts {
            batches.push(read(&reader, *start).await?);
        }
        let started = Instant::now();
        for batch in batches {
            write(&writer, batch).await?;
        }
        taken += started.elapsed();
    }
    let copied: i64 = writer
        .query_one("select count(*) from ceiling", &[])
        .await?
        .get(0);
    ensure!(copied == rows, "only {copied} of {rows} rows were copied");
    Ok(rows as f64 / taken.as_secs_f64())
}

/// The COPY data of a batch, which is all that is to be sent for it.
async fn read(reader: &Client, start: i64) -> Result<Bytes> {
    let end = start + BATCH_ROWS;
    let query = format!(
        "copy (select {COLUMNS} from tickets where id >= {start} and id < {end} order by id) to stdout binary"
    );
    let rows = reader.copy_out(query.as_str()).await?;
    pin_mut!(rows);
    let mut batch = BytesMut::new();
    while let Some(piece) = rows.try_next().await? {
        batch.extend_from_slice(&piece);
    }
    Ok(batch.freeze())
}

/// A statement of its own is a transaction of its own: it has been committed once it is answered.
async fn write(writer: &Client, mut batch: Bytes) -> Result<()> {
    let statement = format!("copy ceiling ({COLUMNS}) from stdin binary");
    let copy = writer.copy_in::<_, Bytes>(statement.as_str()).await?;
    pin_mut!(copy);
    while !batch.is_empty() {
        let piece = batch.split_to(batch.len().min(PIECE_BYTES));
        copy.feed(piece).await?;
    }
    copy.finish().await?;
    Ok(())
}
