//! GET /tickets: the newest tickets.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::HeaderMap;

use super::ticket_state::TicketState;
use crate::http::problem;
use crate::http::response::{FullResponse, JSON, response};
use crate::source::Source;
use crate::store::{TicketFilter, Unavailable};
use crate::tls::ClientIdentity;

/// How many tickets a list has where its reader does not say.
const LIMIT: u16 = 50;

/// The most tickets of a list.
const LIMIT_MAX: u16 = 200;

/// The most tickets of a list that has their texts.
const LIMIT_TEXT_MAX: u16 = 50;

/// Answers GET /tickets.
#[derive(Clone)]
pub(crate) struct TicketList(TicketState);

impl TicketList {
    /// Lists tickets to whoever may ask for one's state.
    pub(crate) fn new(state: TicketState) -> Self {
        Self(state)
    }

    /// Whose tickets are listed: see [`TicketState::source`].
    pub(crate) fn source(
        &self,
        headers: &HeaderMap,
        client: &ClientIdentity,
    ) -> Result<Option<Source>, Box<FullResponse>> {
        self.0.source(headers, client)
    }

    /// The tickets that a query asks for, as JSON. Who asks as a source is told of its own only.
    /// It may be of this age.
    pub(crate) async fn get(
        self,
        query: Option<String>,
        asks: Option<Source>,
        age: Duration,
    ) -> FullResponse {
        let mut filter = match filter(query.as_deref().unwrap_or_default()) {
            Ok(filter) => filter,
            Err(why) => return problem::bad_request(why),
        };
        if let Some(own) = asks {
            // As for one ticket: who asks for others' learns nothing, not even that there are none.
            filter.source = Some(own);
        }
        match self.0.reader.newest(filter, age).await {
            Ok(json) => response(StatusCode::OK, JSON, json.into()),
            Err(Unavailable) => problem::unavailable("the database did not answer"),
        }
    }
}

/// Reads a query.
fn filter(query: &str) -> Result<TicketFilter, &'static str> {
    let mut filter = TicketFilter {
        limit: LIMIT,
        ..TicketFilter::default()
    };
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        match name {
            "limit" => filter.limit = limit(value)?,
            "invalid" => filter.valid = Some(!flag(value).ok_or("invalid is true or false")?),
            "text" => filter.text = flag(value).ok_or("text is true or false")?,
            "source" => {
                let source =
                    Source::parse(value).map_err(|_form| "source is not a source's name")?;
                filter.source = Some(source);
            }
            "before" => {
                let number = value
                    .parse()
                    .map_err(|_form| "before is a ticket's number")?;
                filter.before = Some(number);
            }
            _ => return Err("a list is asked for by limit, invalid, source, before and text"),
        }
    }
    if filter.text {
        filter.limit = filter.limit.min(LIMIT_TEXT_MAX);
    }
    Ok(filter)
}

fn limit(text: &str) -> Result<u16, &'static str> {
    let limit = text.parse().ok();
    limit
        .filter(|limit| (1..=LIMIT_MAX).contains(limit))
        .ok_or("limit is 1 to 200")
}

fn flag(text: &str) -> Option<bool> {
    match text {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_whole_or_not_at_all() {
        let newest = TicketFilter {
            limit: 50,
            ..TicketFilter::default()
        };
        assert_eq!(filter(""), Ok(newest.clone()));
        assert_eq!(filter("&&"), Ok(newest));
        let all = filter("limit=200&invalid=true&source=shop-1&before=7&text=true");
        let all = all.expect("a query");
        assert_eq!(
            (all.limit, all.valid, all.before),
            (50, Some(false), Some(7))
        );
        assert_eq!(all.source.expect("a source").as_str(), "shop-1");
        for query in [
            "limit=0",
            "limit=201",
            "limit=",
            "limit=x",
            "invalid",
            "invalid=maybe",
            "source=Shop",
            "source=",
            "before=x",
            "before=9223372036854775808",
            "text=2",
            "order=desc",
            "limit=1&x",
        ] {
            assert!(filter(query).is_err(), "{query}");
        }
    }
}
