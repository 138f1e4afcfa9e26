//! Stored tickets written out, by one COPY, and so of one moment.
//!
//! PostgreSQL writes each row as it is to stand in the file; only the products are read out of the texts
//! here, by the parser that judged them.

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use tokio_postgres::Client;
use tokio_postgres::binary_copy::{BinaryCopyOutRow, BinaryCopyOutStream};
use tokio_postgres::types::Type;

use super::StoreError;
use super::connect::{Connected, Task, connect};
use super::day::table_error;
use crate::config::{DatabaseConfig, ExportFormat, ExportSpan, Moment};
use crate::source::Source;

// It holds a snapshot, and so keeps vacuum from old versions of products; a reader may take its time.
// Without a time-out of the connection's, one that pauses would be taken for dead after 15 s. Scans
// that begin in the middle would have rows in another order each time.
const SESSION: &str = "set statement_timeout = '6h'; set timezone = 'UTC'; \
    set datestyle = 'ISO'; set default_transaction_read_only = on; set tcp_user_timeout = 0; \
    set synchronize_seqscans = off; set max_parallel_workers_per_gather = 0";

// COPY takes no parameters, so they are settings of the session.
const BOUNDS: &str = "select bounds.first <= bounds.last, \
        set_config('ticketd.export_from', bounds.first::text, false), \
        set_config('ticketd.export_to', bounds.last::text, false), \
        set_config('ticketd.export_source', coalesce($6, ''), false) \
    from pg_timezone_names as zone cross join lateral (select \
        coalesce($2::text::timestamptz, $3::text::date::timestamp at time zone zone.name) as first, \
        coalesce($4::text::timestamptz, $5::text::date::timestamp at time zone zone.name) as last \
    ) as bounds where lower(zone.name) = lower($1)";

// Each setting is looked up once, as a query of its own.
const CHOSEN: &str = "from tickets \
    where received_at >= (select current_setting('ticketd.export_from')::timestamptz) \
    and received_at < (select current_setting('ticketd.export_to')::timestamptz) \
    and (select current_setting('ticketd.export_source')) in ('', source)";

// Money stays text, as everywhere; times are in UTC.
const CSV: &str = "select ticket_id, source, order_id, vat, total, valid::text as valid, \
    invalid_reason, to_json(issued_at) #>> '{}' as issued_at, \
    to_json(received_at) #>> '{}' as received_at, to_json(created_at) #>> '{}' as created_at, \
    ticket_text";

const JSON: &str = "select ticket_id, source, order_id, vat::text as vat, total::text as total, \
    valid, invalid_reason, issued_at, received_at, created_at, ticket_text";

const LINES: &str = "select ticket_id::text, source, order_id, to_json(issued_at) #>> '{}', \
    to_json(received_at) #>> '{}', ticket_text";

/// A connection that writes tickets out.
pub(crate) struct TicketExport {
    client: Client,
    _alive: Task,
}

/// Why nothing can be written out.
#[derive(Debug)]
pub(crate) enum ExportError {
    /// There is no such time zone.
    UnknownZone,
    /// The span ends before it begins.
    Backwards,
    /// The tables could not be read.
    Store(StoreError),
}

/// A valid ticket, of which the products are written.
pub(crate) struct ExportedTicket {
    row: BinaryCopyOutRow,
}

impl TicketExport {
    /// Connects, and chooses the tickets that were received in this span; those of a source, or all.
    pub(crate) async fn begin(
        database: &DatabaseConfig,
        span: &ExportSpan,
        source: Option<&Source>,
    ) -> Result<Self, ExportError> {
        let connected = connect(database, "ticketd export").await;
        let Connected { client, task, .. } = connected.map_err(ExportError::Store)?;
        let export = Self {
            client,
            _alive: task,
        };
        export.choose(span, source).await?;
        Ok(export)
    }

    async fn choose(&self, span: &ExportSpan, source: Option<&Source>) -> Result<(), ExportError> {
        let (from_at, from_day) = span.from.parts();
        let (to_at, to_day) = span.to.parts();
        let zone = &span.zone.zone;
        let source = source.map(Source::as_str);
        let chosen = async {
            self.client.batch_execute(SESSION).await?;
            self.client
                .query_opt(
                    BOUNDS,
                    &[zone, &from_at, &from_day, &to_at, &to_day, &source],
                )
                .await?
                .map(|row| row.try_get(0))
                .transpose()
        };
        match chosen.await {
            Ok(Some(true)) => Ok(()),
            Ok(Some(false)) => Err(ExportError::Backwards),
            Ok(None) => Err(ExportError::UnknownZone),
            Err(error) => Err(ExportError::Store(StoreError::classify(error))),
        }
    }

    /// The tickets, a row each with its line end, after a heading in CSV.
    pub(crate) async fn tickets(
        &self,
        format: ExportFormat,
    ) -> Result<impl Stream<Item = Result<Bytes, StoreError>> + use<>, StoreError> {
        let copy = match format {
            // Quotes keep what looks like a comment or a number what it is.
            ExportFormat::Csv => format!(
                "copy ({CSV} {CHOSEN}) to stdout (format csv, header, \
                force_quote (source, order_id, invalid_reason, ticket_text))"
            ),
            // JSON has no control characters, so that nothing is quoted.
            ExportFormat::Jsonl => format!(
                "copy (select row_to_json(ticket) from ({JSON} {CHOSEN}) as ticket) \
                to stdout (format csv, delimiter e'\\x02', quote e'\\x01')"
            ),
        };
        let rows = self.client.copy_out(&*copy).await.map_err(table_error)?;
        Ok(rows.map_err(StoreError::classify))
    }

    /// The valid tickets, to have their products written.
    pub(crate) async fn valid_tickets(
        &self,
    ) -> Result<impl Stream<Item = Result<ExportedTicket, StoreError>> + use<>, StoreError> {
        let copy = format!(
            "copy ({LINES} {CHOSEN} and valid and ticket_text is not null) to stdout (format binary)"
        );
        let rows = self.client.copy_out(&*copy).await.map_err(table_error)?;
        let rows = BinaryCopyOutStream::new(rows, &[Type::TEXT; 6]);
        Ok(rows.map(|row| match row {
            Ok(row) => Ok(ExportedTicket { row }),
            Err(error) => Err(StoreError::classify(error)),
        }))
    }
}

impl ExportedTicket {
    /// Its id, source, order id, time of issue and time of receipt, as text.
    pub(crate) fn head(&self) -> Result<[Option<&str>; 5], StoreError> {
        let field = |number| self.row.try_get(number).map_err(StoreError::classify);
        Ok([field(0)?, field(1)?, field(2)?, field(3)?, field(4)?])
    }

    /// Its text.
    pub(crate) fn text(&self) -> Result<&str, StoreError> {
        self.row.try_get(5).map_err(StoreError::classify)
    }
}

impl Moment {
    /// The moment, or else the day.
    fn parts(&self) -> (Option<&str>, Option<&str>) {
        match self {
            Self::At(moment) => (Some(moment), None),
            Self::Midnight(day) => (None, Some(day)),
        }
    }
}
