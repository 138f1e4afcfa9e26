//! A table as it is, out of PostgreSQL's catalogs. Locks nothing.

use tokio_postgres::{Client, Error, Row};

use super::spec::TableSpec;

/// The check that is there while a table is upgraded, and what its function's name begins with.
pub(super) const UPGRADE: &str = "ticketd_upgrade";

/// The trigger. It comes after those of others, and so sees what they made of the row.
pub(super) const TRIGGER: &str = "zz_ticketd_upgrade";

/// What the name of a column begins with that will take the place of another.
pub(super) const SHADOW: &str = "ticketd_new_";

const TABLE: &str = "select c.oid, quote_ident(n.nspname), c.relkind::text, \
    exists (select from pg_inherits where c.oid in (inhparent, inhrelid)), \
    pg_table_size(c.oid), pg_relation_size(c.oid) / current_setting('block_size')::bigint, \
    (select prosrc from pg_proc where pronamespace = c.relnamespace and proname = $2 and pronargs = 0), \
    exists (select from pg_trigger where tgrelid = c.oid and tgname = $3), \
    (select convalidated from pg_constraint where conrelid = c.oid and conname = $4) \
    from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = to_regclass($1)";

const COLUMNS: &str = "select a.attname::text, format_type(a.atttypid, null), a.atttypmod, a.attnotnull, \
    a.attidentity <> '', a.attgenerated <> '', pg_get_expr(d.adbin, d.adrelid), \
    exists (select from pg_index where indrelid = a.attrelid and a.attnum = any(indkey)) \
    from pg_attribute a left join pg_attrdef d on (d.adrelid, d.adnum) = (a.attrelid, a.attnum) \
    where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped order by a.attnum";

// What follows USING names columns, and the few other words that an index without expressions has.
const INDEXES: &str = "select c.relname::text, i.indexrelid, i.indisunique, i.indisvalid, i.indimmediate, \
    i.indexprs is null and i.indpred is null, \
    i.indnkeyatts, array(select a.attname::text from unnest(i.indkey) with ordinality k (number, at) \
        join pg_attribute a on (a.attrelid, a.attnum) = (i.indrelid, k.number) order by k.at), \
    con.conname::text, con.contype::text, con.condeferrable, con.condeferred, \
    substring(pg_get_indexdef(i.indexrelid) from ' (USING .*)$') \
    from pg_index i join pg_class c on c.oid = i.indexrelid \
    left join pg_constraint con on con.conindid = i.indexrelid and con.conrelid = i.indrelid \
        and con.contype in ('p', 'u', 'x') \
    where i.indrelid = $1 order by c.relname";

const SEQUENCE: &str = "select format('%I.%I', n.nspname, s.relname), s.relname::text, \
    exists (select from pg_depend where classid = 'pg_class'::regclass and objid = s.oid \
        and refclassid = 'pg_class'::regclass and refobjid = $1 and deptype in ('a', 'i')), \
    exists (select from pg_depend d join pg_attrdef f on f.oid = d.objid where d.classid = 'pg_attrdef'::regclass \
        and d.refclassid = 'pg_class'::regclass and d.refobjid = s.oid and f.adrelid <> $1) \
    from pg_class s join pg_namespace n on n.oid = s.relnamespace \
    where s.relkind = 'S' and s.oid = coalesce(pg_get_serial_sequence($2, 'id')::regclass::oid, ( \
        select d.refobjid from pg_depend d join pg_attrdef f on f.oid = d.objid \
        join pg_attribute a on (a.attrelid, a.attnum) = (f.adrelid, f.adnum) \
        join pg_class c on c.oid = d.refobjid and c.relkind = 'S' \
        where d.classid = 'pg_attrdef'::regclass and d.refclassid = 'pg_class'::regclass \
        and f.adrelid = $1 and a.attname = 'id' limit 1))";

/// A table as it is.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    /// Its name.
    pub name: &'static str,
    /// Its schema, quoted.
    pub schema: String,
    pub oid: u32,
    /// Whether it is a table on its own, without partitions, parents or children.
    pub is_plain: bool,
    /// Its size with what its long values take, without indexes.
    pub bytes: i64,
    /// The pages that its rows are in.
    pub pages: i64,
    pub columns: Vec<Column>,
    pub indexes: Vec<Index>,
    /// Where its ids come from.
    pub sequence: Option<Sequence>,
    /// The text of the upgrade's function, if it is there.
    pub function: Option<String>,
    /// Whether the upgrade's trigger is there.
    pub has_trigger: bool,
    /// Whether the upgrade's check is there, and known to hold for every row.
    pub check: Option<bool>,
}

/// A column.
#[derive(Debug, Clone, Default)]
pub(super) struct Column {
    pub name: String,
    /// Its type without a modifier, as `format_type` names it.
    pub kind: String,
    pub modifier: i32,
    pub not_null: bool,
    pub is_identity: bool,
    pub is_generated: bool,
    pub default: Option<String>,
    pub is_indexed: bool,
}

/// An index.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    pub name: String,
    pub oid: u32,
    pub is_unique: bool,
    pub is_valid: bool,
    /// Whether it refuses at once, and not only at COMMIT.
    pub is_immediate: bool,
    /// Whether it has columns alone, for every row.
    pub is_simple: bool,
    /// How many of the columns are its key.
    pub keys: i16,
    pub columns: Vec<String>,
    pub constraint: Option<Constraint>,
    /// Its definition from USING on.
    pub using: String,
}

/// The constraint that an index is for.
#[derive(Debug, Clone, Default)]
pub(super) struct Constraint {
    pub name: String,
    pub is_primary: bool,
    pub is_deferrable: bool,
    pub is_deferred: bool,
}

/// A sequence.
#[derive(Debug, Clone, Default)]
pub(super) struct Sequence {
    /// With its schema, quoted.
    pub path: String,
    pub name: String,
    /// Whether it goes where the column goes.
    pub is_owned: bool,
    /// Whether another table has its numbers too.
    pub is_shared: bool,
}

impl Table {
    /// The table as it is now; none if there is none.
    pub(super) async fn read(client: &Client, spec: &TableSpec) -> Result<Option<Self>, Error> {
        let name = spec.name;
        let function = function(name);
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
            [&name, &function, &TRIGGER, &UPGRADE];
        let Some(row) = client.query_opt(TABLE, &parameters).await? else {
            return Ok(None);
        };
        let (kind, has_relatives): (String, bool) = (row.try_get(2)?, row.try_get(3)?);
        let mut table = Self {
            name,
            oid: row.try_get(0)?,
            schema: row.try_get(1)?,
            is_plain: kind == "r" && !has_relatives,
            bytes: row.try_get(4)?,
            pages: row.try_get(5)?,
            function: row.try_get(6)?,
            has_trigger: row.try_get(7)?,
            check: row.try_get(8)?,
            ..Self::default()
        };
        let columns = client.query(COLUMNS, &[&table.oid]).await?;
        table.columns = columns.iter().map(Column::read).collect::<Result<_, _>>()?;
        let indexes = client.query(INDEXES, &[&table.oid]).await?;
        table.indexes = indexes.iter().map(Index::read).collect::<Result<_, _>>()?;
        if table.column("id").is_some() {
            let path = table.path();
            let sequence = client.query_opt(SEQUENCE, &[&table.oid, &path]).await?;
            table.sequence = sequence.as_ref().map(Sequence::read).transpose()?;
        }
        Ok(Some(table))
    }

    /// Its name with its schema.
    pub(super) fn path(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// The column of that name.
    pub(super) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The index of that name.
    pub(super) fn index(&self, name: &str) -> Option<&Index> {
        self.indexes.iter().find(|index| index.name == name)
    }

    /// The index that keeps a column unique, at once and for every row.
    pub(super) fn unique(&self, column: &str) -> Option<&Index> {
        self.indexes.iter().find(|index| {
            let holds = index.is_unique && index.is_valid && index.is_immediate && index.is_simple;
            holds && index.keys == 1 && index.columns.first().is_some_and(|key| key == column)
        })
    }
}

impl Column {
    fn read(row: &Row) -> Result<Self, Error> {
        Ok(Self {
            name: row.try_get(0)?,
            kind: row.try_get(1)?,
            modifier: row.try_get(2)?,
            not_null: row.try_get(3)?,
            is_identity: row.try_get(4)?,
            is_generated: row.try_get(5)?,
            default: row.try_get(6)?,
            is_indexed: row.try_get(7)?,
        })
    }
}

impl Index {
    fn read(row: &Row) -> Result<Self, Error> {
        Ok(Self {
            name: row.try_get(0)?,
            oid: row.try_get(1)?,
            is_unique: row.try_get(2)?,
            is_valid: row.try_get(3)?,
            is_immediate: row.try_get(4)?,
            is_simple: row.try_get(5)?,
            keys: row.try_get(6)?,
            columns: row.try_get(7)?,
            constraint: Constraint::read(row)?,
            using: row.try_get(12)?,
        })
    }
}

impl Constraint {
    fn read(row: &Row) -> Result<Option<Self>, Error> {
        let Some(name) = row.try_get(8)? else {
            return Ok(None);
        };
        let kind: String = row.try_get(9)?;
        Ok(Some(Self {
            name,
            is_primary: kind == "p",
            is_deferrable: row.try_get(10)?,
            is_deferred: row.try_get(11)?,
        }))
    }
}

impl Sequence {
    fn read(row: &Row) -> Result<Self, Error> {
        Ok(Self {
            path: row.try_get(0)?,
            name: row.try_get(1)?,
            is_owned: row.try_get(2)?,
            is_shared: row.try_get(3)?,
        })
    }
}

/// The name of the trigger's function.
pub(super) fn function(table: &str) -> String {
    format!("{UPGRADE}_{table}")
}
