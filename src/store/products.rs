//! Rows of `products`, merged into the table: the newest ticket counts,
//! whatever the order of arrival.
//!
//! They come as arrays and not through a staging table: a temporary table lives
//! as long as its session, autovacuum never touches it, and its age would hold
//! back the whole database's (`datfrozenxid`), until PostgreSQL stops all
//! writes (<https://www.postgresql.org/docs/current/routine-vacuuming.html>,
//! "Preventing Transaction ID Wraparound Failures").

use std::collections::HashSet;
use std::error::Error as StdError;

use bytes::BytesMut;
use rust_decimal::Decimal;
use tokio_postgres::types::{IsNull, ToSql, Type, accepts, to_sql_checked};
use tokio_postgres::{Client, Error, Statement};
use uuid::Uuid;

use super::copy::{self, ProductRow};

// Sorted, so that two writers lock rows in the same order and cannot deadlock. A
// row that is newer already is left alone and not returned.
const MERGE: &str = "insert into products as known \
    (product_id, name, price, ticket_received_at, ticket_id) \
    select * from unnest($1::text[], $2::text[], $3::numeric[], $4::timestamptz[], $5::uuid[]) \
        as changed (product_id, name, price, ticket_received_at, ticket_id) \
    order by product_id \
    on conflict (product_id) do update set \
        name = excluded.name, price = excluded.price, updated_at = now(), \
        ticket_received_at = excluded.ticket_received_at, ticket_id = excluded.ticket_id \
    where (known.ticket_received_at, known.ticket_id) < (excluded.ticket_received_at, excluded.ticket_id) \
    returning product_id";

/// Prepares the merge, which fails if the table does not fit.
pub(super) async fn prepare(client: &Client) -> Result<Statement, Error> {
    client.prepare(MERGE).await
}

/// Merges rows, at most one a product, within the transaction at hand. Returns
/// the ids of those that were written, as no newer row was there.
pub(super) async fn merge(
    client: &Client,
    merge: &Statement,
    rows: &[ProductRow<'_>],
) -> Result<HashSet<String>, Error> {
    let ids: Vec<&str> = rows.iter().map(|row| &*row.product_id).collect();
    let names: Vec<&str> = rows.iter().map(|row| &*row.name).collect();
    let prices: Vec<Numeric> = rows.iter().map(|row| Numeric(row.price)).collect();
    let times = rows.iter().map(|row| row.recency.received_at_us);
    let times: Vec<Timestamp> = times.map(Timestamp).collect();
    let tickets: Vec<Uuid> = rows.iter().map(|row| row.recency.ticket_id).collect();
    let columns: [&(dyn ToSql + Sync); 5] = [&ids, &names, &prices, &times, &tickets];
    let written = client.query(merge, &columns).await?;
    written.iter().map(|row| row.try_get(0)).collect()
}

/// A decimal with its scale as written; the driver's own conversion drops that of zero.
#[derive(Debug)]
pub(super) struct Numeric(pub(super) Decimal);

impl ToSql for Numeric {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        let mut field = Vec::new();
        copy::numeric(&mut field, self.0);
        let value = field.split_first_chunk::<4>().map(|(_length, value)| value);
        out.extend_from_slice(value.unwrap_or_default());
        Ok(IsNull::No)
    }

    accepts!(NUMERIC);
    to_sql_checked!();
}

/// A time in µs since the Unix epoch.
#[derive(Debug)]
struct Timestamp(i64);

impl ToSql for Timestamp {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        out.extend_from_slice(&copy::timestamp(self.0));
        Ok(IsNull::No)
    }

    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}
