//! What would make an upgrade fail, found before anything is changed.

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error};

use super::catalog::UPGRADE;
use super::plan::TablePlan;
use super::spec::ColumnType;

/// How many duplicates are named.
const NAMED_MAX: usize = 10;

// Left out: the column's own default, sequence and keys, and what is there for the upgrade. In a small
// table PostgreSQL makes constraints and indexes anew; in a large one it would read every row for that.
const DEPENDENTS: &str = "select a.attname::text, pg_describe_object(d.classid, d.objid, d.objsubid) \
    from pg_depend d join pg_attribute a on (a.attrelid, a.attnum) = (d.refobjid, d.refobjsubid) \
    left join pg_attrdef f on d.classid = 'pg_attrdef'::regclass and f.oid = d.objid \
    left join pg_class r on d.classid = 'pg_class'::regclass and r.oid = d.objid \
    left join pg_index i on i.indexrelid = r.oid \
    left join pg_constraint c on d.classid = 'pg_constraint'::regclass and c.oid = d.objid \
    where d.refclassid = 'pg_class'::regclass and d.refobjid = $1 and a.attname = any($2::text[] || $3::text[]) \
    and not ($4 and d.classid in ('pg_class'::regclass, 'pg_constraint'::regclass, 'pg_statistic_ext'::regclass)) \
    and (f.oid is null or (f.adrelid, f.adnum) <> (a.attrelid, a.attnum)) \
    and (r.oid is null or r.relkind <> 'S') \
    and (i.indexrelid is null or i.indexprs is not null or i.indpred is not null or i.indisreplident or i.indisexclusion) \
    and (c.oid is null or c.contype not in ('p', 'u', 'n') and c.conname <> $5) \
    union \
    select a.attname::text, 'a privilege on it alone' from pg_attribute a \
    where a.attrelid = $1 and a.attname = any($2::text[]) and a.attacl is not null";

/// What is in the way; empty if nothing is.
pub(super) async fn obstacles(client: &Client, plan: &TablePlan) -> Result<Vec<String>, Error> {
    let mut found = plan.faults.clone();
    if found.is_empty() {
        found.extend(dependents(client, plan).await?);
        found.extend(sequence(plan));
        found.extend(duplicates(client, plan).await?);
        found.extend(unreadable(client, plan).await?);
        found.extend(without_id(client, plan).await?);
    }
    Ok(found)
}

/// Others that would break if a column became another one.
async fn dependents(client: &Client, plan: &TablePlan) -> Result<Vec<String>, Error> {
    let replaced: Vec<_> = plan.shadows.iter().map(|shadow| shadow.want.name).collect();
    let altered: Vec<_> = plan.alter.iter().map(|alter| alter.want.name).collect();
    let parameters: [&(dyn ToSql + Sync); 5] = [
        &plan.table.oid,
        &replaced,
        &altered,
        &plan.is_small,
        &UPGRADE,
    ];
    let rows = client.query(DEPENDENTS, &parameters).await?;
    let dependents = rows.iter().map(|row| {
        let (column, dependent): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        Ok(format!(
            "the type of column {}.{column} must be changed, and {dependent} depends on it: \
             drop that, and make it again afterwards",
            plan.spec.name
        ))
    });
    dependents.collect()
}

fn sequence(plan: &TablePlan) -> Option<String> {
    let sequence = plan.table.sequence.as_ref()?;
    let goes = plan.identity && sequence.is_owned && sequence.is_shared;
    goes.then(|| {
        let (name, path) = (plan.spec.name, &sequence.path);
        format!(
            "sequence {path} belongs to {name}.id and is another table's too: give that one its own"
        )
    })
}

/// Values of the column that must be unique that are there more than once, some by name; none if an
/// index keeps it unique already.
pub(super) async fn duplicates(client: &Client, plan: &TablePlan) -> Result<Option<String>, Error> {
    let (name, column) = (plan.spec.name, plan.spec.unique);
    if plan.table.unique(column).is_some() || plan.table.column(column).is_none() {
        return Ok(None);
    }
    let query = format!(
        "select value, times, count(*) over () from (select {column}::text as value, count(*) as times \
         from only {} where {column} is not null group by {column} having count(*) > 1) d \
         order by value limit {NAMED_MAX}",
        plan.table.path()
    );
    let mut named = Vec::new();
    let mut all: i64 = 0;
    for row in client.query(&query, &[]).await? {
        let (value, times): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
        named.push(format!("{value:?} ({times} times)"));
        all = row.try_get(2)?;
    }
    let more = if all > named.len() as i64 {
        ", ..."
    } else {
        ""
    };
    Ok((all > 0).then(|| {
        format!(
            "{name}.{column} must be unique, but {all} of its values are there more than once: {}{more}; \
             leave one row of each, and run ticketd migrate again",
            named.join(", ")
        )
    }))
}

/// Texts in place of decimals that are none.
async fn unreadable(client: &Client, plan: &TablePlan) -> Result<Vec<String>, Error> {
    let mut obstacles = Vec::new();
    for want in plan
        .spec
        .columns
        .iter()
        .filter(|want| want.kind == ColumnType::Decimal)
    {
        let name = want.name;
        let Some(value) = plan.rewritten(want) else {
            continue;
        };
        let found = plan.table.column(name).map_or("", |column| &column.kind);
        if !["text", "character varying", "character"].contains(&found) {
            continue;
        }
        let query = format!(
            "select count(*), min({name}::text) from only {} where {value} = 'NaN' \
             and lower(trim({name}::text)) <> 'nan'",
            plan.table.path()
        );
        let row = client.query_one(&query, &[]).await?;
        let (rows, such_as): (i64, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
        if let Some(such_as) = such_as {
            let table = plan.spec.name;
            obstacles.push(format!(
                "column {table}.{name} must hold decimals, but {rows} of its texts are none, such as {such_as:?}"
            ));
        }
    }
    Ok(obstacles)
}

/// Rows without an id, where the column lets them be.
async fn without_id(client: &Client, plan: &TablePlan) -> Result<Option<String>, Error> {
    if plan.table.column("id").is_none_or(|id| id.not_null) {
        return Ok(None);
    }
    let query = format!(
        "select count(*) from only {} where id is null",
        plan.table.path()
    );
    let rows: i64 = client.query_one(&query, &[]).await?.try_get(0)?;
    let name = plan.spec.name;
    Ok((rows > 0).then(|| format!("{rows} rows of {name} have no id")))
}
