//! Responses with their body in one piece.

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

/// A response with its body in one piece.
pub(super) type FullResponse = Response<Full<Bytes>>;

/// The content type of JSON (RFC 8259).
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Says that the connection ends with this response (RFC 9112 section 9.6).
pub(super) const CLOSE: (HeaderName, HeaderValue) = (CONNECTION, HeaderValue::from_static("close"));

/// A response of this status, content type and body.
pub(super) fn response(status: StatusCode, content_type: HeaderValue, body: Bytes) -> FullResponse {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// The same with one header more.
pub(super) fn with(
    mut response: FullResponse,
    (name, value): (HeaderName, HeaderValue),
) -> FullResponse {
    response.headers_mut().insert(name, value);
    response
}

/// The same, and it ends the connection: what the client still sends is not read.
pub(super) fn closing(response: FullResponse) -> FullResponse {
    with(response, CLOSE)
}

/// The same; a client that still sends a body, which is not read, is told that the connection closes.
pub(super) fn unread_body(body: &impl Body, response: FullResponse) -> FullResponse {
    if body.is_end_stream() {
        response
    } else {
        closing(response)
    }
}
