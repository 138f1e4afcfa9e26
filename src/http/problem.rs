//! Errors as problem documents (RFC 9457).

use std::ops::RangeInclusive;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{
    ACCEPT_ENCODING, ALLOW, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use tracing::debug;

use super::encoding::{ACCEPTED, UnknownCoding};
use super::request_id::RequestId;
use super::response::{FullResponse, closing, response, with};
use crate::publisher::PublishError;

const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

/// When to retry, in seconds. A restarted broker is back in seconds; much later would only make
/// senders queue up, and all at the same time would be the next outage.
const RETRY_SECONDS: RangeInclusive<u16> = 1..=5;

/// 400: something in the request is wrong for good.
pub(super) fn bad_request(detail: &str) -> FullResponse {
    problem(StatusCode::BAD_REQUEST, detail)
}

/// 400: the body ended before it was complete.
pub(super) fn incomplete_body() -> FullResponse {
    closing(bad_request("the body is incomplete"))
}

/// 401: nothing proves who sends it. The same whatever is missing or wrong (RFC 6750 section 3).
pub(super) fn unauthorized() -> FullResponse {
    let detail = "a valid credential is needed";
    let challenge = HeaderValue::from_static("Bearer realm=\"ticketd\"");
    let challenge = (WWW_AUTHENTICATE, challenge);
    with(problem(StatusCode::UNAUTHORIZED, detail), challenge)
}

/// 403: the client's certificate names no source, for this reason.
pub(super) fn no_source(why: &str) -> FullResponse {
    let detail = format!("the client's certificate names no source: {why}");
    problem(StatusCode::FORBIDDEN, &detail)
}

/// 404: the path is not known.
pub(super) fn no_such_path() -> FullResponse {
    not_found("no such path")
}

/// 404.
pub(super) fn not_found(detail: &str) -> FullResponse {
    problem(StatusCode::NOT_FOUND, detail)
}

/// 405: the path is known, for these methods.
pub(super) fn method_not_allowed(allowed: &'static str) -> FullResponse {
    let detail = format!("this path takes {allowed}");
    let allow = (ALLOW, HeaderValue::from_static(allowed));
    with(problem(StatusCode::METHOD_NOT_ALLOWED, &detail), allow)
}

/// 408: the body did not arrive in time.
pub(super) fn body_timeout() -> FullResponse {
    closing(problem(
        StatusCode::REQUEST_TIMEOUT,
        "the body did not arrive in time",
    ))
}

/// 408: the headers did not arrive in time. As bytes, because there is no request
/// yet that hyper could answer.
pub(super) fn headers_timeout() -> String {
    final_response(
        StatusCode::REQUEST_TIMEOUT,
        "the headers did not arrive in time",
    )
}

/// 400: the listener speaks HTTPS, and the client does not. As bytes, because hyper
/// has not seen the connection.
pub(super) fn plain_http() -> String {
    let detail = "this port speaks HTTPS (TLS_CERT is set), and was spoken to without TLS";
    final_response(StatusCode::BAD_REQUEST, detail)
}

/// A whole response, after which the connection is closed.
fn final_response(status: StatusCode, detail: &str) -> String {
    let id = RequestId::new();
    let body = document(status, detail, &id);
    format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\nx-request-id: {}\r\n\
         content-type: application/problem+json\r\ncontent-length: {}\r\n\r\n{body}",
        id.as_str(),
        body.len()
    )
}

/// 413: the body is larger than so many bytes.
pub(super) fn too_large(bytes_max: usize) -> FullResponse {
    let detail = format!("a ticket has at most {bytes_max} bytes");
    closing(problem(StatusCode::PAYLOAD_TOO_LARGE, &detail))
}

/// 413: one of many tickets is too large, as this says.
pub(super) fn ticket_too_large(detail: &str) -> FullResponse {
    problem(StatusCode::PAYLOAD_TOO_LARGE, detail)
}

/// 413: a body of many tickets is larger than so many bytes.
pub(super) fn bulk_too_large(bytes_max: usize) -> FullResponse {
    let detail = format!("many tickets together have at most {bytes_max} bytes (BULK_MAX)");
    problem(StatusCode::PAYLOAD_TOO_LARGE, &detail)
}

/// 415: a body of many tickets is of no type that is read.
pub(super) fn no_type_of_many() -> FullResponse {
    let detail =
        "Content-Type is text/plain, application/x-ndjson or multipart/mixed with a boundary";
    problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
}

/// 401: a signature cannot be checked before all of a body has come.
pub(super) fn signed_many() -> FullResponse {
    let detail = "many tickets together are not signed: send a token or a client's certificate";
    let challenge = HeaderValue::from_static("Bearer realm=\"ticketd\"");
    let challenge = (WWW_AUTHENTICATE, challenge);
    with(problem(StatusCode::UNAUTHORIZED, detail), challenge)
}

/// 415: the body is in a form that is not read (RFC 9110 section 12.5.3).
pub(super) fn unknown_coding(coding: UnknownCoding) -> FullResponse {
    let detail = match coding {
        UnknownCoding::Content => "a body has at most one Content-Encoding: gzip or zstd",
        UnknownCoding::Charset => {
            "a charset is one of utf-8, us-ascii, iso-8859-1 and windows-1252"
        }
    };
    let problem = problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail);
    match coding {
        UnknownCoding::Content => with(
            problem,
            (ACCEPT_ENCODING, HeaderValue::from_static(ACCEPTED)),
        ),
        UnknownCoding::Charset => problem,
    }
}

/// 403: the server is asked by a name that anybody may have made.
pub(super) fn unknown_host() -> FullResponse {
    let detail = "ask by an address, localhost or a name in PAGE_HOSTS";
    problem(StatusCode::FORBIDDEN, detail)
}

/// 429: the source is over its limit for so many seconds.
pub(super) fn rate_limited(seconds: u32) -> FullResponse {
    let problem = problem(
        StatusCode::TOO_MANY_REQUESTS,
        "this source sends too many tickets",
    );
    with(problem, (RETRY_AFTER, seconds.into()))
}

/// 503: the ticket is not confirmed, and its sender may retry.
pub(super) fn not_published(error: PublishError) -> FullResponse {
    unavailable(match error {
        PublishError::Unavailable => "the message broker is unavailable",
        PublishError::Blocked => {
            "the message broker accepts no messages for want of memory or disk"
        }
        PublishError::Nacked => "the message broker refused the ticket",
        PublishError::Returned => "the message broker has no queue for the ticket",
        PublishError::Timeout => "no confirmation in time; the ticket may be stored all the same",
        PublishError::Overloaded => "too many tickets are waiting",
        PublishError::Draining => "the service is shutting down",
    })
}

/// 503: it may work after a retry.
pub(super) fn unavailable(detail: &str) -> FullResponse {
    let seconds = fastrand::u16(RETRY_SECONDS);
    let retry: (HeaderName, HeaderValue) = (RETRY_AFTER, seconds.into());
    with(problem(StatusCode::SERVICE_UNAVAILABLE, detail), retry)
}

/// What a problem document is about, until it is known of which request it is.
#[derive(Clone)]
struct Detail(String);

/// How many tickets of a body are confirmed all the same.
#[derive(Clone)]
struct AcceptedTickets(u64);

/// The same problem of a body of many tickets, of which so many are confirmed.
pub(super) fn accepted(mut problem: FullResponse, tickets: u64) -> FullResponse {
    problem.extensions_mut().insert(AcceptedTickets(tickets));
    problem
}

/// A document that [`identified`] writes.
fn problem(status: StatusCode, detail: &str) -> FullResponse {
    let mut response = response(status, PROBLEM, Bytes::new());
    response.extensions_mut().insert(Detail(detail.to_owned()));
    response
}

/// The response to a request of this id. A problem has one in any case, and is logged with it.
pub(super) fn identified(mut response: FullResponse, id: Option<Box<RequestId>>) -> FullResponse {
    let Some(Detail(detail)) = response.extensions_mut().remove() else {
        return match id {
            Some(id) => with(response, id.header()),
            None => response,
        };
    };
    let id = id.map_or_else(RequestId::new, |id| *id);
    let mut document = document(response.status(), &detail, &id);
    if let Some(AcceptedTickets(tickets)) = response.extensions_mut().remove() {
        document.truncate(document.len() - 1);
        document.push_str(&format!(",\"accepted\":{tickets}}}"));
    }
    *response.body_mut() = Bytes::from(document).into();
    with(response, id.header())
}

/// Only our own words go in, and an id of such a form, so nothing needs escaping.
fn document(status: StatusCode, detail: &str, id: &RequestId) -> String {
    let title = status.canonical_reason().unwrap_or_default();
    let (code, id) = (status.as_u16(), id.as_str());
    debug!(
        request_id = id,
        status = code,
        detail,
        "a request is refused"
    );
    format!(
        "{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{code},\"detail\":\"{detail}\",\"request_id\":\"{id}\"}}"
    )
}
