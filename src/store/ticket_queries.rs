//! What is asked about stored and dead tickets, and the JSON that it comes to.
//!
//! PostgreSQL writes most of the JSON, as it knows how to write times. Money stays text, since many
//! readers turn a JSON number into a float.

use serde_json::{Value, json};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Statement};
use uuid::Uuid;

use super::connect::BY_INDEX;
use crate::source::Source;
use crate::ticket::Reason;

/// Maximum number of dead tickets of one id that are told of.
const SET_ASIDE_MAX: usize = 10;

/// How many of the newest tickets are looked at for a list, however few of them fit; and how many at
/// first, since a partitioned table has no index that gives them in order.
const LOOKED_AT_MAX: i64 = 100_000;
const LOOKED_AT_FIRST: i64 = 4_000;

const HAVE_ORIGINS: &str = "select count(*) = 5 from pg_attribute where not attisdropped and ( \
    attrelid in (to_regclass('tickets'), to_regclass('dead_tickets')) and attname in ('source', 'issued_at') \
    or attrelid = to_regclass('dead_tickets') and attname = 'received_at')";

const STORED: &str = "select json_build_object('state', 'stored', \
    'id', ticket_id, 'valid', valid, 'invalid_reason', invalid_reason, 'order_id', order_id, \
    'vat', vat::text, 'total', total::text, 'source', {source}, 'issued_at', {issued_at}, \
    'received_at', received_at, 'stored_at', created_at)::text \
    from tickets where ticket_id = $1 and ($2::text is null or {source} = $2)";

const DEAD: &str = "select json_build_object('reason', reason, 'set_aside_at', created_at, \
    'source', {source}, 'issued_at', {issued_at}, 'received_at', {received_at})::text \
    from dead_tickets where ticket_id = $1 and ($2::text is null or {source} = $2) \
    order by id desc limit $3";

// Where a list begins, and the first ticket of all. In a partitioned table, to look for them would be
// to read all of it: the last number that was given stands for the last there is, where the role is told.
const BOUNDS: &str = "select coalesce($1, case when t.relkind = 'p' \
        then (select last_value + 1 from pg_sequences where format('%I.%I', schemaname, sequencename) = \
            pg_get_serial_sequence('tickets', 'id')) end, (select max(id) + 1 from tickets), 1), \
    case when t.relkind = 'p' then 1 else coalesce((select min(id) from tickets), 1) end \
    from pg_class t where t.oid = 'tickets'::regclass";

const NEWEST: &str = "select id, json_build_object('number', id, \
    'id', ticket_id, 'valid', valid, 'invalid_reason', invalid_reason, 'order_id', order_id, \
    'vat', vat::text, 'total', total::text, 'source', {source}, 'issued_at', {issued_at}, \
    'received_at', received_at, 'stored_at', created_at)::text, \
    case when $6 then ticket_text end \
    from tickets where id < $1 and id >= $2 and ($3::bool is null or valid = $3) \
    and ($4::text is null or {source} = $4) order by id desc limit $5";

/// Which tickets a list has: the newest that fit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct TicketFilter {
    /// At most so many.
    pub limit: u16,
    /// Only valid ones, or only invalid ones.
    pub valid: Option<bool>,
    /// Only those of this source.
    pub source: Option<Source>,
    /// Only those that were stored before the one of this number.
    pub before: Option<i64>,
    /// With their text.
    pub text: bool,
}

/// The statements of a session.
pub(super) struct Queries {
    stored: Statement,
    dead: Statement,
    bounds: Statement,
    newest: Statement,
    /// Whether the tables have columns for tickets' origins, which may still come.
    pub(super) have_origins: bool,
}

impl Queries {
    /// Prepares them.
    pub(super) async fn prepare(client: &Client) -> Result<Self, Error> {
        client.batch_execute(BY_INDEX).await?;
        let have_origins: bool = client.query_one(HAVE_ORIGINS, &[]).await?.try_get(0)?;
        let sql = |sql: &str| match have_origins {
            true => sql
                .replace("{source}", "source")
                .replace("{issued_at}", "issued_at")
                .replace("{received_at}", "received_at"),
            false => sql
                .replace("{source}", "null::text")
                .replace("{issued_at}", "null::timestamptz")
                .replace("{received_at}", "null::timestamptz"),
        };
        Ok(Self {
            stored: client.prepare(&sql(STORED)).await?,
            dead: client.prepare(&sql(DEAD)).await?,
            bounds: client.prepare(BOUNDS).await?,
            newest: client.prepare(&sql(NEWEST)).await?,
            have_origins,
        })
    }

    /// What became of the ticket of this id, as JSON; none while that is not known. A source is told
    /// of its own only.
    pub(super) async fn state(
        &self,
        client: &Client,
        id: Uuid,
        source: Option<&Source>,
    ) -> Result<Option<String>, Error> {
        let source = source.map(Source::as_str);
        let stored = client.query_opt(&self.stored, &[&id, &source]).await?;
        let stored = stored.map(|row| row.try_get(0)).transpose()?;
        let set_aside = i64::try_from(SET_ASIDE_MAX).unwrap_or(i64::MAX);
        let dead = match client.query(&self.dead, &[&id, &source, &set_aside]).await {
            // Who may only read tickets is told of those.
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Vec::new(),
            dead => dead?,
        };
        let dead: Result<Vec<String>, Error> = dead.iter().map(|row| row.try_get(0)).collect();
        Ok(state(id, stored, &dead?).map(|state| state.to_string()))
    }

    /// A list of tickets as JSON, and where to go on.
    pub(super) async fn newest(
        &self,
        client: &Client,
        filter: &TicketFilter,
    ) -> Result<String, Error> {
        let bounds = client.query_one(&self.bounds, &[&filter.before]).await?;
        let (end, first): (i64, i64) = (bounds.try_get(0)?, bounds.try_get(1)?);
        let source = filter.source.as_ref().map(Source::as_str);
        let limit = i64::from(filter.limit);
        let (mut rows, mut begin, mut is_full) = (Vec::new(), end, false);
        for looked_at in [LOOKED_AT_FIRST, LOOKED_AT_MAX] {
            if is_full || begin <= first && begin < end {
                break;
            }
            begin = end.saturating_sub(looked_at).max(first);
            let of: [&(dyn ToSql + Sync); 6] =
                [&end, &begin, &filter.valid, &source, &limit, &filter.text];
            rows = client.query(&self.newest, &of).await?;
            is_full = rows.len() == usize::from(filter.limit);
        }
        let last = rows.last().filter(|_| is_full);
        let last: Option<i64> = last.map(|row| row.try_get(0)).transpose()?;
        let next = last.unwrap_or(begin);
        let tickets: Result<Vec<Value>, Error> = rows.iter().map(listed).collect();
        let list = json!({ "tickets": tickets?, "next": (next > first).then_some(next) });
        Ok(list.to_string())
    }
}

fn listed(row: &Row) -> Result<Value, Error> {
    let mut ticket = object(row.try_get(1)?);
    explain(&mut ticket);
    if let Some(text) = row.try_get::<_, Option<String>>(2)? {
        set(&mut ticket, "text", text.into());
    }
    Ok(ticket)
}

/// One ticket's state, from its row and those of dead tickets of its id, the newest first.
fn state(id: Uuid, stored: Option<String>, dead: &[String]) -> Option<Value> {
    let mut dead: Vec<Value> = dead.iter().map(|json| object(json.clone())).collect();
    if let Some(stored) = stored {
        let mut stored = object(stored);
        explain(&mut stored);
        set(&mut stored, "set_aside", dead.into());
        return Some(stored);
    }
    let newest = dead.drain(..).next();
    newest.map(|mut newest| {
        set(&mut newest, "state", "dead".into());
        set(&mut newest, "id", id.to_string().into());
        newest
    })
}

/// PostgreSQL has made it.
fn object(json: String) -> Value {
    serde_json::from_str(&json).unwrap_or_else(|_malformed| json.into())
}

fn set(object: &mut Value, name: &str, value: Value) {
    if let Value::Object(fields) = object {
        fields.insert(name.to_owned(), value);
    }
}

/// Adds what a reason means to a ticket that has one, and the line that it is about.
fn explain(ticket: &mut Value) {
    let reason = ticket.get("invalid_reason").and_then(Value::as_str);
    let Some((code, line)) = reason.and_then(|reason| reason.split_once(':')) else {
        return;
    };
    let line = line.parse::<u32>().ok();
    let reason = Reason::ALL.into_iter().find(|reason| reason.code() == code);
    set(ticket, "line", line.into());
    set(ticket, "detail", reason.map(Reason::explain).into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_tells_what_is_stored_and_what_was_set_aside() {
        let id = Uuid::from_u128(7);
        let dead = ["{\"reason\":\"b\"}".to_owned(), "{\"reason\":\"a\"}".into()];
        assert_eq!(state(id, None, &[]), None);
        let only_dead = state(id, None, &dead).expect("known");
        assert_eq!(
            only_dead,
            json!({ "state": "dead", "id": id.to_string(), "reason": "b" })
        );
        let row = "{\"state\":\"stored\",\"invalid_reason\":\"bad_vat:2\"}".to_owned();
        let stored = state(id, Some(row), &dead).expect("known");
        assert_eq!(
            stored["set_aside"],
            json!([{ "reason": "b" }, { "reason": "a" }])
        );
        assert_eq!(stored["line"], 2);
        assert_eq!(stored["detail"], Reason::BadVat.explain());
    }

    #[test]
    fn a_reason_of_another_version_is_told_without_an_explanation() {
        let mut ticket = json!({ "invalid_reason": "too_green:3" });
        explain(&mut ticket);
        assert_eq!(
            ticket,
            json!({ "invalid_reason": "too_green:3", "line": 3, "detail": null })
        );
        let mut valid = json!({ "invalid_reason": null });
        explain(&mut valid);
        assert_eq!(valid, json!({ "invalid_reason": null }));
    }
}
