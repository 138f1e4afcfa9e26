//! The last step of a conversion: the partitioned table takes the place of the plain one.

use super::super::super::StoreError;
use super::super::catalog::Table;
use super::super::plan::replacement;
use super::super::script::quoted;
use super::Partitions;
use super::convert::{FUNCTION, NEW, PROGRESS, TRIGGERS};

/// The plain table, until it is dropped in the same transaction.
const OLD: &str = "ticketd_old_tickets";

// Made again they read the table that has the name then, and keep their owners, rights and options.
const VIEWS: &str = "select distinct format('create or replace view %I.%I%s as %s', n.nspname, v.relname, \
        coalesce(' with (' || array_to_string(v.reloptions, ', ') || ')', ''), \
        rtrim(pg_get_viewdef(v.oid), ';') || $2::text) \
    from pg_depend d join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid \
    join pg_class v on v.oid = r.ev_class and v.relkind = 'v' join pg_namespace n on n.oid = v.relnamespace \
    where d.refclassid = 'pg_class'::regclass and d.refobjid = $1";

// Who may read the tickets may know the last number, which nothing else tells in an instant.
const SEQUENCE_GRANTS: &str = "select distinct format('grant %s on sequence %s to %s', a.privilege_type, $2::text, \
        case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end) \
    from (select a.* from pg_class c, aclexplode(c.relacl) a \
            where c.oid = $1 and a.privilege_type = 'SELECT' and a.grantee <> c.relowner \
        union all select a.* from pg_class c, aclexplode(c.relacl) a \
            where c.oid = pg_get_serial_sequence($1::regclass::text, 'id')::regclass and a.grantee <> c.relowner) a";

impl Partitions<'_> {
    /// Puts it in the place of the plain one, which is gone then.
    pub(super) async fn swap(&self, table: &Table) -> Result<(), StoreError> {
        let sequence = format!("{}.{NEW}_id_seq", table.schema);
        let grants = self.strings(SEQUENCE_GRANTS, table, &sequence).await?;
        let views = self.strings(VIEWS, table, "").await?;
        let script = statements(table, &sequence, &grants, &views);
        self.exclusively(table, &script).await?;
        let analyzed = self.session.client.batch_execute("analyze tickets").await;
        analyzed.map_err(StoreError::classify)
    }
}

fn statements(table: &Table, sequence: &str, grants: &[String], views: &[String]) -> String {
    let (schema, path) = (&table.schema, table.path());
    let mut script = String::new();
    let mut run = |statement: String| script += &format!("{statement};\n");
    for trigger in TRIGGERS {
        run(format!("drop trigger {trigger} on {path}"));
    }
    run(format!("drop function {schema}.{FUNCTION}()"));
    run(format!("drop table {schema}.{PROGRESS}"));
    if let Some(old) = &table.sequence {
        run(format!(
            "select setval('{sequence}', last_value, is_called) from {}",
            old.path
        ));
    }
    for grant in grants {
        run(grant.clone());
    }
    run(format!("alter table {path} rename to {OLD}"));
    run(format!(
        "alter table {schema}.{NEW} rename to {}",
        table.name
    ));
    for view in views {
        run(view.clone());
    }
    // Fails if something else depends on it, and names that.
    run(format!("drop table {schema}.{OLD}"));
    for (from, to) in ["pkey", "id_idx", "received_at_idx"].map(|of| (format!("{NEW}_{of}"), of)) {
        run(format!(
            "alter index {schema}.{from} rename to tickets_{to}"
        ));
    }
    run(format!(
        "alter sequence {sequence} rename to tickets_id_seq"
    ));
    for index in table
        .indexes
        .iter()
        .filter(|index| !index.is_unique && index.is_valid)
    {
        let (from, to) = (replacement(index), quoted(&index.name));
        run(format!("alter index {schema}.{from} rename to {to}"));
    }
    script
}
