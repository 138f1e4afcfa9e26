//! A plain `tickets` made a partitioned one, while others write to it: its rows are copied into another
//! table, in portions, and those that come meanwhile by a trigger; then that takes its place.
//!
//! How far it is, is a row of a table of its own, in the transaction of each portion. So it may be killed
//! at any point and goes on from there.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_postgres::Error;
use tracing::info;
use uuid::Uuid;

use super::super::super::StoreError;
use super::super::catalog::Table;
use super::super::plan::replacement;
use super::layout::{self, MADE_MAX, Partition, attach, make};
use super::{AHEAD, Partitions, ms, now_ms};

/// The table that takes the place of the plain one.
pub(super) const NEW: &str = "ticketd_partitioned";

/// How far it is.
pub(super) const PROGRESS: &str = "ticketd_conversion";

/// The function of the triggers, and their names. They come after those of others.
pub(super) const FUNCTION: &str = "ticketd_convert";
pub(super) const TRIGGERS: [&str; 2] = ["zz_ticketd_convert", "zz_ticketd_frozen"];

/// What a portion should take.
const PORTION: Duration = Duration::from_millis(150);

/// The share of a portion's time that follows it, for others.
const PAUSE_SHARE: f64 = 0.25;

/// Rows in the first portion, and the least and most in a later one.
const ROWS_FIRST: i64 = 2_000;
const ROWS_MIN: i64 = 500;
const ROWS_MAX: i64 = 100_000;

/// Between two log lines about progress.
const LOG_INTERVAL: Duration = Duration::from_secs(2);

// The first id of version 7 of all; those of other versions lie between them by chance.
const FIRST: &str = "select ticket_id from tickets where ticket_id >= '016f5e66-e800-7000-8000-000000000000' \
    and get_byte(uuid_send(ticket_id), 6) >> 4 = 7 order by ticket_id limit 1";

// What would be lost with the plain table, or refer to it.
const OBSTACLES: &str = "select pg_describe_object('pg_constraint'::regclass, oid, 0) from pg_constraint \
    where contype in ('f', 'x') and $1 in (conrelid, confrelid) \
    union all select pg_describe_object('pg_trigger'::regclass, oid, 0) from pg_trigger \
    where tgrelid = $1 and not tgisinternal and tgname not like 'zz_ticketd_%' \
    union all select pg_describe_object('pg_policy'::regclass, oid, 0) from pg_policy where polrelid = $1 \
    union all select pg_describe_object('pg_publication_rel'::regclass, oid, 0) from pg_publication_rel where prrelid = $1 \
    union all select pg_describe_object('pg_statistic_ext'::regclass, oid, 0) from pg_statistic_ext where stxrelid = $1 \
    union all select pg_describe_object('pg_class'::regclass, i.indexrelid, 0) from pg_index i \
    where i.indrelid = $1 and i.indisunique and (i.indnkeyatts > 1 or i.indexprs is not null or i.indpred is not null \
        or (select attname from pg_attribute where attrelid = $1 and attnum = i.indkey[0]) not in ('id', 'ticket_id')) \
    union all select pg_describe_object('pg_class'::regclass, v.oid, 0) from pg_depend d \
    join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid \
    join pg_class v on v.oid = r.ev_class and v.relkind = 'm' \
    where d.refclassid = 'pg_class'::regclass and d.refobjid = $1";

const GRANTS: &str = "select format('grant %s%s on table %s to %s%s', a.privilege_type, a.columns, $2::text, \
        case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end, \
        case when a.is_grantable then ' with grant option' else '' end) \
    from (select a.*, '' as columns from pg_class c, aclexplode(c.relacl) a where c.oid = $1 and a.grantee <> c.relowner \
        union all select a.*, format(' (%I)', t.attname) from pg_attribute t, aclexplode(t.attacl) a \
        where t.attrelid = $1 and not t.attisdropped) a";

impl Partitions<'_> {
    /// Makes a plain table a partitioned one, of partitions of that width, or goes on with it.
    pub(crate) async fn convert(&self, width: Duration) -> Result<(), StoreError> {
        let table = self.table().await?;
        if !table.is_plain {
            let partitions = self.partitions().await?;
            info!("tickets has {} partitions already", partitions.len());
            return Ok(());
        }
        self.check(&table).await?;
        if !self.has_begun(&table).await? {
            self.begin(&table, width).await?;
        }
        self.copy(&table).await.map_err(StoreError::classify)?;
        self.swap(&table).await?;
        info!("tickets is partitioned");
        Ok(())
    }

    /// Fails where the table is not of this version, or something would be lost.
    async fn check(&self, table: &Table) -> Result<(), StoreError> {
        let plans = self.session.plans().await?;
        if plans.iter().any(|plan| plan.next().is_some()) {
            let why = "tickets is of an older version: run `ticketd migrate` before";
            return Err(StoreError::Schema(why.into()));
        }
        let rows = self.session.client.query(OBSTACLES, &[&table.oid]).await;
        let found = rows.and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect());
        let found: Vec<String> = found.map_err(StoreError::classify)?;
        if found.is_empty() {
            return Ok(());
        }
        let why = format!(
            "a partitioned tickets cannot have them, or would be without them: {}. \
             Drop them, and make again afterwards what can be",
            found.join("; ")
        );
        Err(StoreError::Schema(why.into()))
    }

    async fn has_begun(&self, table: &Table) -> Result<bool, StoreError> {
        let progress = format!("{}.{PROGRESS}", table.schema);
        let query = "select to_regclass($1) is not null";
        let row = self.session.client.query_one(query, &[&progress]).await;
        row.and_then(|row| row.try_get(0))
            .map_err(StoreError::classify)
    }

    /// Makes the other table, and has it get what comes from now on.
    async fn begin(&self, table: &Table, width: Duration) -> Result<(), StoreError> {
        let first = self.session.client.query_opt(FIRST, &[]).await;
        let first = first.and_then(|row| row.map(|row| row.try_get::<_, Uuid>(0)).transpose());
        let first = first.map_err(StoreError::classify)?;
        let now = now_ms();
        let first = first.map_or(now, |id| u64::try_from(id.as_u128() >> 80).unwrap_or(now));
        let partitions = layout::all(first.min(now), now + ms(AHEAD), ms(width));
        let partitions = partitions.ok_or_else(|| {
            let why = format!(
                "there would be more than {MADE_MAX} partitions of tickets, from the first on: \
                 make them wider (PARTITION_WIDTH)"
            );
            StoreError::Schema(why.into())
        })?;
        let new = format!("{}.{NEW}", table.schema);
        let grants = self.strings(GRANTS, table, &new).await?;
        info!("converting tickets: {} partitions", partitions.len());
        let new = new_table(table, &partitions, &grants);
        self.beside_others(table, &new).await?;
        self.exclusively(table, &begin(table)).await
    }

    /// What a query says of the table.
    pub(super) async fn strings(
        &self,
        query: &str,
        table: &Table,
        about: &str,
    ) -> Result<Vec<String>, StoreError> {
        let rows = self
            .session
            .client
            .query(query, &[&table.oid, &about])
            .await;
        let strings = rows.and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect());
        strings.map_err(StoreError::classify)
    }

    /// Copies the rows that were there before.
    async fn copy(&self, table: &Table) -> Result<(), Error> {
        let (client, path) = (&self.session.client, table.path());
        let [new, progress] = [NEW, PROGRESS].map(|name| format!("{}.{name}", table.schema));
        let query = format!("select copied, last from {progress}");
        let row = client.query_one(&query, &[]).await?;
        let (mut at, last): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let next = format!(
            "select id from {path} where id > $1 and id <= $2 order by id offset $3 limit 1"
        );
        let next = client.prepare(&next).await?;
        let (mut size, mut said) = (ROWS_FIRST, Instant::now());
        while at < last {
            let started = Instant::now();
            let end = client.query_opt(&next, &[&at, &last, &size]).await?;
            let end = end.map_or(Ok(last), |row| row.try_get(0))?;
            // In the order of the key that they are found by there.
            let portion = format!(
                "begin; insert into {new} overriding system value \
                 select * from {path} where id > {at} and id <= {end} order by ticket_id \
                 on conflict (ticket_id) do nothing; \
                 update {progress} set copied = {end}; commit"
            );
            client.batch_execute(&portion).await?;
            at = end;
            let took = started.elapsed();
            size = resized(size, took);
            if said.elapsed() > LOG_INTERVAL {
                said = Instant::now();
                info!("converting tickets: up to number {at} of {last}");
            }
            sleep(took.mul_f64(PAUSE_SHARE)).await;
        }
        Ok(())
    }
}

/// How many rows take a portion's time.
fn resized(rows: i64, took: Duration) -> i64 {
    match took {
        _ if took > PORTION * 2 => rows / 2,
        _ if took < PORTION / 2 => rows * 2,
        _ => rows,
    }
    .clamp(ROWS_MIN, ROWS_MAX)
}

/// The statements that make the other table.
fn new_table(table: &Table, partitions: &[Partition], grants: &[String]) -> String {
    let (schema, path) = (&table.schema, table.path());
    let new = format!("{schema}.{NEW}");
    let like = "including defaults including constraints including comments \
        including storage including identity";
    let mut script = format!(
        "drop table if exists {new};\n\
         create table {new} (like {path} {like}) partition by range (ticket_id);\n\
         alter table {new} add constraint {NEW}_pkey primary key (ticket_id);\n\
         create index {NEW}_id_idx on {new} using brin (id) with (autosummarize = on);\n\
         create index {NEW}_received_at_idx on {new} using brin (received_at) with (autosummarize = on);\n"
    );
    for index in table
        .indexes
        .iter()
        .filter(|index| !index.is_unique && index.is_valid)
    {
        let (name, using) = (replacement(index), &index.using);
        script += &format!("create index {name} on {new} {using};\n");
    }
    for partition in partitions {
        let part = format!("{schema}.{}", partition.name);
        script += &make(&new, &part);
        script += &attach(&new, &part, partition);
    }
    for grant in grants {
        script += &format!("{grant};\n");
    }
    script
}

/// The statements that have it get what comes from then on.
fn begin(table: &Table) -> String {
    let (schema, path) = (&table.schema, table.path());
    let [new, progress, function] =
        [NEW, PROGRESS, FUNCTION].map(|name| format!("{schema}.{name}"));
    let [added, frozen] = TRIGGERS;
    format!(
        "create table {progress} (copied bigint not null, last bigint not null);\n\
         insert into {progress} select coalesce(min(id), 1) - 1, coalesce(max(id), 0) from {path};\n\
         create function {function}() returns trigger language plpgsql \
         security definer set search_path = {schema}, pg_temp as $ticketd$\n\
         begin\n\
         \x20   if tg_op = 'INSERT' then\n\
         \x20       insert into {new} overriding system value select * from ticketd_added \
         on conflict (ticket_id) do nothing;\n\
         \x20       return null;\n\
         \x20   end if;\n\
         \x20   raise exception 'tickets is being converted: rows can be neither changed nor deleted \
         until ticketd partitions convert is done';\n\
         end\n$ticketd$;\n\
         create trigger {added} after insert on {path} referencing new table as ticketd_added \
         for each statement execute function {function}();\n\
         create trigger {frozen} before update or delete or truncate on {path} \
         for each statement execute function {function}();\n"
    )
}
