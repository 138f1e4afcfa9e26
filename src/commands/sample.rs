//! `ticketd sample`: made-up tickets, for demonstrations and tests.
//!
//! - `catalogue`, `receipt`, `shops`: the tickets, without I/O.
//! - `tokens`: credentials for the shops.

mod catalogue;
mod receipt;
mod shops;
mod tokens;

use std::io::Write;
use std::time::{Duration, SystemTime};

use serde_json::json;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::config::{SampleFormat, SampleSettings};
use shops::{SampleTicket, Shops};

/// Writes tickets to standard output, until there are as many as wanted; or makes credentials for their
/// shops.
pub async fn sample(settings: &SampleSettings, out: &mut impl Write) -> anyhow::Result<()> {
    let names = Shops::names(settings.sources);
    if let Some(path) = &settings.write_credentials {
        return tokens::write(path, &names);
    }
    let seed = settings.seed.unwrap_or_else(|| fastrand::u64(..));
    let shops = Shops::new(names, seed);
    write(settings, shops, out).await
}

async fn write(
    settings: &SampleSettings,
    mut shops: Shops,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let mut pace = settings.rate.map(pace);
    for _ in 0..settings.count.unwrap_or(u64::MAX) {
        next(pace.as_mut()).await;
        let Some(ticket) = shops.next() else { break };
        write_one(&ticket, settings.format, out)?;
        if pace.is_some() {
            out.flush()?;
        }
    }
    Ok(())
}

fn write_one(
    ticket: &SampleTicket,
    format: SampleFormat,
    out: &mut impl Write,
) -> std::io::Result<()> {
    let SampleTicket { key, text, .. } = ticket;
    match format {
        SampleFormat::Text => out.write_all(text.as_bytes()),
        SampleFormat::Json => {
            let line = json!({ "key": key, "issued_at": issued_at(ticket), "ticket": text });
            writeln!(out, "{line}")
        }
    }
}

/// When it was issued, as Ticket-Issued-At has it.
fn issued_at(ticket: &SampleTicket) -> String {
    let issued_at = SystemTime::now()
        .checked_sub(ticket.age)
        .unwrap_or(SystemTime::UNIX_EPOCH);
    humantime::format_rfc3339_millis(issued_at).to_string()
}

/// So many times a second; after a pause not more often.
fn pace(rate: u16) -> Interval {
    let mut pace = interval(Duration::from_secs(1) / u32::from(rate.max(1)));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}

async fn next(pace: Option<&mut Interval>) {
    if let Some(pace) = pace {
        pace.tick().await;
    }
}
