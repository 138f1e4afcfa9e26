//! `ticketd export`: stored tickets, or their products, as files for others to read.

mod output;
mod row;

use std::io::Write;
use std::pin::pin;

use anyhow::{Context, bail};
use futures_util::TryStreamExt;

use super::progress::ProgressLine;
use crate::config::{ExportFormat, ExportSettings};
use crate::store::{ExportError, TicketExport};
use crate::ticket::parse;
use output::ExportOutput;
use row::{HEADING, write_row};

/// Writes them, and last of all that they are complete.
pub async fn export(settings: &ExportSettings, out: &mut impl Write) -> anyhow::Result<()> {
    let export = begin(settings).await?;
    let mut out = ExportOutput::new(settings.output.as_deref(), out)?;
    let rows = if settings.lines {
        write_products(&export, settings.format, &mut out).await?
    } else {
        write_tickets(&export, settings.format, &mut out).await?
    };
    match settings.format {
        ExportFormat::Csv => writeln!(out, "# complete: {rows} rows")?,
        ExportFormat::Jsonl => writeln!(out, "{{\"complete\":true,\"rows\":{rows}}}")?,
    }
    out.finish()
}

async fn begin(settings: &ExportSettings) -> anyhow::Result<TicketExport> {
    let database = settings.database.config().map_err(anyhow::Error::msg);
    let database = database.context("DATABASE_URL")?;
    let begun = TicketExport::begin(&database, &settings.span, settings.source.as_ref()).await;
    match begun {
        Ok(export) => Ok(export),
        Err(ExportError::UnknownZone) => {
            let zone = &settings.span.zone.zone;
            bail!("BUSINESS_TZ: PostgreSQL knows no time zone {zone:?}")
        }
        Err(ExportError::Backwards) => bail!("--to is before --from"),
        Err(ExportError::Store(error)) => Err(error).context("DATABASE_URL"),
    }
}

/// How many rows were written, without the heading.
async fn write_tickets(
    export: &TicketExport,
    format: ExportFormat,
    out: &mut impl Write,
) -> anyhow::Result<u64> {
    let mut tickets = pin!(export.tickets(format).await.context("DATABASE_URL")?);
    let mut progress = ProgressLine::new("tickets");
    if format == ExportFormat::Csv
        && let Some(heading) = next(&mut tickets).await?
    {
        out.write_all(&heading)?;
    }
    let mut rows = 0;
    while let Some(row) = next(&mut tickets).await? {
        out.write_all(&row)?;
        rows += 1;
        progress.add(1);
    }
    progress.end();
    Ok(rows)
}

/// The same, for each product of each valid ticket.
async fn write_products(
    export: &TicketExport,
    format: ExportFormat,
    out: &mut impl Write,
) -> anyhow::Result<u64> {
    let mut tickets = pin!(export.valid_tickets().await.context("DATABASE_URL")?);
    let mut progress = ProgressLine::new("products");
    if format == ExportFormat::Csv {
        writeln!(out, "{}", HEADING.join(","))?;
    }
    let mut rows = 0;
    while let Some(ticket) = next(&mut tickets).await? {
        let (head, mut products) = (ticket.head()?, Vec::new());
        // Of one that was valid by older rules, what can be read by these.
        parse(ticket.text()?, &mut products);
        for (position, product) in (1..).zip(&products) {
            write_row(out, format, head, position, product)?;
        }
        rows += products.len() as u64;
        progress.add(products.len() as u64);
    }
    progress.end();
    Ok(rows)
}

async fn next<T>(
    rows: &mut (impl TryStreamExt<Ok = T, Error = crate::store::StoreError> + Unpin),
) -> anyhow::Result<Option<T>> {
    rows.try_next().await.context("DATABASE_URL")
}
