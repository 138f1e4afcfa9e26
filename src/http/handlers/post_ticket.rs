//! POST /ticket: 202 once RabbitMQ has confirmed the ticket.
//!
//! A body is never read as a ticket here: it is checked only for what cannot be
//! stored at all.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue, LOCATION};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::RecvError;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::clock::now_us;
use crate::health::Health;
use crate::http::body::{Bodies, BodyError, BodyStart};
use crate::http::idempotency::{KeyError, ticket_id};
use crate::http::issued_at::{IssuedAtError, issued_at_us};
use crate::http::problem;
use crate::http::response::{FullResponse, JSON, closing, response};
use crate::message::Record;
use crate::metrics::{HttpMetrics, Rejected};
use crate::publisher::{PublishError, PublishResult, Publisher};
use crate::source::{OwnedOrigin, Source};
use crate::ticket::{TextError, text};

const BEFORE_ID: &[u8] = b"{\"id\":\"";
const AFTER_ID: &[u8] = b"\"}";
const LOCATION_PATH: &[u8] = b"/ticket/";

/// Answers POST /ticket; one for each worker.
pub(crate) struct PostTicket {
    /// Publishes tickets.
    pub publisher: Publisher,
    /// Reads bodies.
    pub bodies: Bodies,
    /// Whether GET /ticket/{id} answers, so that `Location` may name it.
    pub has_ticket_state: bool,
    /// Whether the process is shutting down.
    pub health: Arc<Health>,
    /// What is counted here.
    pub metrics: Arc<HttpMetrics>,
}

/// What the head of a ticket's request tells.
pub(crate) struct TicketHead {
    id: Result<Uuid, HeadError>,
    received_at_us: i64,
    origin: OwnedOrigin,
}

/// What is wrong with a head.
#[derive(Clone, Copy)]
enum HeadError {
    Key(KeyError),
    IssuedAt(IssuedAtError),
}

/// What a ticket's request waits for once its body was looked at.
pub(crate) enum Progress {
    /// The confirm of the ticket of this id.
    AwaitConfirm(Uuid, oneshot::Receiver<PublishResult>),
    /// The rest of a body that comes in pieces, and then the confirm.
    ReadBody(Pin<Box<dyn Future<Output = FullResponse> + Send>>),
    /// Nothing: it is rejected.
    Rejected(FullResponse),
}

/// Why a ticket is rejected.
enum Rejection {
    BadHead(HeadError),
    NotText(TextError),
    Body(BodyError),
    NotPublished(PublishError),
}

/// A ticket on its way, by its id, and where the outcome comes from.
type Submitted = (Uuid, oneshot::Receiver<PublishResult>);

impl TicketHead {
    /// Reads a head; the ticket counts as received now, from this source if there is one.
    pub(crate) fn new(headers: &HeaderMap, source: Option<Source>) -> Self {
        let id = ticket_id(source.as_ref(), headers).map_err(HeadError::Key);
        let issued_at_us = issued_at_us(headers).map_err(HeadError::IssuedAt);
        Self {
            id: id.and_then(|id| issued_at_us.map(|_| id)),
            received_at_us: now_us(),
            origin: OwnedOrigin {
                source,
                issued_at_us: issued_at_us.unwrap_or_default(),
            },
        }
    }
}

impl PostTicket {
    /// Takes a first look at the body, which nearly always is complete, and hands
    /// the ticket to the publisher.
    pub(crate) fn start(self: &Arc<Self>, head: TicketHead, mut body: Incoming) -> Progress {
        let submitted = match self.bodies.start(&mut body) {
            Ok(BodyStart::Complete(body)) => self.submit(&head, &body),
            Ok(BodyStart::Partial(first)) => {
                return Progress::ReadBody(Box::pin(self.clone().read_body(head, first, body)));
            }
            Err(error) => Err(Rejection::Body(error)),
        };
        match submitted {
            Ok((id, outcome)) => Progress::AwaitConfirm(id, outcome),
            Err(rejection) => Progress::Rejected(self.reject(&rejection)),
        }
    }

    /// The response to a ticket that was submitted.
    pub(crate) fn finish(
        &self,
        id: Uuid,
        outcome: Result<PublishResult, RecvError>,
    ) -> FullResponse {
        // A publisher that ends without an answer has not seen a confirm.
        match outcome.unwrap_or(Err(PublishError::Draining)) {
            Ok(()) => {
                self.metrics.accepted.increment(1);
                self.closing_near_the_end(accepted(id, self.has_ticket_state))
            }
            Err(error) => self.reject(&Rejection::NotPublished(error)),
        }
    }

    async fn read_body(
        self: Arc<Self>,
        head: TicketHead,
        first: Bytes,
        rest: Incoming,
    ) -> FullResponse {
        let body = self.bodies.finish(first, rest).await;
        let submitted = body
            .map_err(Rejection::Body)
            .and_then(|body| self.submit(&head, &body));
        match submitted {
            Ok((id, outcome)) => self.finish(id, outcome.await),
            Err(rejection) => self.reject(&rejection),
        }
    }

    fn submit(&self, head: &TicketHead, body: &[u8]) -> Result<Submitted, Rejection> {
        let id = head.id.map_err(Rejection::BadHead)?;
        text(body).map_err(Rejection::NotText)?;
        if self.health.is_draining() {
            return Err(Rejection::NotPublished(PublishError::Draining));
        }
        let record = Record {
            id,
            received_at_us: head.received_at_us,
            origin: head.origin.borrowed(),
            body,
        };
        let submitted = self.publisher.submit(record);
        submitted
            .map(|outcome| (id, outcome))
            .map_err(Rejection::NotPublished)
    }

    fn reject(&self, rejection: &Rejection) -> FullResponse {
        self.metrics.rejected(rejection.reason());
        self.closing_near_the_end(self.problem(rejection))
    }

    fn problem(&self, rejection: &Rejection) -> FullResponse {
        match rejection {
            Rejection::BadHead(HeadError::Key(error)) => problem::bad_request(error.detail()),
            Rejection::BadHead(HeadError::IssuedAt(error)) => problem::bad_request(error.detail()),
            Rejection::NotText(error) => problem::bad_request(&error.to_string()),
            Rejection::Body(BodyError::TooLarge) => problem::too_large(self.bodies.bytes_max()),
            Rejection::Body(BodyError::Timeout) => problem::body_timeout(),
            Rejection::Body(BodyError::Incomplete) => problem::incomplete_body(),
            Rejection::Body(BodyError::TooMany) => {
                closing(problem::not_published(PublishError::Overloaded))
            }
            Rejection::NotPublished(error) => problem::not_published(*error),
        }
    }

    /// Near the end of a shutdown's delay, a client that keeps its connection is to
    /// reconnect elsewhere before this one is closed.
    fn closing_near_the_end(&self, response: FullResponse) -> FullResponse {
        if self.health.is_closing_connections() {
            closing(response)
        } else {
            response
        }
    }
}

impl Rejection {
    fn reason(&self) -> Rejected {
        match self {
            Self::BadHead(HeadError::Key(_)) => Rejected::BadKey,
            Self::BadHead(HeadError::IssuedAt(_)) => Rejected::BadIssuedAt,
            Self::NotText(_) => Rejected::NotText,
            Self::Body(BodyError::TooLarge) => Rejected::TooLarge,
            Self::Body(BodyError::Timeout) => Rejected::TooSlow,
            Self::Body(BodyError::Incomplete) => Rejected::BrokenBody,
            Self::Body(BodyError::TooMany) => Rejected::Overloaded,
            Self::NotPublished(error) => match error {
                PublishError::Unavailable => Rejected::BrokerAway,
                PublishError::Blocked => Rejected::BrokerBlocked,
                PublishError::Nacked => Rejected::Nack,
                PublishError::Returned => Rejected::Returned,
                PublishError::Timeout => Rejected::ConfirmTimeout,
                PublishError::Overloaded => Rejected::Overloaded,
                PublishError::Draining => Rejected::Draining,
            },
        }
    }
}

/// 202: the ticket is confirmed. `Location` only where that path answers.
fn accepted(id: Uuid, has_ticket_state: bool) -> FullResponse {
    let mut text = [0; Hyphenated::LENGTH];
    let id = Hyphenated::from_uuid(id).encode_lower(&mut text).as_bytes();
    let body = [BEFORE_ID, id, AFTER_ID].concat();
    let mut accepted = response(StatusCode::ACCEPTED, JSON, body.into());
    if has_ticket_state
        && let Ok(location) =
            HeaderValue::from_maybe_shared(Bytes::from([LOCATION_PATH, id].concat()))
    {
        accepted.headers_mut().insert(LOCATION, location);
    }
    accepted
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
}
