//! Why the store failed, as far as is known, and never with what is in a row.

use std::error::Error;
use std::fmt;

use tokio_postgres::error::{DbError, SqlState};
use uuid::Uuid;

use crate::metrics::FlushFailed;

/// Why nothing was stored or read. [`Display`](fmt::Display) names the error; its alternate form
/// (`{:#}`) adds the sources, as one line for a log.
#[derive(Debug)]
pub(crate) enum StoreError {
    /// A ticket of the same id is stored already.
    Conflict(Cause),
    /// Another row has the same value of a unique key that is not ticketd's.
    Unique(Cause),
    /// PostgreSQL refuses one of the rows as the tables are.
    Data(Cause),
    /// It takes the tickets, but perhaps not the products.
    Products(Cause),
    /// It took too long, perhaps because it was too much at once.
    Timeout(Cause),
    /// The tables are not what they should be.
    Schema(Cause),
    /// The database has this encoding, and so can never hold all that a ticket may.
    Encoding(String),
    /// The connection or the server failed; the connection must not be used again.
    Unavailable(Cause),
}

/// What is told of an error, and the driver's error, if it comes from there.
pub(crate) struct Cause {
    summary: String,
    driver: Option<tokio_postgres::Error>,
}

impl StoreError {
    /// Sorts an error by its SQLSTATE class
    /// (<https://www.postgresql.org/docs/current/errcodes-appendix.html>). With 22 data exception,
    /// 23 integrity constraint violation, 44 a view's check option, 54 program limit exceeded and
    /// P0 an error that a trigger raised, a row is refused, for its own sake or for the tables'. 42
    /// is the tables' doing, and so are columns of another type (the binary format does not fit),
    /// numbering that has come to its end and a partition that is missing. Everything else passes.
    pub(crate) fn classify(error: tokio_postgres::Error) -> Self {
        let code = error.code().cloned();
        if let Some(db) = error.as_db_error().filter(|db| lacks_partition(db)) {
            return Self::Schema(without_partition(db).into());
        }
        let cause = Cause::from(error);
        let Some(code) = code else {
            return Self::Unavailable(cause);
        };
        match code {
            SqlState::QUERY_CANCELED => return Self::Timeout(cause),
            SqlState::UNIQUE_VIOLATION => return Self::Unique(cause),
            SqlState::INVALID_BINARY_REPRESENTATION
            | SqlState::BAD_COPY_FILE_FORMAT
            | SqlState::SEQUENCE_GENERATOR_LIMIT_EXCEEDED => return Self::Schema(cause),
            _ => {}
        }
        match code.code().get(..2) {
            Some("22" | "23" | "44" | "54" | "P0") => Self::Data(cause),
            Some("42") => Self::Schema(cause),
            _ => Self::Unavailable(cause),
        }
    }

    /// There is no connection, perhaps for a reason that a setting is about.
    pub(crate) fn unavailable(error: tokio_postgres::Error, about: Option<String>) -> Self {
        let mut cause = Cause::from(error);
        if let Some(about) = about {
            cause.summary = format!("{about}: {}", cause.summary);
        }
        Self::Unavailable(cause)
    }

    /// The same error of a statement that wrote products, if it did.
    pub(crate) fn of_products(self, with_products: bool) -> Self {
        match self {
            Self::Data(cause) | Self::Unique(cause) if with_products => Self::Products(cause),
            other => other,
        }
    }

    /// Whether a row is refused for what it holds, as the tables are.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Unique(_) | Self::Data(_) | Self::Products(_))
    }

    /// The label in metrics.
    pub(crate) fn reason(&self) -> FlushFailed {
        match self {
            Self::Conflict(_) => FlushFailed::Conflict,
            Self::Unique(_) | Self::Data(_) | Self::Products(_) => FlushFailed::Data,
            Self::Timeout(_) => FlushFailed::Timeout,
            Self::Schema(_) | Self::Encoding(_) => FlushFailed::Schema,
            Self::Unavailable(_) => FlushFailed::Unavailable,
        }
    }

    /// The key that a row has in common with another one, where it is not known whose that is.
    pub(super) fn unique_key(&self) -> Option<&DbError> {
        match self {
            Self::Unique(cause) => cause.driver.as_ref()?.as_db_error(),
            _ => None,
        }
    }

    fn cause(&self) -> Option<&Cause> {
        match self {
            Self::Conflict(cause)
            | Self::Unique(cause)
            | Self::Data(cause)
            | Self::Products(cause)
            | Self::Timeout(cause)
            | Self::Schema(cause)
            | Self::Unavailable(cause) => Some(cause),
            Self::Encoding(_) => None,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.cause()) {
            (Self::Encoding(encoding), _) => write!(
                f,
                "the database's encoding (server_encoding) is {encoding}, and tickets need UTF8: \
                make one by create database … encoding 'UTF8' template template0"
            )?,
            (_, Some(cause)) => write!(f, "{cause}")?,
            (_, None) => {}
        }
        let mut source = self.source().filter(|_| f.alternate());
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let driver = self.cause()?.driver.as_ref()?;
        // What PostgreSQL reports is told in the summary, and has the row's contents in its detail.
        driver.source().filter(|_| driver.as_db_error().is_none())
    }
}

impl From<tokio_postgres::Error> for Cause {
    fn from(error: tokio_postgres::Error) -> Self {
        Self {
            summary: error
                .as_db_error()
                .map_or_else(|| error.to_string(), summary),
            driver: Some(error),
        }
    }
}

impl From<String> for Cause {
    fn from(summary: String) -> Self {
        let driver = None;
        Self { summary, driver }
    }
}

impl From<&str> for Cause {
    fn from(summary: &str) -> Self {
        summary.to_owned().into()
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary)
    }
}

impl fmt::Debug for Cause {
    /// Without the driver's error, whose detail has a row's contents.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.summary, f)
    }
}

/// Whether it is that a partitioned table has no partition for a row, or a table is none for it. Of
/// the errors of this code only that names a table and no constraint.
fn lacks_partition(db: &DbError) -> bool {
    *db.code() == SqlState::CHECK_VIOLATION && db.table().is_some() && db.constraint().is_none()
}

/// Says so, with the id that it is missing for, where that is what the table is partitioned by.
fn without_partition(db: &DbError) -> String {
    let words = db.detail().unwrap_or_default();
    let words = words.split(|c: char| !c.is_ascii_hexdigit() && c != '-');
    let mut ids = words.filter_map(|word| Uuid::try_parse(word).ok());
    let id = ids.next().map(|id| format!(" of ticket_id {id}"));
    format!(
        "{}: a partition is missing for rows{}, which wait until it is there",
        summary(db),
        id.unwrap_or_default()
    )
}

/// The names of what an error is about, without a row's contents, which its detail has.
fn summary(db: &DbError) -> String {
    let mut summary = format!("{}: {}", db.code().code(), db.message());
    let about = [
        ("constraint", db.constraint()),
        ("column", db.column()),
        ("table", db.table()),
        // COPY tells the column only here: "COPY tickets, line 1, column total".
        ("at", db.where_().and_then(|place| place.lines().next())),
    ];
    for (what, name) in about {
        if let Some(name) = name.filter(|name| !summary.contains(*name)) {
            summary.push_str(&format!(", {what} {name}"));
        }
    }
    summary
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sources_are_kept_and_told_only_when_asked_for() {
        let nowhere = "host=127.0.0.1 port=1 user=x connect_timeout=1";
        let refused = tokio_postgres::connect(nowhere, tokio_postgres::NoTls).await;
        let error = StoreError::classify(refused.map(drop).unwrap_err());
        assert_eq!(error.reason(), FlushFailed::Unavailable);
        let source = error.source().unwrap();
        assert!(source.is::<std::io::Error>(), "{source:?}");
        assert_eq!(format!("{error:#}"), format!("{error}: {source}"));
    }

    #[test]
    fn what_ticketd_finds_itself_has_no_source() {
        let error = StoreError::Timeout("no answer in time".into());
        assert!(error.source().is_none());
        assert_eq!(format!("{error:#}"), "no answer in time");
        assert_eq!(error.reason(), FlushFailed::Timeout);
    }
}
