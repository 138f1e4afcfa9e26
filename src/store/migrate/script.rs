//! What is run under a table's lock, which takes an instant. Pure.

use super::catalog::{Index, SHADOW, Sequence, TRIGGER, UPGRADE};
use super::plan::{Build, Shadow, TablePlan, replacement};
use super::spec::ColumnType;

/// Gathers statements about one table.
struct Script<'a> {
    table: &'a str,
    text: String,
}

impl Script<'_> {
    fn run(&mut self, statement: &str) {
        self.text.push_str(statement);
        self.text.push_str(";\n");
    }

    fn alter(&mut self, action: &str) {
        let table = self.table;
        self.run(&format!("alter table {table} {action}"));
    }
}

impl TablePlan {
    /// The statements that begin the upgrade.
    pub(super) fn begin(&self) -> String {
        let path = self.table.path();
        let mut script = Script {
            table: &path,
            text: String::new(),
        };
        // A check that was begun with would be verified for every change of a type.
        script.alter(&format!("drop constraint if exists {UPGRADE}"));
        // In one statement, so that rows are written once.
        let types = self.alter.iter().map(|alter| {
            let (name, target) = (alter.want.name, alter.target);
            let using = alter.using.as_ref();
            let using = using.map_or_else(String::new, |using| format!(" using {using}"));
            format!("alter column {name} type {target}{using}")
        });
        let types: Vec<_> = types.collect();
        if !types.is_empty() {
            script.alter(&types.join(", "));
        }
        for want in &self.drop_not_null {
            script.alter(&format!("alter column {} drop not null", want.name));
        }
        // A column that came with a default would have it in old rows too.
        for want in &self.add {
            script.alter(&format!("add column {} {}", want.name, want.kind.sql()));
        }
        for shadow in self.shadows.iter().filter(|shadow| !shadow.exists) {
            let (name, target) = (shadow.want.shadow(), shadow.rewrite.target);
            script.alter(&format!("add column {name} {target}"));
        }
        if let Some(storage) = self.spec.storage.filter(|_| !self.add.is_empty()) {
            script.alter(&format!("set ({storage})"));
        }
        self.set_defaults(&mut script);
        if let Some(check) = self.check() {
            self.watch(&mut script, &check);
        }
        script.text
    }

    fn set_defaults(&self, script: &mut Script<'_>) {
        for want in &self.defaults {
            if let Some(default) = want.default {
                script.alter(&format!("alter column {} set default {default}", want.name));
            }
        }
    }

    /// The statements that set defaults alone.
    pub(super) fn only_defaults(&self) -> String {
        let path = self.table.path();
        let mut script = Script {
            table: &path,
            text: String::new(),
        };
        self.set_defaults(&mut script);
        script.text
    }

    /// Has every row filled that is written from now on.
    fn watch(&self, script: &mut Script<'_>, check: &str) {
        let (table, function) = (script.table, self.function());
        script.run(&format!("drop trigger if exists {TRIGGER} on {table}"));
        script.run(&format!(
            "create or replace function {function}() returns trigger language plpgsql as $upgrade${}$upgrade$",
            self.source()
        ));
        script.run(&format!(
            "create trigger {TRIGGER} before insert or update on {table} for each row execute function {function}()"
        ));
        // Rows that replication brings are to be filled too.
        script.alter(&format!("enable always trigger {TRIGGER}"));
        script.alter(&format!(
            "add constraint {UPGRADE} check ({check}) not valid"
        ));
    }

    /// The statements that finish the upgrade. `largest` is an id that none before the last numbers of
    /// the sequence exceeds.
    pub(super) fn finish(&self, largest: i64) -> String {
        let path = self.table.path();
        let mut script = Script {
            table: &path,
            text: String::new(),
        };
        script.run(&format!("drop trigger if exists {TRIGGER} on {path}"));
        script.run(&format!("drop function if exists {}()", self.function()));
        if self.identity {
            self.remember_ids(&mut script, largest);
        }
        let missing = self.missing_indexes();
        for build in &missing {
            script.run(&build.statement(&self.table.schema, &path, ""));
        }
        // The check proves it, so that no row is read for it; it goes with the first column.
        for name in self.sure_columns() {
            script.alter(&format!("alter column {name} set not null"));
        }
        for shadow in &self.shadows {
            replace(&mut script, shadow);
        }
        self.set_defaults(&mut script);
        for index in self.replaced() {
            put_in_place(&mut script, &self.table.schema, index);
        }
        self.constrain(&mut script, &missing);
        if !self.shadows.is_empty() {
            script.run(&rename_keys(&path));
        }
        script.alter(&format!("drop constraint if exists {UPGRADE}"));
        for stray in self.strays() {
            script.alter(&format!("drop column {stray}"));
        }
        if self.identity {
            self.give_ids(&mut script);
        }
        script.text
    }

    /// Makes a constraint of the unique index that was built for it.
    fn constrain(&self, script: &mut Script<'_>, missing: &[Build]) {
        let name = self.unique_name();
        let built = self.table.index(&name).filter(|index| index.is_valid);
        let is_bare = built.is_some_and(|index| index.constraint.is_none() && index.is_unique);
        if is_bare || missing.iter().any(|build| build.name == name) {
            script.alter(&format!("add constraint {name} unique using index {name}"));
        }
    }

    /// Keeps the largest id that was given, before the sequence is gone with its column.
    fn remember_ids(&self, script: &mut Script<'_>, largest: i64) {
        let given = self.table.sequence.as_ref().map_or_else(
            || "null".to_owned(),
            |sequence| {
                format!(
                    "(select last_value - (not is_called)::int from {})",
                    sequence.path
                )
            },
        );
        script.run(&format!(
            "select set_config('ticketd.largest_id', greatest({largest}, {given})::text, true)"
        ));
    }

    /// Has the column give ids itself, from where they were.
    fn give_ids(&self, script: &mut Script<'_>) {
        let table = script.table;
        script.alter("alter column id drop default");
        if let Some(sequence) = self
            .table
            .sequence
            .as_ref()
            .filter(|sequence| self.drops(sequence))
        {
            script.run(&format!("drop sequence if exists {}", sequence.path));
        }
        script.alter("alter column id add generated by default as identity");
        script.run(&format!(
            "select setval(pg_get_serial_sequence('{}', 'id'), current_setting('ticketd.largest_id')::bigint + 1, false)",
            table.replace('\'', "''")
        ));
    }

    /// Whether nobody else wants the sequence.
    fn drops(&self, sequence: &Sequence) -> bool {
        let is_by_name = sequence.name == format!("{}_id_seq", self.spec.name);
        sequence.is_owned || is_by_name && !sequence.is_shared
    }
}

impl Build {
    /// The statement that builds it, and before it the one that clears the way.
    pub(super) fn statement(&self, schema: &str, table: &str, concurrently: &str) -> String {
        let (name, using) = (&self.name, &self.using);
        let unique = if self.is_unique { "unique " } else { "" };
        let build = format!("create {unique}index {concurrently} {name} on {table} {using}");
        if self.replaces_invalid && concurrently.is_empty() {
            format!("drop index {schema}.{name};\n{build}")
        } else {
            build
        }
    }
}

/// Puts a shadow in the place of its column. Indexes and constraints go with the column.
fn replace(script: &mut Script<'_>, shadow: &Shadow) {
    let (name, new) = (shadow.want.name, shadow.want.shadow());
    script.alter(&format!("drop column {name}"));
    script.alter(&format!("rename column {new} to {name}"));
    if let Some(default) = &shadow.default {
        script.alter(&format!("alter column {name} set default {default}"));
    }
}

/// Puts the new index in the place of the old one, which is gone.
fn put_in_place(script: &mut Script<'_>, schema: &str, index: &Index) {
    let new = replacement(index);
    let Some(constraint) = &index.constraint else {
        let name = quoted(&index.name);
        script.run(&format!("alter index {schema}.{new} rename to {name}"));
        return;
    };
    let name = quoted(&constraint.name);
    let kind = if constraint.is_primary {
        "primary key"
    } else {
        "unique"
    };
    let deferred = match (constraint.is_deferrable, constraint.is_deferred) {
        (_, true) => " deferrable initially deferred",
        (true, false) => " deferrable",
        (false, false) => "",
    };
    script.alter(&format!(
        "add constraint {name} {kind} using index {new}{deferred}"
    ));
}

/// Has the columns of indexes be called what those of the table are, which renaming leaves undone.
fn rename_keys(path: &str) -> String {
    let path = path.replace('\'', "''");
    format!(
        "do $rename$ declare key record; begin \
         for key in select a.attrelid::regclass as index, a.attname as name \
         from pg_index i join pg_attribute a on a.attrelid = i.indexrelid \
         where i.indrelid = '{path}'::regclass and starts_with(a.attname, '{SHADOW}') loop \
         execute format('alter table %s rename column %I to %I', key.index, key.name, \
         substr(key.name, length('{SHADOW}') + 1)); end loop; end $rename$"
    )
}

/// An identifier that stays as it is.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl ColumnType {
    /// The type of a column that is made.
    pub(super) fn sql(self) -> &'static str {
        match self {
            Self::Number => "bigint",
            Self::Uuid => "uuid",
            Self::ShortText => "varchar(255)",
            Self::Text => "text",
            Self::Decimal => "numeric",
            Self::Flag => "boolean",
            Self::Time => "timestamptz",
        }
    }
}
