//! `ticketd silent`: the sources that have sent nothing for longer than they usually do.

use std::io::Write;

use anyhow::Context;
use serde_json::Value;

use super::day::{ago, text};
use crate::config::{ListFormat, SilentSettings};
use crate::store::TicketDays;

/// Lists the sources that have fallen silent.
pub async fn silent(settings: &SilentSettings, out: &mut impl Write) -> anyhow::Result<()> {
    let database = settings.database.config().map_err(anyhow::Error::msg);
    let days = TicketDays::connect(&database.context("DATABASE_URL")?).await;
    let days = days.context("DATABASE_URL")?;
    for source in days.silent().await.context("DATABASE_URL")? {
        match settings.format {
            ListFormat::Json => writeln!(out, "{source}")?,
            ListFormat::Text => writeln!(out, "{}", line(&source))?,
        }
    }
    Ok(())
}

fn line(of: &Value) -> String {
    let (source, last) = (text(of, "/source"), text(of, "/last"));
    let (silent, usual) = (ago(of, "/silent_seconds"), ago(of, "/usual_seconds"));
    format!("{source}\t{last}\t{silent}\t{usual}")
}
