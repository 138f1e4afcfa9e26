//! `ticketd sample`: made-up tickets, for demonstrations and tests.
//!
//! - `catalogue`, `receipt`, `shops`: the tickets, without I/O.
//! - `tokens`: credentials for the shops.
//! - `poster`: sends tickets.

mod catalogue;
mod poster;
mod receipt;
mod shops;
mod tokens;

use std::io::Write;
use std::pin::pin;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};
use serde_json::json;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::config::{SampleFormat, SampleSettings};
use poster::Poster;
use shops::{SampleTicket, Shops};
use tokens::ShopTokens;

/// Tickets a second that are sent where nothing is said.
const RATE: u16 = 50;

/// Writes tickets to standard output or sends them, until there are as many as wanted or it is told to
/// stop; or makes credentials for their shops.
pub async fn sample(
    settings: &SampleSettings,
    out: &mut impl Write,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let names = Shops::names(settings.sources);
    if let Some(path) = &settings.write_credentials {
        return tokens::write(path, &names);
    }
    let tokens = settings.tokens.as_deref().map(ShopTokens::read);
    let (names, tokens) = match tokens.transpose()? {
        Some(ShopTokens { names, tokens }) => (names, tokens),
        None => (names, Vec::new()),
    };
    let seed = settings.seed.unwrap_or_else(|| fastrand::u64(..));
    let shops = Shops::new(names, seed);
    if settings.send {
        send(settings, shops, tokens, out, stop).await
    } else {
        write(settings, shops, out, stop).await
    }
}

async fn send(
    settings: &SampleSettings,
    mut shops: Shops,
    tokens: Vec<String>,
    out: &mut impl Write,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let server = settings.remote.server().map_err(|why| anyhow!(why))?;
    let server = server.context("TICKETD_URL is not set")?;
    let token = settings.remote.token().map_err(|why| anyhow!(why))?;
    let mut poster = Poster::new(server, tokens, token);
    let mut pace = pace(settings.rate.unwrap_or(RATE));
    let mut left = settings.count.unwrap_or(u64::MAX);
    let mut stop = pin!(stop);
    while left > 0 {
        tokio::select! {
            _ = pace.tick(), if poster.has_room() => {
                let Some(ticket) = shops.next() else { break };
                poster.begin(&ticket)?;
                left -= 1;
            }
            posted = poster.next() => posted?,
            () = &mut stop => break,
        }
    }
    if left == 0 {
        poster.finish(stop).await?;
    }
    writeln!(out, "{} tickets accepted", poster.accepted())?;
    Ok(())
}

async fn write(
    settings: &SampleSettings,
    mut shops: Shops,
    out: &mut impl Write,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut pace = settings.rate.map(pace);
    let mut stop = pin!(stop);
    for _ in 0..settings.count.unwrap_or(u64::MAX) {
        tokio::select! {
            biased;
            () = &mut stop => break,
            () = next(pace.as_mut()) => {}
        }
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
