//! GET /ticket/{id}: what became of a ticket.

use hyper::StatusCode;
use uuid::Uuid;

use crate::http::problem;
use crate::http::response::{FullResponse, JSON, response};
use crate::source::Source;
use crate::store::{TicketStates, Unavailable};

/// Answers GET /ticket/{id}.
#[derive(Clone)]
pub(crate) struct TicketState {
    /// Asks the database.
    pub states: TicketStates,
}

impl TicketState {
    /// The state of the ticket of this id, as JSON. Who asks as a source is told of its own only.
    pub(crate) async fn get(self, id: Uuid, source: Option<Source>) -> FullResponse {
        match self.states.of(id, source).await {
            Ok(Some(json)) => response(StatusCode::OK, JSON, json.into()),
            Ok(None) => problem::not_found("no such ticket is stored, or not yet"),
            Err(Unavailable) => problem::unavailable("the database did not answer"),
        }
    }
}
