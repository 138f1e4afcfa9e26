//! Every answer that is given.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
};
use hyper::{Response, StatusCode};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::health::Readiness;
use crate::publisher::Refusal;

/// An answer with its body in one piece.
pub type Reply = Response<Full<Bytes>>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
const PROMETHEUS: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const CLOSE: (HeaderName, HeaderValue) = (CONNECTION, HeaderValue::from_static("close"));

/// A restarted broker is back in seconds; much later would only make senders queue up.
const RETRY: (HeaderName, HeaderValue) = (RETRY_AFTER, HeaderValue::from_static("1"));

const BEFORE_ID: &[u8] = b"{\"id\":\"";
const AFTER_ID: &[u8] = b"\"}";
const LOCATION_PATH: &[u8] = b"/ticket/";

/// The ticket is confirmed. `Location` only where that path answers.
pub fn accepted(id: Uuid, located: bool) -> Reply {
    let mut text = [0; Hyphenated::LENGTH];
    let id = Hyphenated::from_uuid(id).encode_lower(&mut text).as_bytes();
    let mut reply = reply(
        StatusCode::ACCEPTED,
        JSON,
        [BEFORE_ID, id, AFTER_ID].concat().into(),
    );
    if located
        && let Ok(location) =
            HeaderValue::from_maybe_shared(Bytes::from([LOCATION_PATH, id].concat()))
    {
        reply.headers_mut().insert(LOCATION, location);
    }
    reply
}

/// The ticket is not confirmed, and its sender may try again.
pub fn refused(refusal: Refusal) -> Reply {
    let detail = match refusal {
        Refusal::Away => "the message broker is away",
        Refusal::Blocked => "the message broker takes no messages for want of memory or disk",
        Refusal::Nacked => "the message broker refused the ticket",
        Refusal::Returned => "the message broker has no place for the ticket",
        Refusal::Deadline => "no confirmation in time; the ticket may be stored all the same",
        Refusal::Overloaded => "too many tickets are waiting",
        Refusal::Draining => "the service is ending",
    };
    with(problem(StatusCode::SERVICE_UNAVAILABLE, detail), RETRY)
}

/// The state of a stored ticket.
pub fn state(json: String) -> Reply {
    reply(StatusCode::OK, JSON, json.into())
}

/// No ticket of that id is stored.
pub fn not_stored() -> Reply {
    problem(
        StatusCode::NOT_FOUND,
        "no such ticket is stored, or not yet",
    )
}

/// The database cannot be asked.
pub fn database_away() -> Reply {
    with(
        problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "the database did not answer",
        ),
        RETRY,
    )
}

/// Something in the request is wrong for good.
pub fn bad_request(detail: &str) -> Reply {
    problem(StatusCode::BAD_REQUEST, detail)
}

/// The body ended before it was whole.
pub fn broken_body() -> Reply {
    with(bad_request("the body is incomplete"), CLOSE)
}

/// The body is larger than allowed.
pub fn too_large(max: usize) -> Reply {
    with(
        problem(
            StatusCode::PAYLOAD_TOO_LARGE,
            &format!("a ticket has at most {max} bytes"),
        ),
        CLOSE,
    )
}

/// The body did not come in time.
pub fn too_slow() -> Reply {
    with(
        problem(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
        CLOSE,
    )
}

/// What a client is told that was too slow with its headers: bytes, because
/// there is no request yet that hyper could answer.
pub fn too_slow_headers() -> String {
    let body = problem_json(
        StatusCode::REQUEST_TIMEOUT,
        "the headers did not come in time",
    );
    format!(
        "HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\
         content-type: application/problem+json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// No such path.
pub fn not_found() -> Reply {
    problem(StatusCode::NOT_FOUND, "no such path")
}

/// The path is there, for other methods.
pub fn method_not_allowed(allowed: &'static str) -> Reply {
    let detail = format!("this path takes {allowed}");
    let allow = (ALLOW, HeaderValue::from_static(allowed));
    with(problem(StatusCode::METHOD_NOT_ALLOWED, &detail), allow)
}

/// The metrics, as rendered.
pub fn metrics(text: String) -> Reply {
    reply(StatusCode::OK, PROMETHEUS, text.into())
}

/// The process answers, so it is alive.
pub fn live() -> Reply {
    reply(
        StatusCode::OK,
        JSON,
        Bytes::from_static(b"{\"status\":\"alive\"}"),
    )
}

/// Whether the process can do its work, and what it lacks.
pub fn ready(readiness: Readiness) -> Reply {
    let (code, status) = match readiness {
        _ if readiness.ready() => (StatusCode::OK, "ready"),
        Readiness { ending: true, .. } => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    let refusing = if readiness.refusing { "refusing" } else { "up" };
    let parts = [
        ("publishing", readiness.publishing, "up"),
        ("consuming", readiness.consuming, "up"),
        ("database", readiness.database, refusing),
    ];
    let checks: Vec<_> = parts
        .iter()
        .filter_map(|(name, up, word)| {
            up.map(|up| format!("\"{name}\":\"{}\"", if up { word } else { "down" }))
        })
        .collect();
    let json = format!(
        "{{\"status\":\"{status}\",\"checks\":{{{}}}}}",
        checks.join(",")
    );
    reply(code, JSON, json.into())
}

fn problem(status: StatusCode, detail: &str) -> Reply {
    reply(status, PROBLEM, problem_json(status, detail).into())
}

/// A problem document (RFC 9457). Only our own words go in, so nothing needs escaping.
fn problem_json(status: StatusCode, detail: &str) -> String {
    let title = status.canonical_reason().unwrap_or_default();
    format!(
        "{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{},\"detail\":\"{detail}\"}}",
        status.as_u16()
    )
}

fn reply(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Reply {
    let mut reply = Response::new(Full::new(body));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, content_type);
    reply
}

/// Says that the connection ends with this answer, because what the client
/// still sends is not read.
pub fn closing(reply: Reply) -> Reply {
    with(reply, CLOSE)
}

fn with(mut reply: Reply, (name, value): (HeaderName, HeaderValue)) -> Reply {
    reply.headers_mut().insert(name, value);
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accepted_ticket_is_located_only_where_that_path_answers() {
        let id = Uuid::from_u128(7);
        let located = accepted(id, true);
        assert_eq!(located.headers()[LOCATION], format!("/ticket/{id}"));
        assert!(!accepted(id, false).headers().contains_key(LOCATION));
    }

    #[test]
    fn readiness_names_what_is_missing() {
        let readiness = Readiness {
            publishing: None,
            consuming: Some(true),
            database: Some(false),
            refusing: false,
            ending: false,
        };
        assert_eq!(ready(readiness).status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
