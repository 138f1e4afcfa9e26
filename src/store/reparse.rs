//! Stored invalid tickets judged again, in portions, each a transaction of its own.

use std::collections::HashMap;
use std::time::SystemTime;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Statement};
use uuid::Uuid;

use super::StoreError;
use super::connect::{BY_INDEX, Connected, Task, connect};
use super::copy::{ProductRow, Recency};
use super::products::{self, Numeric};
use crate::clock::unix_us;
use crate::config::{DatabaseConfig, ReparseFilter};
use crate::ticket::{Product, Ticket, parse};

/// How many numbers of tickets a portion spans: what it locks, and how long a killed one is done again.
const PORTION: i64 = 20_000;

// In a partitioned table, to look for them would be to read all of it.
const BOUNDS: &str = "select \
    case when t.relkind = 'p' then 0 else (select coalesce(min(id), 1) - 1 from tickets) end, \
    coalesce(case when t.relkind = 'p' \
        then (select last_value from pg_sequences where format('%I.%I', schemaname, sequencename) = \
            pg_get_serial_sequence('tickets', 'id')) end, (select max(id) from tickets), 0) \
    from pg_class t where t.oid = 'tickets'::regclass";

const INVALID: &str = "select ticket_id, ticket_text, received_at, invalid_reason from tickets \
    where id > $1 and id <= $2 and not valid and ticket_text is not null \
    and ($3::timestamptz is null or received_at >= $3) \
    and ($4::text is null or split_part(invalid_reason, ':', 1) = $4) order by id for update";

const JUDGE: &str = "update tickets set valid = judged.valid, invalid_reason = judged.reason, \
    order_id = judged.order_id, vat = judged.vat, total = judged.total \
    from unnest($1::uuid[], $2::bool[], $3::text[], $4::text[], $5::numeric[], $6::numeric[]) \
        as judged (ticket_id, valid, reason, order_id, vat, total) where tickets.ticket_id = judged.ticket_id";

/// What judges stored tickets again.
pub(crate) struct Reparse {
    client: Client,
    _alive: Task,
    invalid: Statement,
    judge: Statement,
    merge_products: Statement,
    /// The number of the last ticket that was looked at, and of the last of all at the beginning.
    at: i64,
    last: i64,
}

/// What came of a portion, or of all so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Judged {
    /// How many invalid tickets were looked at.
    pub looked_at: u64,
    /// How many of them are valid.
    pub valid: u64,
    /// How many are invalid for another reason than before.
    pub otherwise: u64,
}

/// An invalid ticket's row.
struct Stored {
    recency: Recency,
    text: String,
    reason: Option<String>,
}

/// What is judged otherwise, as columns.
#[derive(Default)]
struct Changes {
    ids: Vec<Uuid>,
    valid: Vec<bool>,
    reasons: Vec<Option<String>>,
    order_ids: Vec<Option<String>>,
    vats: Vec<Option<Numeric>>,
    totals: Vec<Option<Numeric>>,
}

impl Reparse {
    /// Connects, and begins behind this ticket, or with the first.
    pub(crate) async fn begin(
        database: &DatabaseConfig,
        after: Option<i64>,
    ) -> Result<Self, StoreError> {
        let Connected { client, task, .. } = connect(database, "ticketd reparse").await?;
        let prepared = Self::prepare(client, task, after).await;
        prepared.map_err(StoreError::classify)
    }

    async fn prepare(client: Client, task: Task, after: Option<i64>) -> Result<Self, Error> {
        client.batch_execute(BY_INDEX).await?;
        let bounds = client.query_one(BOUNDS, &[]).await?;
        Ok(Self {
            invalid: client.prepare(INVALID).await?,
            judge: client.prepare(JUDGE).await?,
            merge_products: products::prepare(&client).await?,
            at: after.unwrap_or(0).max(bounds.try_get(0)?),
            last: bounds.try_get(1)?,
            client,
            _alive: task,
        })
    }

    /// The number of the last ticket that is done.
    pub(crate) fn at(&self) -> i64 {
        self.at
    }

    /// Judges the next portion, and stores what is judged otherwise unless this is only tried; none
    /// at the end.
    pub(crate) async fn next(
        &mut self,
        filter: &ReparseFilter,
        dry_run: bool,
    ) -> Result<Option<Judged>, StoreError> {
        if self.at >= self.last {
            return Ok(None);
        }
        let end = self.at.saturating_add(PORTION).min(self.last);
        let judged = self.portion(end, filter, dry_run).await;
        let judged = judged.map_err(StoreError::classify)?;
        self.at = end;
        Ok(Some(judged))
    }

    async fn portion(
        &mut self,
        end: i64,
        filter: &ReparseFilter,
        dry_run: bool,
    ) -> Result<Judged, Error> {
        let transaction = self.client.transaction().await?;
        let reason = filter.reason.as_deref();
        let rows = transaction
            .query(&self.invalid, &[&self.at, &end, &filter.since, &reason])
            .await?;
        let stored: Result<Vec<_>, _> = rows.iter().map(Stored::read).collect();
        let stored = stored?;
        let (changes, products, judged) = judge(&stored);
        if !dry_run && !changes.ids.is_empty() {
            transaction.execute(&self.judge, &changes.columns()).await?;
            products::merge(transaction.client(), &self.merge_products, &products).await?;
        }
        transaction.commit().await?;
        Ok(judged)
    }
}

impl Stored {
    fn read(row: &Row) -> Result<Self, Error> {
        let (ticket_id, received_at): (Uuid, SystemTime) = (row.try_get(0)?, row.try_get(2)?);
        Ok(Self {
            recency: Recency {
                received_at_us: unix_us(received_at),
                ticket_id,
            },
            text: row.try_get(1)?,
            reason: row.try_get(3)?,
        })
    }
}

impl Changes {
    fn add(&mut self, id: Uuid, ticket: &Ticket<'_>) {
        self.ids.push(id);
        self.valid.push(ticket.invalid.is_none());
        let reason = ticket.invalid.map(|invalid| invalid.to_string());
        self.reasons.push(reason);
        self.order_ids.push(ticket.order_id.map(str::to_owned));
        self.vats.push(ticket.vat.map(Numeric));
        self.totals.push(ticket.total.map(Numeric));
    }

    fn columns(&self) -> [&(dyn ToSql + Sync); 6] {
        [
            &self.ids,
            &self.valid,
            &self.reasons,
            &self.order_ids,
            &self.vats,
            &self.totals,
        ]
    }
}

/// Judges tickets by the rules as they are: what changes, the products of those that are valid, the
/// newest of each, and the counts.
fn judge(stored: &[Stored]) -> (Changes, Vec<ProductRow<'_>>, Judged) {
    let (mut changes, mut judged) = (Changes::default(), Judged::default());
    let mut newest: HashMap<String, ProductRow<'_>> = HashMap::new();
    let mut products = Vec::new();
    for Stored {
        recency,
        text,
        reason,
    } in stored
    {
        judged.looked_at += 1;
        let ticket = parse(text, &mut products);
        let now = ticket.invalid.map(|invalid| invalid.to_string());
        match now {
            None => judged.valid += 1,
            Some(_) if now != *reason => judged.otherwise += 1,
            Some(_) => continue,
        }
        changes.add(recency.ticket_id, &ticket);
        for product in products.drain(..) {
            keep_newest(&mut newest, *recency, product);
        }
    }
    (changes, newest.into_values().collect(), judged)
}

fn keep_newest<'a>(
    newest: &mut HashMap<String, ProductRow<'a>>,
    recency: Recency,
    product: Product<'a>,
) {
    let Product {
        name,
        product_id,
        price,
    } = product;
    let is_newer = newest
        .get(&*product_id)
        .is_none_or(|known| known.recency <= recency);
    if is_newer {
        let row = ProductRow {
            product_id: product_id.clone(),
            name,
            price,
            recency,
        };
        newest.insert(product_id.into_owned(), row);
    }
}
