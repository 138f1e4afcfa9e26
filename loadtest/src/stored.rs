//! Counts the rows that a run has caused, by the run's own prefix of the order ids.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ticketd_testing::servers::connect;
use tokio::runtime::Runtime;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use crate::tally::Tally;
use crate::tickets;

/// How often the rows are counted while the rest of them is waited for.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How long no row may come before all rows of the run are counted anew.
const RECOUNT_INTERVAL: Duration = Duration::from_secs(1);

/// The rows of a run, counted once all were in.
pub(crate) struct Stored {
    /// Rows with `valid = true`.
    pub(crate) valid: i64,
    /// Rows with `valid = false`.
    pub(crate) invalid: i64,
    /// Rows of `dead_tickets`.
    pub(crate) dead: i64,
    /// Rows whose order id had a row already.
    pub(crate) duplicates: i64,
    /// Accepted tickets that are neither stored nor dead.
    pub(crate) lost: i64,
    /// Stored or dead tickets that were sent without being answered 202.
    pub(crate) unanswered: i64,
}

/// A connection to the database that ticketd writes to.
pub(crate) struct Counter {
    runtime: Runtime,
    client: Client,
    table: String,
    prefix: String,
    has_dead_tickets: bool,
    /// The table's highest id and the server's clock before the run.
    id_before: i64,
    clock_before: String,
    /// What has been counted, and up to which id.
    counted: i64,
    counted_to_id: i64,
}

impl Counter {
    /// Connects, and notes where the table ends before the run.
    pub(crate) fn begin(url: &str, table: &str, prefix: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let client = runtime.block_on(connect(url))?;
        let before = runtime.block_on(client.query_one(
            &format!(
                "select coalesce(max(id), 0)::bigint, clock_timestamp()::text,
                        to_regclass('dead_tickets') is not null
                 from {table}"
            ),
            &[],
        ));
        let before = before.with_context(|| format!("cannot read the table {table}"))?;
        let id_before = before.get(0);
        Ok(Self {
            runtime,
            client,
            table: table.to_owned(),
            prefix: prefix.to_owned(),
            has_dead_tickets: before.get(2),
            id_before,
            clock_before: before.get(1),
            counted: 0,
            counted_to_id: id_before,
        })
    }

    /// How far the table's ids have come since the start: about the number of rows stored, at the price of a
    /// single look into an index, so that asking during the load does not add to it.
    pub(crate) fn ids_so_far(&self) -> Result<i64> {
        let sql = format!(
            "select coalesce(max(id), $1)::bigint - $1::bigint from {}",
            self.table
        );
        Ok(self.query(&sql, &[&self.id_before])?.get(0))
    }

    /// Counts the rows that have come since the last call.
    fn stored_so_far(&mut self) -> Result<i64> {
        let sql = format!(
            "select count(*), coalesce(max(id), $1)::bigint from {}
             where id > $1::bigint and starts_with(order_id, $2)",
            self.table
        );
        let row = self.query(&sql, &[&self.counted_to_id, &self.prefix])?;
        self.counted += row.get::<_, i64>(0);
        self.counted_to_id = row.get(1);
        Ok(self.counted)
    }

    /// Waits until all accepted tickets are stored or dead, and gives the time at which they were seen to
    /// be; none when no new row came for the time of `patience`.
    pub(crate) fn wait_for(
        &mut self,
        tally: &Tally,
        patience: Duration,
    ) -> Result<Option<Instant>> {
        let accepted = tally.accepted as i64;
        let sent = accepted + tally.doubtful.len() as i64;
        let mut arrived_before = 0;
        let mut last_growth = Instant::now();
        let mut last_recount = last_growth;
        loop {
            let asked_at = Instant::now();
            let arrived = self.stored_so_far()? + self.dead(&[])?.0;
            if arrived >= sent {
                return Ok(Some(asked_at));
            }
            if arrived > arrived_before {
                arrived_before = arrived;
                last_growth = asked_at;
            }
            // Among as many tickets as were accepted there may be some that were not.
            let enough = arrived >= accepted;
            if last_growth.elapsed()
                > if enough {
                    RECOUNT_INTERVAL * 2
                } else {
                    patience
                }
            {
                return Ok(enough.then_some(last_growth));
            }
            if last_growth.max(last_recount).elapsed() > RECOUNT_INTERVAL {
                // A row that was committed after one with a higher id has been passed over.
                (self.counted, self.counted_to_id) = (0, self.id_before);
                last_recount = Instant::now();
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Counts everything anew, and tells the tickets with an unknown answer from the accepted ones.
    pub(crate) fn verify(&self, tally: &Tally) -> Result<Stored> {
        let doubtful: Vec<_> = tally
            .doubtful
            .iter()
            .map(|number| tickets::order_id(&self.prefix, *number))
            .collect();
        let sql = format!(
            "select count(*) filter (where valid), count(*) filter (where not valid),
                    count(distinct order_id), count(distinct order_id) filter (where order_id = any($3))
             from {} where id > $1::bigint and starts_with(order_id, $2)",
            self.table
        );
        let row = self.query(&sql, &[&self.id_before, &self.prefix, &doubtful])?;
        let (valid, invalid): (i64, i64) = (row.get(0), row.get(1));
        let (distinct, stored_unanswered): (i64, i64) = (row.get(2), row.get(3));
        let (dead, dead_unanswered) = self.dead(&doubtful)?;
        let unanswered = stored_unanswered + dead_unanswered;
        Ok(Stored {
            valid,
            invalid,
            dead,
            duplicates: valid + invalid - distinct,
            lost: tally.accepted as i64 - (distinct + dead - unanswered),
            unanswered,
        })
    }

    fn query(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Row> {
        Ok(self
            .runtime
            .block_on(self.client.query_one(sql, parameters))?)
    }

    /// The dead tickets of this run, and how many of them carry one of these order ids.
    fn dead(&self, order_ids: &[String]) -> Result<(i64, i64)> {
        if !self.has_dead_tickets {
            return Ok((0, 0));
        }
        let sql = "select count(*), count(*) filter (where exists (
                       select from unnest($3::text[]) order_id
                       where position(convert_to(order_id, 'UTF8') in body) > 0))
                   from dead_tickets
                   where created_at >= $1::text::timestamptz
                     and position(convert_to($2, 'UTF8') in body) > 0";
        let row = self.query(sql, &[&self.clock_before, &self.prefix, &order_ids])?;
        Ok((row.get(0), row.get(1)))
    }
}
