//! The tables as they must be where ticketd did not make them, and how a column of the Go service
//! gets there. Pure.

/// A table that the Go service may have made.
#[derive(Debug)]
pub(super) struct TableSpec {
    /// Its name.
    pub name: &'static str,
    /// Its columns. The time of creation comes before those that are filled from it.
    pub columns: &'static [ColumnSpec],
    /// The column that must be unique.
    pub unique: &'static str,
    /// How it is stored, where not by default.
    pub storage: Option<&'static str>,
}

/// A column as it must be.
#[derive(Debug, Clone, Copy)]
pub(super) struct ColumnSpec {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: ColumnType,
    /// Whether null is kept out of it, let in, or left as it is.
    pub null: Null,
    /// What an INSERT gets that does not name it.
    pub default: Option<&'static str>,
    /// What old rows get. The time of the row's creation stands in for [`CREATED`].
    pub fill: Option<&'static str>,
    /// Whether the Go service had none.
    pub is_new: bool,
}

/// Stands for the time of a row's creation.
pub(super) const CREATED: &str = "created_at";

/// Whether a column may hold null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Null {
    Never,
    Allowed,
    AsItIs,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ColumnType {
    /// A number that the table gives.
    Number,
    Uuid,
    /// Text of up to 255 characters, or more.
    ShortText,
    Text,
    Decimal,
    Flag,
    Time,
}

const fn old(name: &'static str, kind: ColumnType) -> ColumnSpec {
    ColumnSpec {
        name,
        kind,
        null: Null::Allowed,
        default: None,
        fill: None,
        is_new: false,
    }
}

/// A column that is never null.
const fn sure(
    name: &'static str,
    kind: ColumnType,
    default: &'static str,
    fill: &'static str,
) -> ColumnSpec {
    ColumnSpec {
        null: Null::Never,
        default: Some(default),
        fill: Some(fill),
        ..old(name, kind)
    }
}

const fn new(want: ColumnSpec) -> ColumnSpec {
    ColumnSpec {
        is_new: true,
        ..want
    }
}

const ID: ColumnSpec = ColumnSpec {
    null: Null::Never,
    ..old("id", ColumnType::Number)
};

const CREATED_AT: ColumnSpec = sure(CREATED, ColumnType::Time, "now()", "now()");

/// The id of a ticket that never was, which is smaller than every other.
const NO_TICKET: &str = "'00000000-0000-0000-0000-000000000000'::uuid";

/// `tickets`, as schema.sql makes it.
pub(super) const TICKETS: TableSpec = TableSpec {
    name: "tickets",
    columns: &[
        ID,
        CREATED_AT,
        old("order_id", ColumnType::ShortText),
        old("vat", ColumnType::Decimal),
        old("total", ColumnType::Decimal),
        sure("valid", ColumnType::Flag, "false", "false"),
        old("ticket_text", ColumnType::Text),
        new(sure(
            "ticket_id",
            ColumnType::Uuid,
            "gen_random_uuid()",
            "gen_random_uuid()",
        )),
        new(old("invalid_reason", ColumnType::Text)),
        new(sure("received_at", ColumnType::Time, "now()", CREATED)),
    ],
    unique: "ticket_id",
    storage: None,
};

/// `products`, as schema.sql makes it. Old rows count as older than any ticket that comes now.
pub(super) const PRODUCTS: TableSpec = TableSpec {
    name: "products",
    columns: &[
        ID,
        CREATED_AT,
        old("name", ColumnType::ShortText),
        ColumnSpec {
            null: Null::AsItIs,
            ..old("product_id", ColumnType::ShortText)
        },
        old("price", ColumnType::Decimal),
        new(sure("updated_at", ColumnType::Time, "now()", CREATED)),
        new(sure(
            "ticket_received_at",
            ColumnType::Time,
            "now()",
            CREATED,
        )),
        new(sure("ticket_id", ColumnType::Uuid, NO_TICKET, NO_TICKET)),
    ],
    unique: "product_id",
    storage: Some("fillfactor = 70"),
};

/// What has to be done to a column's type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// PostgreSQL changes what it knows of the column, and touches no row.
    Instant(&'static str),
    /// Every row is written anew.
    Rewrite(Rewrite),
    /// Nobody can tell what the values mean.
    Impossible,
}

/// A new type, and a value of it for each of the old.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rewrite {
    /// The new type.
    pub target: &'static str,
    /// The new value; `{}` stands for the old one. Not null unless the old one is, and never an
    /// error, since the old service's INSERT would fail of it.
    value: &'static str,
}

impl Rewrite {
    /// The new value of an old one.
    pub(super) fn of(&self, old: &str) -> String {
        self.value.replace("{}", old)
    }
}

const TIMESTAMPTZ: &str = "timestamptz";

/// What a decimal looks like to PostgreSQL, in texts, as far as any numeric can hold it.
const TEXT_TO_NUMERIC: &str = "case when {} is null then null \
    when {}::text ~ '^\\s*[+-]?([0-9]{1,99}([.][0-9]{0,99})?|[.][0-9]{1,99})([eE][+-]?[0-9]{1,3})?\\s*$' \
    then {}::text::numeric else 'NaN' end";

/// PostgreSQL 13 has no numeric infinity.
const FLOAT_TO_NUMERIC: &str = "case when abs({}) = 'Infinity' then 'NaN' else {}::numeric end";

impl ColumnSpec {
    /// What has to be done to a column of this type, as `format_type` names it, and modifier.
    /// `is_utc`: times without a zone are in UTC; `is_indexed`: an index would have to be built anew.
    pub(super) fn change(
        &self,
        found: &str,
        modifier: i32,
        is_utc: bool,
        is_indexed: bool,
    ) -> Change {
        let rewrite = |target, value| Change::Rewrite(Rewrite { target, value });
        match (self.kind, found) {
            (ColumnType::Number, "bigint") => Change::None,
            (ColumnType::Number, "integer" | "smallint") => rewrite("bigint", "{}::bigint"),
            (ColumnType::Uuid, "uuid") | (ColumnType::Flag, "boolean") => Change::None,
            (ColumnType::ShortText | ColumnType::Text, "text") => Change::None,
            (ColumnType::ShortText, "character varying") if !(0..259).contains(&modifier) => {
                Change::None
            }
            (ColumnType::ShortText, "character varying") => Change::Instant("varchar(255)"),
            (ColumnType::Text, "character varying") => Change::Instant("text"),
            (ColumnType::ShortText | ColumnType::Text, _) => rewrite("text", "{}::text"),
            (ColumnType::Decimal, "numeric") if modifier < 0 => Change::None,
            (ColumnType::Decimal, "numeric") => Change::Instant("numeric"),
            (ColumnType::Decimal, "smallint" | "integer" | "bigint" | "money") => {
                rewrite("numeric", "{}::numeric")
            }
            (ColumnType::Decimal, "real" | "double precision") => {
                rewrite("numeric", FLOAT_TO_NUMERIC)
            }
            (ColumnType::Decimal, "text" | "character varying" | "character") => {
                rewrite("numeric", TEXT_TO_NUMERIC)
            }
            (ColumnType::Time, "timestamp with time zone") => Change::None,
            (ColumnType::Time, "timestamp without time zone") if is_utc && !is_indexed => {
                Change::Instant(TIMESTAMPTZ)
            }
            (ColumnType::Time, "timestamp without time zone" | "date") => {
                rewrite(TIMESTAMPTZ, "{}::timestamptz")
            }
            _ => Change::Impossible,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(kind: ColumnType, found: &str, modifier: i32) -> Change {
        old("x", kind).change(found, modifier, false, false)
    }

    #[test]
    fn only_what_must_touches_rows() {
        let instant = [
            (ColumnType::ShortText, "character varying", 258),
            (ColumnType::Text, "character varying", 10_004),
            (ColumnType::Decimal, "numeric", 655_366),
        ];
        for (kind, found, modifier) in instant {
            let change = change(kind, found, modifier);
            assert!(matches!(change, Change::Instant(_)), "{found}: {change:?}");
        }
        let none = [
            (ColumnType::ShortText, "character varying", 259),
            (ColumnType::ShortText, "character varying", -1),
            (ColumnType::ShortText, "text", -1),
            (ColumnType::Number, "bigint", -1),
            (ColumnType::Decimal, "numeric", -1),
            (ColumnType::Time, "timestamp with time zone", 3),
        ];
        for (kind, found, modifier) in none {
            assert_eq!(change(kind, found, modifier), Change::None, "{found}");
        }
    }

    #[test]
    fn times_are_taken_as_they_are_only_in_utc_and_without_an_index() {
        let change = |is_utc, is_indexed| {
            CREATED_AT.change("timestamp without time zone", -1, is_utc, is_indexed)
        };
        assert_eq!(change(true, false), Change::Instant(TIMESTAMPTZ));
        for (is_utc, is_indexed) in [(true, true), (false, false), (false, true)] {
            assert!(matches!(change(is_utc, is_indexed), Change::Rewrite(_)));
        }
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for (kind, found) in [
            (ColumnType::Flag, "integer"),
            (ColumnType::Number, "uuid"),
            (ColumnType::Time, "bigint"),
            (ColumnType::Decimal, "bytea"),
        ] {
            assert_eq!(change(kind, found, -1), Change::Impossible, "{found}");
        }
    }
}
