//! The partitions that there are, out of PostgreSQL's catalogs.

use tokio_postgres::{Client, Error, Row};
use uuid::Uuid;

use super::layout::{Partition, time_of};

const PARTITIONS: &str = "select c.relname::text, pg_get_expr(c.relpartbound, c.oid), \
    greatest(c.reltuples, 0)::bigint, pg_total_relation_size(c.oid) \
    from pg_inherits i join pg_class c on c.oid = i.inhrelid \
    join pg_class p on p.oid = i.inhparent and p.relkind = 'p' \
    where i.inhparent = to_regclass('tickets')";

const NAMED: &str = "select format('%I.%I', n.nspname, c.relname) from pg_class c \
    join pg_namespace n on n.oid = c.relnamespace \
    where c.relkind = 'r' and not c.relispartition and starts_with(c.relname::text, $1) \
    and n.oid = (select relnamespace from pg_class where oid = to_regclass('tickets'))";

/// Tables beside `tickets`, with their schema, whose names begin so.
pub(super) async fn named(client: &Client, start: &str) -> Result<Vec<String>, Error> {
    let rows = client.query(NAMED, &[&start]).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// All of them, in the order of their ids; none of a table that is not partitioned.
pub(super) async fn read(client: &Client) -> Result<Vec<Partition>, Error> {
    let rows = client.query(PARTITIONS, &[]).await?;
    let partitions: Result<Vec<_>, _> = rows.iter().map(partition).collect();
    let mut partitions = partitions?;
    partitions.sort_by_key(|partition| partition.from_ms);
    Ok(partitions)
}

fn partition(row: &Row) -> Result<Partition, Error> {
    let bounds: Option<String> = row.try_get(1)?;
    let (from_ms, to_ms) = bounds.as_deref().map(times).unwrap_or_default();
    Ok(Partition {
        name: row.try_get(0)?,
        from_ms,
        to_ms,
        rows: row.try_get(2)?,
        bytes: row.try_get(3)?,
    })
}

/// The times of `FOR VALUES FROM ('…') TO ('…')`; none where there is no bound, or it is no time.
fn times(bounds: &str) -> (Option<u64>, Option<u64>) {
    let (from, to) = bounds.split_once(" TO ").unwrap_or_default();
    let time = |bound: &str| {
        let id = bound.split('\'').nth(1)?;
        time_of(Uuid::try_parse(id).ok()?)
    };
    (time(from), time(to))
}

#[cfg(test)]
mod tests {
    #[test]
    fn bounds_are_read_as_postgresql_writes_them() {
        let id = "016f5e66-e800-0000-0000-000000000000";
        let first = Some(1_577_836_800_000);
        for (bounds, expected) in [
            (
                format!("FOR VALUES FROM (MINVALUE) TO ('{id}')"),
                (None, first),
            ),
            (
                format!("FOR VALUES FROM ('{id}') TO (MAXVALUE)"),
                (first, None),
            ),
            (
                format!(
                    "FOR VALUES FROM ('{}') TO (MAXVALUE)",
                    id.replace("00000000", "00000001")
                ),
                (None, None),
            ),
            ("DEFAULT".into(), (None, None)),
            ("FOR VALUES FROM (1) TO (2)".into(), (None, None)),
        ] {
            assert_eq!(super::times(&bounds), expected, "{bounds}");
        }
    }
}
