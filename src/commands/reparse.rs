//! `ticketd reparse`: stored invalid tickets judged again, by the rules as they are.

use std::io::Write;

use anyhow::Context;
use tracing::info;

use super::progress::ProgressLine;
use crate::config::ReparseSettings;
use crate::store::{Judged, Reparse};

/// Judges them in portions, each of which is stored before the next is begun.
pub async fn reparse(settings: &ReparseSettings, out: &mut impl Write) -> anyhow::Result<()> {
    let database = settings.database.config().map_err(anyhow::Error::msg);
    let reparse = Reparse::begin(&database.context("DATABASE_URL")?, settings.after).await;
    let mut reparse = reparse.context("DATABASE_URL")?;
    let mut progress = ProgressLine::new("invalid tickets looked at");
    let mut all = Judged::default();
    loop {
        let next = reparse.next(&settings.filter, settings.dry_run).await;
        let next = next.with_context(|| format!("all up to number {} are done", reparse.at()));
        let Some(judged) = next? else { break };
        progress.add(judged.looked_at);
        all.looked_at += judged.looked_at;
        all.valid += judged.valid;
        all.otherwise += judged.otherwise;
    }
    progress.end();
    info!("done up to number {}", reparse.at());
    let Judged {
        looked_at,
        valid,
        otherwise,
    } = all;
    writeln!(out, "{looked_at}\t{valid}\t{otherwise}")?;
    Ok(())
}
