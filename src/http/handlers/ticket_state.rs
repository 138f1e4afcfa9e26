//! GET /ticket/{id}: what became of a ticket.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::HeaderMap;
use uuid::Uuid;

use super::asker::asker;
use crate::http::auth::Senders;
use crate::http::problem;
use crate::http::response::{FullResponse, JSON, response};
use crate::source::Source;
use crate::store::{TicketReader, Unavailable};
use crate::tls::ClientIdentity;

/// Answers GET /ticket/{id}.
#[derive(Clone)]
pub(crate) struct TicketState {
    /// Asks the database.
    pub reader: TicketReader,
    /// Who may ask; anyone may where there are none.
    pub senders: Option<Arc<Senders>>,
}

impl TicketState {
    /// Whose tickets are asked for: anybody's where anyone may ask, and where an operator asks.
    pub(crate) fn source(
        &self,
        headers: &HeaderMap,
        client: &ClientIdentity,
    ) -> Result<Option<Source>, Box<FullResponse>> {
        let asker = asker(self.senders.as_ref(), client, headers)?;
        Ok(asker.map(|sender| sender.source.clone()))
    }

    /// The state of the ticket of this id, as JSON. Who asks as a source is told of its own only.
    pub(crate) async fn get(self, id: Uuid, source: Option<Source>) -> FullResponse {
        match self.reader.state(id, source).await {
            Ok(Some(json)) => response(StatusCode::OK, JSON, json.into()),
            Ok(None) => problem::not_found("no such ticket is known, or not yet"),
            Err(Unavailable) => problem::unavailable("the database did not answer"),
        }
    }
}
