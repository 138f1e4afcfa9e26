//! The order of steps, as the catalogs make it.

use super::super::spec::TICKETS;
use super::*;

fn column(name: &str, kind: &str) -> Column {
    Column {
        name: name.to_owned(),
        kind: kind.to_owned(),
        modifier: -1,
        ..Column::default()
    }
}

/// A table as the Go service may have made it.
fn old(bytes: i64) -> Table {
    let columns = [
        ("id", "integer"),
        ("order_id", "text"),
        ("vat", "double precision"),
        ("total", "numeric"),
        ("valid", "boolean"),
        ("ticket_text", "text"),
        ("created_at", "timestamp without time zone"),
    ];
    let key = Index {
        name: "tickets_pkey".to_owned(),
        oid: 7,
        is_unique: true,
        is_valid: true,
        is_immediate: true,
        is_simple: true,
        keys: 1,
        columns: vec!["id".to_owned()],
        constraint: None,
        using: "USING btree (id)".to_owned(),
    };
    Table {
        name: "tickets",
        schema: "public".to_owned(),
        is_plain: true,
        bytes,
        columns: columns.map(|(name, kind)| column(name, kind)).into(),
        indexes: vec![key],
        ..Table::default()
    }
}

fn plan(table: &Table) -> TablePlan {
    TablePlan::new(&TICKETS, table.clone(), false)
}

/// What beginning leaves behind in the catalogs.
fn begun(table: &Table) -> Table {
    let plan = plan(table);
    let mut begun = table.clone();
    let shadows = plan.shadows.iter();
    let shadows = shadows.map(|shadow| column(&shadow.want.shadow(), shadow.rewrite.target));
    let add = plan.add.iter().map(|want| match want.kind {
        ColumnType::Time => column(want.name, "timestamp with time zone"),
        kind => column(want.name, kind.sql()),
    });
    begun.columns.extend(shadows.chain(add));
    begun.function = Some(plan.source());
    begun.has_trigger = true;
    begun.check = Some(false);
    begun
}

#[test]
fn a_large_table_is_begun_filled_indexed_and_finished() {
    let mut table = old(SMALL_BYTES);
    assert_eq!(plan(&table).next(), Some(UpgradeStep::Begin));
    table = begun(&table);
    assert_eq!(plan(&table).next(), Some(UpgradeStep::Fill));
    assert!(!plan(&table).is_instant());
    table.check = Some(true);
    for name in ["ticketd_new_7", "tickets_ticket_id_key"] {
        let Some(UpgradeStep::Index(build)) = plan(&table).next() else {
            panic!("{:?}", plan(&table).next());
        };
        assert_eq!(build.name, name);
        assert!(!build.replaces_invalid);
        table.indexes.push(Index {
            name: name.to_owned(),
            is_unique: true,
            ..Index::default()
        });
        let Some(UpgradeStep::Index(again)) = plan(&table).next() else {
            panic!("an index that is not valid counts");
        };
        assert!(again.replaces_invalid);
        let index = table.indexes.last_mut().unwrap();
        index.is_valid = true;
        index.is_immediate = true;
        index.is_simple = true;
        index.keys = 1;
        let key = if name == "ticketd_new_7" {
            "ticketd_new_id"
        } else {
            "ticket_id"
        };
        index.columns = vec![key.to_owned()];
    }
    assert_eq!(plan(&table).next(), Some(UpgradeStep::Finish));
    assert!(plan(&table).is_instant());
}

#[test]
fn a_small_table_is_rewritten_at_once() {
    let plan = plan(&old(SMALL_BYTES - 1));
    assert!(plan.is_instant());
    assert!(plan.shadows.is_empty());
    let altered: Vec<_> = plan.alter.iter().map(|alter| alter.want.name).collect();
    assert_eq!(altered, ["id", "created_at", "vat"]);
}

#[test]
fn what_was_begun_for_other_columns_is_begun_again() {
    let mut table = begun(&old(SMALL_BYTES));
    table.function = Some("another".to_owned());
    assert_eq!(plan(&table).next(), Some(UpgradeStep::Begin));
}

#[test]
fn what_is_missing_and_what_means_nothing_is_said() {
    let mut table = old(0);
    table.columns.retain(|column| column.name != "vat");
    table.columns.push(column("valid", "boolean"));
    table.columns[3].kind = "integer".to_owned();
    let faults = plan(&table).faults;
    assert_eq!(faults.len(), 2, "{faults:?}");
}

#[test]
fn indexes_are_renamed_by_whole_names() {
    let plan = plan(&old(SMALL_BYTES));
    let renamed = |text| plan.renamed(text);
    assert_eq!(
        renamed("USING btree (id DESC, ids, \"vat\" NULLS FIRST, \"a vat\") WITH (x='1')"),
        "USING btree (ticketd_new_id DESC, ids, ticketd_new_vat NULLS FIRST, \"a vat\") WITH (x='1')"
    );
    assert_eq!(renamed("(é, \"open"), "(é, \"open");
}
