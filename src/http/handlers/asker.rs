//! Who asks for what is not a ticket: by a bearer token or a certificate, as nothing is signed.

use std::sync::Arc;

use hyper::header::HeaderMap;
use tracing::debug;

use crate::http::auth::{Sender, Senders, Unauthorized};
use crate::http::problem;
use crate::http::response::FullResponse;
use crate::tls::ClientIdentity;

/// The source that asks; none where anyone may ask, and where an operator does. The error is what
/// anybody else is told.
pub(super) fn asker(
    senders: Option<&Arc<Senders>>,
    client: &ClientIdentity,
    headers: &HeaderMap,
) -> Result<Option<Arc<Sender>>, Box<FullResponse>> {
    let Some(senders) = senders else {
        return Ok(None);
    };
    if let ClientIdentity::NoSource { why, .. } = client {
        return Err(problem::no_source(why).into());
    }
    senders.asks(client, headers).map_err(|Unauthorized(why)| {
        debug!(why, "a question without a valid credential");
        problem::unauthorized().into()
    })
}
