//! The tables' unique keys: what it means that a row is there already depends on which of them it has
//! in common with another one.

use std::collections::HashMap;

use tokio_postgres::error::DbError;
use tokio_postgres::{Client, Error};

use super::error::StoreError;

/// Those that have one column, also of the partitions, whose keys have names of their own.
const UNIQUE_KEYS: &str = "select n.nspname::text, c.relname::text, a.attname::text from pg_index i \
    join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace \
    join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0] \
    where i.indrelid in (select 'tickets'::regclass union select 'products'::regclass \
        union select relid from pg_partition_tree('tickets')) \
    and i.indisunique and i.indnkeyatts = 1";

/// A key's schema and name, as an error names it.
type Key = (String, String);

/// The unique keys that have one column, and the column.
#[derive(Debug, Default)]
pub(super) struct UniqueKeys(HashMap<Key, String>);

impl UniqueKeys {
    /// Reads them.
    pub(super) async fn read(client: &Client) -> Result<Self, Error> {
        let rows = client.query(UNIQUE_KEYS, &[]).await?;
        let key =
            |row: &tokio_postgres::Row| Ok(((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?));
        rows.iter().map(key).collect::<Result<_, _>>().map(Self)
    }

    /// Whether it is an error of a key that is not known here.
    pub(super) fn is_unknown(&self, error: &StoreError) -> bool {
        let key = error.unique_key().and_then(key);
        key.is_some_and(|key| !self.0.contains_key(&key))
    }

    /// The error for what it is: the ticket's id is there already, or the table's numbering is wrong,
    /// which migrating corrects. Or the key is one that somebody else thinks must be unique.
    pub(super) fn sort(&self, error: StoreError) -> StoreError {
        let key = error.unique_key().and_then(key);
        let column = key.and_then(|key| self.0.get(&key)).map(String::as_str);
        match (column, error) {
            (Some("ticket_id"), StoreError::Unique(cause)) => StoreError::Conflict(cause),
            (Some("id"), StoreError::Unique(cause)) => StoreError::Schema(cause),
            (_, error) => error,
        }
    }
}

fn key(db: &DbError) -> Option<Key> {
    Some((db.schema()?.to_owned(), db.constraint()?.to_owned()))
}
