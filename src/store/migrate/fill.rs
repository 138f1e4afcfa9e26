//! Rows that were there before the upgrade began, filled in portions.
//!
//! The trigger fills each row that is written, so a portion is written without changing anything. It
//! never waits for a row: one that somebody holds is left for the next round, since an old writer
//! that holds one row and wants another could otherwise be chosen to fail.

use std::ops::Range;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};
use tracing::info;

use super::catalog::UPGRADE;
use super::plan::TablePlan;

/// What a portion should take: old writers wait that long for a row of it.
const PORTION: Duration = Duration::from_millis(150);

/// What no portion takes: one that does is done again as smaller ones.
const PORTION_MAX: Duration = Duration::from_millis(750);

/// The share of a portion's time that follows it, for others.
const PAUSE_SHARE: f64 = 0.25;

/// Pages in the first portion, and the least and most in a later one.
const PAGES_FIRST: i64 = 16;
const PAGES_MIN: i64 = 8;
const PAGES_MAX: i64 = 8192;

/// Between two log lines about progress.
const LOG_INTERVAL: Duration = Duration::from_secs(2);

/// Between two rounds, at first and at most.
const RETRY_DELAY: Duration = Duration::from_secs(1);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(30);

/// The first version that finds the rows of a range of pages without reading all.
const TID_RANGES: i32 = 140_000;

/// Fills all rows, and has PostgreSQL know it.
pub(super) async fn fill(client: &Client, plan: &TablePlan, check: &str) -> Result<(), Error> {
    let table = plan.table.path();
    let validate = format!("alter table {table} validate constraint {UPGRADE}");
    let mut rest = RETRY_DELAY;
    loop {
        round(client, plan, check).await?;
        info!("checking {}", plan.table.name);
        match client.batch_execute(&validate).await {
            Err(error) if error.code() == Some(&SqlState::CHECK_VIOLATION) => {
                info!(
                    "others hold rows of {}, which are done once more",
                    plan.table.name
                );
                sleep(rest).await;
                rest = RETRY_DELAY_MAX.min(rest * 2);
            }
            validated => return validated,
        }
    }
}

/// Goes once through the pages that are there now.
async fn round(client: &Client, plan: &TablePlan, check: &str) -> Result<(), Error> {
    let name = plan.table.name;
    let pages = pages(client, plan).await?;
    let version = client.query_one("select current_setting('server_version_num')::int", &[]);
    let knows_ranges = version.await?.try_get::<_, i32>(0)? >= TID_RANGES;
    let (mut next, mut size, mut rows) = (0, PAGES_FIRST, 0);
    let mut said = Instant::now();
    while next < pages {
        let started = Instant::now();
        let portion = next..pages.min(next + size);
        let statement = statement(plan, check, &portion, knows_ranges);
        // The least is given all the time that it needs.
        let limit = if size > PAGES_MIN {
            PORTION_MAX
        } else {
            Duration::ZERO
        };
        let Some(filled) = fill_portion(client, &statement, limit).await? else {
            size = (size / 8).max(PAGES_MIN);
            continue;
        };
        (next, rows) = (portion.end, rows + filled.rows);
        size = resized(size, filled.took);
        if said.elapsed() > LOG_INTERVAL {
            said = Instant::now();
            let percent = 100 * next / pages;
            info!("filling {name}: {percent} %, {next} of {pages} pages, {rows} rows");
        }
        sleep(started.elapsed().mul_f64(PAUSE_SHARE)).await;
    }
    info!("filled {name}: {rows} rows");
    Ok(())
}

struct Filled {
    rows: u64,
    /// How long it took without COMMIT, whose time says nothing about the number of rows.
    took: Duration,
}

/// Fills a portion; nothing if it took longer than the limit.
async fn fill_portion(
    client: &Client,
    statement: &str,
    limit: Duration,
) -> Result<Option<Filled>, Error> {
    let limit = limit.as_millis();
    let begin = format!("begin; set local statement_timeout = {limit}");
    client.batch_execute(&begin).await?;
    let started = Instant::now();
    match client.execute(statement, &[]).await {
        Ok(rows) => {
            let took = started.elapsed();
            client.batch_execute("commit").await?;
            Ok(Some(Filled { rows, took }))
        }
        Err(error) if error.code() == Some(&SqlState::QUERY_CANCELED) => {
            client.batch_execute("rollback").await?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

async fn pages(client: &Client, plan: &TablePlan) -> Result<i64, Error> {
    let query = "select pg_relation_size($1::oid) / current_setting('block_size')::bigint";
    client
        .query_one(query, &[&plan.table.oid])
        .await?
        .try_get(0)
}

/// As many pages as would have taken the time that a portion should take, by steps of at most two.
fn resized(size: i64, took: Duration) -> i64 {
    let scaled = if took > PORTION { size / 2 } else { size };
    let scaled = if took < PORTION / 2 { size * 2 } else { scaled };
    scaled.clamp(PAGES_MIN, PAGES_MAX)
}

fn statement(plan: &TablePlan, check: &str, pages: &Range<i64>, knows_ranges: bool) -> String {
    let table = plan.table.path();
    let Range { start, end } = pages;
    let rows = if knows_ranges {
        format!("ctid >= '({start},0)' and ctid < '({end},0)'")
    } else {
        // As many as fit on a page, whose rows take 28 bytes at least.
        format!(
            "ctid = any(array(select format('(%s,%s)', page, item)::tid \
             from generate_series({start}, {end} - 1) page, \
             generate_series(1, current_setting('block_size')::int / 28) item))"
        )
    };
    format!(
        "update only {table} set ticket_id = ticket_id where ctid = any(array( \
         select ctid from only {table} where {rows} and ({check}) is not true \
         for no key update skip locked))"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portions_take_about_as_long_as_they_should() {
        assert_eq!(resized(64, PORTION * 2), 32);
        assert_eq!(resized(64, PORTION / 4), 128);
        assert_eq!(resized(64, PORTION * 3 / 4), 64);
        assert_eq!(resized(PAGES_MIN, PORTION * 9), PAGES_MIN);
        assert_eq!(resized(PAGES_MAX, Duration::ZERO), PAGES_MAX);
    }
}
