//! `ticketd status`: what became of a ticket.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde_json::Value;
use uuid::Uuid;

use crate::client::{HttpClient, HttpRequest};
use crate::config::{RemoteServer, RemoteSettings, StatusFormat, StatusSettings, TicketName};
use crate::source::id_of_key;
use crate::store::TicketReader;

/// Maximum wait for an answer: a ticketd waits 5 s for PostgreSQL.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Says what became of a ticket, by its id or its sender's key. True if that is known.
pub async fn status(settings: &StatusSettings, out: &mut impl Write) -> anyhow::Result<bool> {
    let id = id(&settings.ticket);
    let server = settings.remote.server().map_err(anyhow::Error::msg)?;
    let state = match server {
        Some(server) => ask_server(server, &settings.remote, id).await?,
        None => ask_database(settings, id).await?,
    };
    match (settings.format, &state) {
        (StatusFormat::Json, Some(state)) => writeln!(out, "{state}")?,
        (StatusFormat::Json, None) => writeln!(out, "{{\"state\":\"unknown\",\"id\":\"{id}\"}}")?,
        (StatusFormat::Text, Some(state)) => write_text(id, state, out)?,
        (StatusFormat::Text, None) => writeln!(out, "{id}: not known, or not yet")?,
    }
    Ok(state.is_some())
}

async fn ask_database(settings: &StatusSettings, id: Uuid) -> anyhow::Result<Option<String>> {
    let database = settings.database.config().map_err(anyhow::Error::msg)?;
    let (reader, answering) = TicketReader::new(database.context("DATABASE_URL is not set")?);
    let state = tokio::select! {
        state = reader.state(id, None) => state,
        () = answering => return Err(anyhow!("nobody answers")),
    };
    state.map_err(|_| anyhow!("DATABASE_URL: the database did not answer"))
}

/// Asks a ticketd, which tells a source of its own tickets only.
async fn ask_server(
    server: RemoteServer,
    remote: &RemoteSettings,
    id: Uuid,
) -> anyhow::Result<Option<String>> {
    let mut request = HttpRequest::get(format!("/ticket/{id}"));
    if let Some(token) = remote.token().map_err(anyhow::Error::msg)? {
        request = request.with("authorization", &format!("Bearer {token}"))?;
    }
    let client = HttpClient::new(server, 1, ANSWER_TIMEOUT);
    let answer = client.ask(&request).await.context("TICKETD_URL")?;
    match answer.status {
        200 => Ok(Some(String::from_utf8(answer.body.to_vec())?)),
        // Not that of a server which has no such route.
        404 if answer.detail().contains("no such ticket") => Ok(None),
        _ => Err(anyhow!("TICKETD_URL answered {}", answer.detail())),
    }
}

fn id(ticket: &TicketName) -> Uuid {
    let key = ticket
        .key
        .as_ref()
        .map(|key| id_of_key(ticket.source.as_ref(), key.as_bytes()));
    ticket.id.or(key).unwrap_or_default()
}

fn write_text(id: Uuid, state: &str, out: &mut impl Write) -> anyhow::Result<()> {
    let state: Value = serde_json::from_str(state)?;
    let text = |of: &Value, name: &str| of.get(name).and_then(Value::as_str).map(str::to_owned);
    let valid = state.get("valid").and_then(Value::as_bool);
    let verdict = match (valid, text(&state, "invalid_reason")) {
        (Some(true), _) => "stored, valid".to_owned(),
        (Some(false), reason) => {
            let reason = reason.unwrap_or_else(|| "for no reason that is known".into());
            let detail = text(&state, "detail").unwrap_or_default();
            format!("stored, invalid: {reason} {detail}")
        }
        (None, _) => "dead".to_owned(),
    };
    writeln!(out, "{id}: {}", verdict.trim_end())?;
    for name in [
        "reason",
        "source",
        "issued_at",
        "received_at",
        "stored_at",
        "set_aside_at",
    ] {
        if let Some(value) = text(&state, name) {
            writeln!(out, "  {name}: {value}")?;
        }
    }
    let set_aside = state.get("set_aside").and_then(Value::as_array);
    for other in set_aside.into_iter().flatten() {
        let (at, reason) = (text(other, "set_aside_at"), text(other, "reason"));
        let (at, reason) = (at.unwrap_or_default(), reason.unwrap_or_default());
        writeln!(
            out,
            "  another text of this id was set aside at {at}: {reason}"
        )?;
    }
    Ok(())
}
