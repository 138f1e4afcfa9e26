//! What a table lacks, and what is to be done next. Pure: all of it follows from the catalogs, so an
//! upgrade that was broken off anywhere goes on from there.
//!
//! 1. *Begin*, an instant under a lock: new columns, still null; for a column whose rows must be
//!    written anew a shadow, which takes its place in the end; a trigger that fills them in each row
//!    written from now on; and a check, not valid yet, that they are filled.
//! 2. *Fill* the rows that were there before, in portions, and validate the check.
//! 3. Build *indexes* concurrently.
//! 4. *Finish*, an instant under a lock: shadows in place of columns, NOT NULL by grace of the check,
//!    constraints on top of the indexes, trigger and check gone.
//!
//! A small table's rows are written anew at once, and its indexes are built at the end.

use super::catalog::{Column, Index, SHADOW, Table, function};
use super::spec::{CREATED, Change, ColumnSpec, ColumnType, Null, Rewrite, TableSpec};

/// Tables up to this size are rewritten and indexed in a fraction of a second.
const SMALL_BYTES: i64 = 8 << 20;

/// What a table lacks.
#[derive(Debug)]
pub(super) struct TablePlan {
    pub table: Table,
    pub spec: &'static TableSpec,
    /// Whether everything about it takes an instant.
    pub is_small: bool,
    /// Why it cannot become what it must be.
    pub faults: Vec<String>,
    /// Columns that are not there.
    pub add: Vec<&'static ColumnSpec>,
    /// Columns whose type is changed where they are.
    pub alter: Vec<Alter>,
    /// Columns that another one takes the place of.
    pub shadows: Vec<Shadow>,
    /// Columns that must take null.
    pub drop_not_null: Vec<&'static ColumnSpec>,
    /// Columns, shadows apart, that will not take null.
    pub set_not_null: Vec<&'static ColumnSpec>,
    /// Columns that an old INSERT leaves out, without a default.
    pub defaults: Vec<&'static ColumnSpec>,
    /// Whether ids must come to be given by the column itself.
    pub identity: bool,
}

/// A column whose type is changed where it is.
#[derive(Debug)]
pub(super) struct Alter {
    pub want: &'static ColumnSpec,
    pub target: &'static str,
    /// The new value, where rows are written anew.
    pub using: Option<String>,
}

/// A column that another one takes the place of.
#[derive(Debug)]
pub(super) struct Shadow {
    pub want: &'static ColumnSpec,
    pub rewrite: Rewrite,
    pub exists: bool,
    /// The default that the column will have.
    pub default: Option<String>,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum UpgradeStep {
    Begin,
    Fill,
    Index(Build),
    Finish,
}

/// An index to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Build {
    pub name: String,
    pub is_unique: bool,
    /// Its definition from USING on.
    pub using: String,
    /// Whether one that was not finished is in the way.
    pub replaces_invalid: bool,
}

impl TablePlan {
    /// What the table lacks. `is_utc`: the session's times are in UTC.
    pub(super) fn new(spec: &'static TableSpec, table: Table, is_utc: bool) -> Self {
        let mut plan = Self {
            is_small: table.bytes < SMALL_BYTES,
            table,
            spec,
            faults: Vec::new(),
            add: Vec::new(),
            alter: Vec::new(),
            shadows: Vec::new(),
            drop_not_null: Vec::new(),
            set_not_null: Vec::new(),
            defaults: Vec::new(),
            identity: false,
        };
        for want in spec.columns {
            match plan.table.column(want.name).cloned() {
                Some(found) => plan.compare(want, &found, is_utc),
                None => plan.miss(want),
            }
        }
        // One that lacks nothing may be partitioned.
        if !plan.table.is_plain && plan.next().is_some() {
            let name = spec.name;
            let fault =
                format!("{name} is not a plain table without partitions, parents or children");
            plan.faults.push(fault);
        }
        plan
    }

    fn miss(&mut self, want: &'static ColumnSpec) {
        if !want.is_new {
            let (table, column) = (self.spec.name, want.name);
            self.faults.push(format!("{table} has no column {column}"));
        }
        self.add.push(want);
        if want.null == Null::Never {
            self.set_not_null.push(want);
        }
        if want.default.is_some() {
            self.defaults.push(want);
        }
    }

    fn compare(&mut self, want: &'static ColumnSpec, found: &Column, is_utc: bool) {
        let change = want.change(&found.kind, found.modifier, is_utc, found.is_indexed);
        let changes = change != Change::None;
        if changes && found.is_generated {
            let (table, column) = (self.spec.name, want.name);
            self.faults
                .push(format!("column {table}.{column} is generated"));
        }
        match change {
            Change::None => {}
            Change::Instant(target) => self.alter(want, target, None),
            Change::Rewrite(rewrite) if self.is_rewritten_in_place(want) => {
                self.alter(want, rewrite.target, Some(rewrite.of(want.name)));
            }
            Change::Rewrite(rewrite) => return self.shadow(want, found, rewrite),
            Change::Impossible => self.faults.push(format!(
                "column {}.{} is of type {}, of which ticketd can make no {}",
                self.spec.name,
                want.name,
                found.kind,
                want.kind.sql()
            )),
        }
        if want.kind == ColumnType::Number && !found.is_identity {
            self.identity = true;
        }
        if want.null == Null::Never && !found.not_null {
            self.set_not_null.push(want);
        }
        if want.null == Null::Allowed && found.not_null {
            self.drop_not_null.push(want);
        }
        let is_stale = changes && want.kind == ColumnType::Time;
        if want.default.is_some() && (found.default.is_none() || is_stale) {
            self.defaults.push(want);
        }
    }

    fn alter(&mut self, want: &'static ColumnSpec, target: &'static str, using: Option<String>) {
        self.alter.push(Alter {
            want,
            target,
            using,
        });
    }

    fn is_rewritten_in_place(&self, want: &ColumnSpec) -> bool {
        self.is_small && self.table.column(&want.shadow()).is_none()
    }

    fn shadow(&mut self, want: &'static ColumnSpec, found: &Column, rewrite: Rewrite) {
        // What was said of a time without a zone may not hold with one.
        let default = match want.kind {
            ColumnType::Number => None,
            ColumnType::Time => want.default.map(str::to_owned),
            _ => found.default.clone(),
        };
        self.identity |= want.kind == ColumnType::Number;
        self.shadows.push(Shadow {
            want,
            rewrite,
            exists: self.table.column(&want.shadow()).is_some(),
            default,
        });
    }

    /// What is to be done next; nothing if the table is as it must be.
    pub(super) fn next(&self) -> Option<UpgradeStep> {
        if self.must_begin() {
            return Some(UpgradeStep::Begin);
        }
        if self.check().is_some() && self.table.check != Some(true) {
            return Some(UpgradeStep::Fill);
        }
        let missing = self.missing_indexes();
        if let Some(build) = missing.first()
            && !self.is_small
        {
            return Some(UpgradeStep::Index(build.clone()));
        }
        let must_finish = self.check().is_some()
            || self.identity
            || !missing.is_empty()
            || self.table.function.is_some()
            || self.table.has_trigger
            || self.table.check.is_some()
            || self.strays().next().is_some();
        must_finish.then_some(UpgradeStep::Finish)
    }

    /// Whether all that is left takes an instant.
    pub(super) fn is_instant(&self) -> bool {
        let rows = self.check().is_some() && (self.must_begin() || self.table.check != Some(true));
        self.is_small || !rows && self.missing_indexes().is_empty()
    }

    fn must_begin(&self) -> bool {
        let is_watched = self.table.has_trigger
            && self.table.check.is_some()
            && self.table.function.as_ref() == Some(&self.source());
        !self.add.is_empty()
            || !self.alter.is_empty()
            || !self.drop_not_null.is_empty()
            || self.shadows.iter().any(|shadow| !shadow.exists)
            || self.check().is_some() && !is_watched
    }

    /// What holds for each row that is filled; nothing if there is nothing to fill.
    pub(super) fn check(&self) -> Option<String> {
        let sure = |shadow: &&Shadow| shadow.want.null == Null::Never;
        let filled = self
            .sure_columns()
            .map(|name| format!("{name} is not null"));
        let equal = self.shadows.iter().filter(|shadow| !sure(shadow));
        let equal = equal.map(|shadow| {
            let (old, new) = (shadow.want.name, shadow.want.shadow());
            format!("({new} is null) = ({old} is null)")
        });
        let terms: Vec<_> = filled.chain(equal).collect();
        (!terms.is_empty()).then(|| terms.join(" and "))
    }

    /// The columns, by the names that they have now, that will not take null.
    pub(super) fn sure_columns(&self) -> impl Iterator<Item = String> {
        let plain = self.set_not_null.iter().map(|want| want.name.to_owned());
        let shadows = self.shadows.iter().map(|shadow| shadow.want);
        let sure = shadows.filter(|want| want.null == Null::Never);
        plain.chain(sure.map(ColumnSpec::shadow))
    }

    /// The text of the trigger's function. It names the check, so that it is another one when that is.
    pub(super) fn source(&self) -> String {
        let lines = self.spec.columns.iter().filter_map(|want| self.line(want));
        let lines: String = lines.map(|line| format!("    {line};\n")).collect();
        let check = self.check().unwrap_or_default();
        format!("\n-- {check}\nbegin\n{lines}    return new;\nend\n")
    }

    fn line(&self, want: &'static ColumnSpec) -> Option<String> {
        let fill = want.fill.map(|fill| match fill {
            CREATED => format!("new.{}", self.name_after(CREATED)),
            fill => fill.to_owned(),
        });
        let name = want.name;
        if let Some(shadow) = self.shadows.iter().find(|shadow| shadow.want.name == name) {
            let (new, value) = (want.shadow(), shadow.rewrite.of(&format!("new.{name}")));
            return Some(match fill {
                Some(fill) => format!("new.{new} := coalesce({value}, new.{new}, {fill})"),
                None => format!("new.{new} := {value}"),
            });
        }
        let is_filled = self.set_not_null.iter().any(|filled| filled.name == name);
        let fill = fill.filter(|_| is_filled)?;
        Some(format!("new.{name} := coalesce(new.{name}, {fill})"))
    }

    /// The value that a column whose rows are written anew will have.
    pub(super) fn rewritten(&self, want: &ColumnSpec) -> Option<String> {
        let shadow = self
            .shadows
            .iter()
            .find(|shadow| shadow.want.name == want.name);
        let alter = self.alter.iter().find(|alter| alter.want.name == want.name);
        let shadow = shadow.map(|shadow| shadow.rewrite.of(want.name));
        shadow.or_else(|| alter?.using.clone())
    }

    /// The column that will have that name.
    pub(super) fn name_after(&self, name: &'static str) -> String {
        let shadow = self.shadows.iter().find(|shadow| shadow.want.name == name);
        shadow.map_or_else(|| name.to_owned(), |shadow| shadow.want.shadow())
    }

    /// The indexes that are to be built: of the column that must be unique, and in place of those
    /// that go with a column.
    pub(super) fn missing_indexes(&self) -> Vec<Build> {
        let replaced = self.replaced().map(|index| Build {
            name: replacement(index),
            is_unique: index.is_unique,
            using: self.renamed(&index.using),
            replaces_invalid: false,
        });
        let column = self.name_after(self.spec.unique);
        let unique = Build {
            name: self.unique_name(),
            is_unique: true,
            using: format!("using btree ({column})"),
            replaces_invalid: false,
        };
        let is_there = self
            .table
            .unique(self.spec.unique)
            .or(self.table.unique(&column));
        let unique = is_there.is_none().then_some(unique);
        let missing = replaced.chain(unique).filter_map(|build| {
            let found = self.table.index(&build.name);
            (!found.is_some_and(|index| index.is_valid)).then_some(Build {
                replaces_invalid: found.is_some(),
                ..build
            })
        });
        missing.collect()
    }

    /// The name of the key that there must be.
    pub(super) fn unique_name(&self) -> String {
        format!("{}_{}_key", self.spec.name, self.spec.unique)
    }

    /// The indexes that go with the columns that another one takes the place of.
    pub(super) fn replaced(&self) -> impl Iterator<Item = &Index> {
        let goes = |column: &String| self.shadows.iter().any(|shadow| shadow.want.name == column);
        self.table
            .indexes
            .iter()
            .filter(move |index| index.is_valid && index.columns.iter().any(goes))
    }

    /// A definition with shadows in place of their columns.
    fn renamed(&self, definition: &str) -> String {
        let mut renamed = String::with_capacity(definition.len() + 64);
        for word in words(definition) {
            let name = word.trim_matches('"');
            let shadow = self.shadows.iter().find(|shadow| shadow.want.name == name);
            match shadow {
                Some(shadow) => renamed.push_str(&shadow.want.shadow()),
                None => renamed.push_str(word),
            }
        }
        renamed
    }

    /// Columns that were to take the place of others, which have become what they must be otherwise.
    pub(super) fn strays(&self) -> impl Iterator<Item = &str> {
        let names = self.table.columns.iter().map(|column| column.name.as_str());
        names.filter(|name| {
            let is_used = |shadow: &Shadow| shadow.want.shadow() == **name;
            name.starts_with(SHADOW) && !self.shadows.iter().any(is_used)
        })
    }

    /// The name of the trigger's function, with its schema.
    pub(super) fn function(&self) -> String {
        format!("{}.{}", self.table.schema, function(self.spec.name))
    }
}

/// The name of the index that takes the place of one.
pub(super) fn replacement(index: &Index) -> String {
    format!("{SHADOW}{}", index.oid)
}

impl ColumnSpec {
    /// The name of the column that takes its place.
    pub(super) fn shadow(&self) -> String {
        format!("{SHADOW}{}", self.name)
    }
}

/// Names, quoted or not, and what is between them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
        let length = match first {
            '"' => rest.get(1..)?.find('"').map_or(rest.len(), |end| end + 2),
            c if is_name(c) => rest.find(|c| !is_name(c)).unwrap_or(rest.len()),
            _ => rest.find(|c| c == '"' || is_name(c)).unwrap_or(rest.len()),
        };
        let (word, left) = rest.split_at_checked(length)?;
        rest = left;
        Some(word)
    })
}

#[cfg(test)]
mod tests;
