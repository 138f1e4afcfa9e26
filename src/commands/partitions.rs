//! `ticketd partitions`: the partitions of `tickets`.

use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context;

use crate::config::{PartitionAction, PartitionArguments};
use crate::store::{Partition, Partitions, list_partitions};

/// Does it.
pub async fn partitions(settings: &PartitionArguments, out: &mut impl Write) -> anyhow::Result<()> {
    let database = settings.database.config();
    let database = database
        .map_err(anyhow::Error::msg)
        .context("DATABASE_URL")?;
    if let PartitionAction::List = settings.action {
        let partitions = list_partitions(&database).await.context("DATABASE_URL")?;
        for partition in partitions {
            list(&partition, out)?;
        }
        return Ok(());
    }
    let partitions = Partitions::open(&database).await.context("DATABASE_URL")?;
    let width = settings.width.partition_width;
    let names = match &settings.action {
        PartitionAction::List => Vec::new(),
        PartitionAction::Create => partitions.create(width).await?,
        PartitionAction::Drop { older_than } => partitions.drop_older(*older_than).await?,
        PartitionAction::Detach { name } => {
            partitions.detach(name).await?;
            vec![name.clone()]
        }
        PartitionAction::Convert => {
            partitions.convert(width).await?;
            Vec::new()
        }
    };
    for name in names {
        writeln!(out, "{name}")?;
    }
    Ok(())
}

fn list(partition: &Partition, out: &mut impl Write) -> std::io::Result<()> {
    let Partition {
        name,
        from_ms,
        to_ms,
        rows,
        bytes,
    } = partition;
    let (from, to) = (time(*from_ms), time(*to_ms));
    writeln!(out, "{name}\t{from}\t{to}\t{rows}\t{bytes}")
}

/// A time as text; none is a hyphen.
fn time(ms: Option<u64>) -> String {
    let at = ms.and_then(|ms| UNIX_EPOCH.checked_add(Duration::from_millis(ms)));
    at.map_or_else(
        || "-".into(),
        |at| humantime::format_rfc3339_seconds(at).to_string(),
    )
}
