//! POST /ticket: 202 once RabbitMQ has confirmed the ticket.
//!
//! A body is never read as a ticket here: it is checked only for what cannot be
//! stored at all.

mod identity;
mod rejection;

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{HeaderValue, LOCATION};
use hyper::{Request, StatusCode};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::RecvError;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::clock::now_us;
use crate::coding::Coding;
use crate::health::Health;
use crate::http::auth::{Sender, Senders};
use crate::http::body::{Bodies, BodyError, BodyStart};
use crate::http::context::Trace;
use crate::http::encoding::UnknownCoding;
use crate::http::idempotency::ticket_id;
use crate::http::issued_at::issued_at_us;
use crate::http::problem;
use crate::http::rejections::RejectionLog;
use crate::http::response::{FullResponse, JSON, closing, response, unread_body};
use crate::message::Record;
use crate::metrics::HttpMetrics;
use crate::publisher::{PublishError, PublishResult, Publisher};
use crate::source::{IssuedAtError, Origin};
use crate::ticket::text;
use crate::tls::ClientIdentity;
use identity::{Refused, TicketIdentity};
pub(super) use rejection::Rejection;

const BEFORE_ID: &[u8] = b"{\"id\":\"";
const AFTER_ID: &[u8] = b"\"}";
const LOCATION_PATH: &[u8] = b"/ticket/";

/// Answers POST /ticket; one for each worker.
pub(crate) struct PostTicket {
    /// Publishes tickets.
    pub publisher: Publisher,
    /// Reads bodies.
    pub bodies: Bodies,
    /// Who may send; anyone may where there are none.
    pub senders: Option<Arc<Senders>>,
    /// Whether GET /ticket/{id} answers, so that `Location` may name it.
    pub has_ticket_state: bool,
    /// Whether the process is shutting down.
    pub health: Arc<Health>,
    /// What is counted here.
    pub metrics: Arc<HttpMetrics>,
    /// What the log says of rejected tickets.
    pub rejections: RejectionLog,
}

/// What the head of a ticket's request tells.
pub(crate) struct TicketHead {
    identity: TicketIdentity,
    times: Times,
}

/// A ticket that the publisher has, and where its outcome comes from.
type Published = (Uuid, oneshot::Receiver<PublishResult>);

/// When a ticket was received, and issued.
#[derive(Clone, Copy)]
struct Times {
    received_at_us: i64,
    issued_at_us: Result<Option<i64>, IssuedAtError>,
}

/// A ticket on its way.
pub(crate) struct Submitted {
    id: Uuid,
    sender: Option<Arc<Sender>>,
    /// Where the outcome comes from.
    pub outcome: oneshot::Receiver<PublishResult>,
}

/// What a ticket's request waits for once its body was looked at.
pub(crate) enum Progress {
    /// The confirm of this ticket.
    AwaitConfirm(Submitted),
    /// The rest of a body that comes in pieces, and then the confirm.
    ReadBody(Pin<Box<dyn Future<Output = FullResponse> + Send>>),
    /// Nothing: it is rejected.
    Rejected(FullResponse),
}

impl TicketHead {
    /// Why it is rejected without a look at its body, which the client is not told to send either.
    fn rejected_unread(&self) -> Option<(Rejection, Option<&Sender>)> {
        match &self.identity {
            TicketIdentity::Rejected(why, sender) if why.is_unread() => {
                Some((*why, sender.as_deref()))
            }
            _ => None,
        }
    }
}

impl PostTicket {
    /// Reads the head of a request; the ticket counts as received now.
    pub(crate) fn head<B>(&self, request: &Request<B>, client: &ClientIdentity) -> TicketHead {
        let received_at_us = now_us();
        let identity = match &self.senders {
            None => TicketIdentity::Known(ticket_id(None, request.headers()), None),
            Some(senders) => TicketIdentity::of(senders, request, client, received_at_us),
        };
        let issued_at_us = issued_at_us(request.headers());
        TicketHead {
            identity,
            times: Times {
                received_at_us,
                issued_at_us,
            },
        }
    }

    /// Takes a first look at the body, which nearly always is complete, and hands
    /// the ticket to the publisher.
    pub(crate) fn start(
        self: &Arc<Self>,
        mut head: TicketHead,
        trace: Trace,
        coding: Result<Coding, UnknownCoding>,
        mut body: Incoming,
    ) -> Progress {
        let coding = coding.unwrap_or_else(|unknown| {
            head.identity.reject_coding(unknown);
            Coding::default()
        });
        if let Some((rejection, sender)) = head.rejected_unread() {
            let response = self.reject(sender, rejection);
            return Progress::Rejected(unread_body(&body, response));
        }
        let submitted = match self.bodies.start(&mut body) {
            Ok(BodyStart::Complete(body)) if coding.is_plain() => self.submit(head, trace, &body),
            Ok(BodyStart::Complete(body)) => {
                let response = self.clone().decode_body(head, trace, coding, Ok(body));
                return Progress::ReadBody(Box::pin(response));
            }
            Ok(BodyStart::Partial(first)) => match head.identity {
                TicketIdentity::Rejected(rejection, sender) => {
                    let response = self.reject(sender.as_deref(), rejection);
                    return Progress::Rejected(closing(response));
                }
                _ => {
                    let response = self.clone().read_body(head, trace, coding, first, body);
                    return Progress::ReadBody(Box::pin(response));
                }
            },
            Err(error) => Err(head.identity.without_body(error)),
        };
        match submitted {
            Ok(submitted) => Progress::AwaitConfirm(submitted),
            Err(refused) => Progress::Rejected(self.refuse(&refused)),
        }
    }

    /// The response to a ticket that was submitted.
    pub(crate) fn finish(
        &self,
        submitted: &Submitted,
        outcome: Result<PublishResult, RecvError>,
    ) -> FullResponse {
        let sender = submitted.sender.as_deref();
        // A publisher that ends without an answer has not seen a confirm.
        match outcome.unwrap_or(Err(PublishError::Draining)) {
            Ok(()) => {
                let now_us = now_us();
                self.metrics.accepted(now_us);
                if let Some(sender) = sender {
                    sender.metrics.accepted(now_us);
                }
                self.closing_near_the_end(accepted(submitted.id, self.has_ticket_state))
            }
            Err(error) => self.reject(sender, Rejection::NotPublished(error)),
        }
    }

    async fn read_body(
        self: Arc<Self>,
        head: TicketHead,
        trace: Trace,
        coding: Coding,
        first: Bytes,
        rest: Incoming,
    ) -> FullResponse {
        let body = self.bodies.finish(first, rest).await;
        self.decode_body(head, trace, coding, body).await
    }

    async fn decode_body(
        self: Arc<Self>,
        head: TicketHead,
        trace: Trace,
        coding: Coding,
        body: Result<Bytes, BodyError>,
    ) -> FullResponse {
        let submitted = match body {
            Ok(body) => self.submit_decoded(head, trace, coding, body).await,
            Err(error) => Err(head.identity.without_body(error)),
        };
        match submitted {
            Ok(mut submitted) => {
                let outcome = (&mut submitted.outcome).await;
                self.finish(&submitted, outcome)
            }
            Err(refused) => self.refuse(&refused),
        }
    }

    /// Decodes the body once it is known whose it is: a signature is of the bytes that came.
    async fn submit_decoded(
        &self,
        head: TicketHead,
        trace: Trace,
        coding: Coding,
        body: Bytes,
    ) -> Result<Submitted, Refused> {
        let (sender, id) = head.identity.resolve(&body);
        let decoded = match id {
            Ok(id) => {
                let decoded = self.bodies.decode(coding, body).await;
                decoded.map(|body| (id, body)).map_err(Rejection::Body)
            }
            Err(rejection) => Err(rejection),
        };
        let published = decoded
            .and_then(|(id, body)| self.publish(id, sender.as_deref(), head.times, trace, &body));
        submitted(sender, published)
    }

    fn submit(&self, head: TicketHead, trace: Trace, body: &[u8]) -> Result<Submitted, Refused> {
        let (sender, id) = head.identity.resolve(body);
        let published =
            id.and_then(|id| self.publish(id, sender.as_deref(), head.times, trace, body));
        submitted(sender, published)
    }

    fn publish(
        &self,
        id: Uuid,
        sender: Option<&Sender>,
        times: Times,
        trace: Trace,
        body: &[u8],
    ) -> Result<Published, Rejection> {
        let issued_at_us = times.issued_at_us.map_err(Rejection::BadIssuedAt)?;
        text(body).map_err(Rejection::NotText)?;
        if self.health.is_draining() {
            return Err(Rejection::NotPublished(PublishError::Draining));
        }
        let record = Record {
            id,
            received_at_us: times.received_at_us,
            origin: Origin {
                source: sender.map(|sender| sender.source.borrowed()),
                issued_at_us,
            },
            body,
        };
        let submitted = self.publisher.submit(record, trace);
        let outcome = submitted.map_err(Rejection::NotPublished)?;
        Ok((id, outcome))
    }

    fn refuse(&self, refused: &Refused) -> FullResponse {
        self.reject(refused.sender.as_deref(), refused.rejection)
    }

    fn reject(&self, sender: Option<&Sender>, rejection: Rejection) -> FullResponse {
        let reason = rejection.reason();
        self.metrics.rejected(reason);
        self.rejections.count(1, reason);
        if let Some(sender) = sender {
            sender.metrics.rejected.increment(1);
        }
        self.closing_near_the_end(self.problem(rejection))
    }

    /// What the sender of a ticket is told that is rejected.
    pub(super) fn problem(&self, rejection: Rejection) -> FullResponse {
        match rejection {
            Rejection::Unauthorized => problem::unauthorized(),
            Rejection::NoSource(why) => problem::no_source(why),
            Rejection::UnknownCoding(unknown) => problem::unknown_coding(unknown),
            Rejection::RateLimited(seconds) => problem::rate_limited(seconds),
            Rejection::BadKey(error) => problem::bad_request(error.detail()),
            Rejection::BadIssuedAt(error) => problem::bad_request(error.detail()),
            Rejection::NotText(error) => problem::bad_request(&error.to_string()),
            Rejection::Body(BodyError::TooLarge) => problem::too_large(self.bodies.bytes_max()),
            Rejection::Body(BodyError::Timeout) => problem::body_timeout(),
            Rejection::Body(BodyError::Incomplete) => problem::incomplete_body(),
            Rejection::Body(BodyError::Broken(broken)) => problem::bad_request(broken.detail()),
            Rejection::Body(BodyError::TooMany) => {
                closing(problem::not_published(PublishError::Overloaded))
            }
            Rejection::NotPublished(error) => problem::not_published(error),
        }
    }

    /// Near the end of a shutdown's delay, a client that keeps its connection is to
    /// reconnect elsewhere before this one is closed.
    pub(super) fn closing_near_the_end(&self, response: FullResponse) -> FullResponse {
        if self.health.is_closing_connections() {
            closing(response)
        } else {
            response
        }
    }
}

fn submitted(
    sender: Option<Arc<Sender>>,
    published: Result<Published, Rejection>,
) -> Result<Submitted, Refused> {
    match published {
        Ok((id, outcome)) => Ok(Submitted {
            id,
            sender,
            outcome,
        }),
        Err(rejection) => Err(Refused { sender, rejection }),
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
