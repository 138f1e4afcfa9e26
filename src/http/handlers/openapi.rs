//! GET /openapi.json: what the public listener answers, for machines.

use bytes::Bytes;
use hyper::StatusCode;

use crate::http::response::{FullResponse, JSON, response};

const FILE: &[u8] = include_bytes!("openapi.json");

/// The description, to anyone: it is the same of every ticketd of this version, and holds no data.
pub(crate) fn openapi() -> FullResponse {
    response(StatusCode::OK, JSON, Bytes::from_static(FILE))
}
