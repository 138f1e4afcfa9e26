//! POST /tickets: many tickets in one body, and 202 once RabbitMQ has confirmed all of them.
//!
//! ```text
//! body -> entries (records, ndjson, multipart) -> intake -> whole groups -> publisher
//!                                                   '<----- outcomes <---------'
//! ```
//!
//! A body is never held: what is read is cut into tickets, these are copied into a group, and a full
//! group is submitted. While there is no room for it, the body is not read on.

mod entries;
mod halt;
mod ids;
mod inflation;
mod intake;
mod multipart;

use std::sync::Arc;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::http::request::Parts;
use hyper::{Request, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::debug;

use super::post_ticket::{PostTicket, Rejection};
use crate::clock::now_us;
use crate::http::auth::{Claim, Sender, Unauthorized};
use crate::http::encoding::coding_of;
use crate::http::idempotency::key;
use crate::http::issued_at::issued_at_us;
use crate::http::problem;
use crate::http::response::{FullResponse, JSON, closing, response, unread_body};
use crate::publisher::PublishError;
use crate::source::id_of_key;
use crate::tls::ClientIdentity;
use entries::Entries;
use halt::Halt;
use ids::Ids;
use inflation::Inflation;
use intake::{BulkHead, Intake, Tickets};

/// Maximum of bodies that are read at the same time. Each holds a group that is not full, and a ticket
/// that is not complete.
const BODIES_MAX: usize = 64;

/// The maximum size of all ids that are to be told, in bytes: three million of them.
const IDS_BYTES_MAX: usize = 128 * 1024 * 1024;

/// The maximum of memory that inflating takes, in bytes.
const DECODERS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What bodies of many tickets may take; all clones share one budget.
#[derive(Clone)]
pub(crate) struct BulkLimits {
    bytes_max: usize,
    places: Arc<Semaphore>,
    ids: Arc<Semaphore>,
    decoders: Arc<Semaphore>,
}

/// Answers POST /tickets; one for each worker.
#[derive(Clone)]
pub(crate) struct PostTickets {
    /// Answers POST /ticket.
    pub ticket: Arc<PostTicket>,
    /// What bodies may take.
    pub limits: BulkLimits,
}

/// A request that is to be answered with an error.
struct Refusal {
    halt: Halt,
    sender: Option<Arc<Sender>>,
}

impl BulkLimits {
    /// Bodies of at most so many bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            places: Arc::new(Semaphore::new(BODIES_MAX)),
            ids: Arc::new(Semaphore::new(IDS_BYTES_MAX)),
            decoders: Arc::new(Semaphore::new(DECODERS_BYTES_MAX)),
        }
    }
}

impl PostTickets {
    /// Takes the tickets of a request from this client.
    pub(crate) async fn post(
        self,
        request: Request<Incoming>,
        client: ClientIdentity,
    ) -> FullResponse {
        let (head, mut body) = request.into_parts();
        let (intake, place) = match self.begin(&head, &body, &client) {
            Ok(begun) => begun,
            Err(refusal) => {
                let response = self.reject(refusal.sender.as_deref(), 1, refusal.halt);
                return unread_body(&body, self.closing_near_the_end(response));
            }
        };
        drop(head);
        let (tickets, read) = intake.run(&mut body).await;
        drop(place);
        let is_complete = tickets.is_complete;
        let response = self.closing_near_the_end(self.finish(tickets, read));
        if is_complete {
            response
        } else {
            closing(response)
        }
    }

    /// Checks whatever can be told from the head, before any of the body is read.
    fn begin(
        &self,
        head: &Parts,
        body: &Incoming,
        client: &ClientIdentity,
    ) -> Result<(Intake, OwnedSemaphorePermit), Refusal> {
        let sender = self
            .sender(head, client)
            .map_err(|halt| Refusal { halt, sender: None })?;
        let begun = self.begin_of(sender.clone(), head, body);
        begun.map_err(|halt| Refusal { halt, sender })
    }

    fn begin_of(
        &self,
        sender: Option<Arc<Sender>>,
        head: &Parts,
        body: &Incoming,
    ) -> Result<(Intake, OwnedSemaphorePermit), Halt> {
        let coding = coding_of(&head.headers).map_err(Rejection::UnknownCoding)?;
        let ticket_bytes_max = self.ticket.bodies.bytes_max();
        let entries = Entries::of(&head.headers, ticket_bytes_max)?;
        let ids = tells_ids(head.uri.query())?.then(|| Ids::new(self.limits.ids.clone()));
        let source = sender.as_ref().map(|sender| &sender.source);
        let key = key(&head.headers).map_err(Rejection::BadKey)?;
        let id_of_key = key.map(|key| id_of_key(source, key));
        let issued_at_us = issued_at_us(&head.headers).map_err(Rejection::BadIssuedAt)?;
        let bytes_max = self.limits.bytes_max;
        if usize::try_from(body.size_hint().lower()).map_or(true, |bytes| bytes > bytes_max) {
            return Err(Halt::TooLarge);
        }
        if self.ticket.health.is_draining() {
            return Err(Halt::not_published(PublishError::Draining));
        }
        let place = self.limits.places.clone().try_acquire_owned();
        let place = place.map_err(|_full| Halt::not_published(PublishError::Overloaded))?;
        let inflation = Inflation::of(coding, bytes_max, &self.limits.decoders)?;
        let head = BulkHead {
            sender,
            id_of_key,
            issued_at_us,
        };
        let intake = Intake::new(
            self.ticket.clone(),
            head,
            (inflation, entries),
            ids,
            bytes_max,
        );
        Ok((intake, place))
    }

    /// Who sends them; none where anyone may.
    fn sender(&self, head: &Parts, client: &ClientIdentity) -> Result<Option<Arc<Sender>>, Halt> {
        let Some(senders) = &self.ticket.senders else {
            return Ok(None);
        };
        if let ClientIdentity::NoSource { why, .. } = client {
            return Err(Rejection::NoSource(why).into());
        }
        match senders.claim(client, &head.headers, head.uri.query(), now_us()) {
            Ok(Claim::Sender(sender)) => Ok(Some(sender)),
            Ok(Claim::Signed(_)) => Err(Halt::Signed),
            Err(Unauthorized(why)) => {
                debug!(why, "tickets without a valid credential");
                Err(Rejection::Unauthorized.into())
            }
        }
    }

    /// The response once every group has its result.
    fn finish(&self, mut tickets: Tickets, read: Result<(), Halt>) -> FullResponse {
        let accepted = tickets.outcomes.confirmed;
        self.count_accepted(tickets.sender(), accepted);
        let halt = match (tickets.outcomes.failed, read) {
            (Some((error, failed)), _) => {
                let halt = Halt::not_published(error);
                return problem::accepted(self.reject(tickets.sender(), failed, halt), accepted);
            }
            (None, Err(halt)) => halt,
            (None, Ok(())) => {
                let text = match tickets.ids.take() {
                    Some(ids) => ids.into_response(accepted),
                    None => Bytes::from(format!("{{\"accepted\":{accepted}}}")),
                };
                return response(StatusCode::ACCEPTED, JSON, text);
            }
        };
        problem::accepted(self.reject(tickets.sender(), 1, halt), accepted)
    }

    fn count_accepted(&self, sender: Option<&Sender>, tickets: u64) {
        if tickets == 0 {
            return;
        }
        let now_us = now_us();
        self.ticket.metrics.accepted_many(tickets, now_us);
        if let Some(sender) = sender {
            sender.metrics.accepted_many(tickets, now_us);
        }
    }

    fn reject(&self, sender: Option<&Sender>, tickets: u64, halt: Halt) -> FullResponse {
        let reason = halt.reason();
        self.ticket.metrics.rejected_many(tickets, reason);
        self.ticket.rejections.count(tickets, reason);
        if let Some(sender) = sender {
            sender.metrics.rejected.increment(tickets);
        }
        halt.problem(self.limits.bytes_max, &self.ticket)
    }

    fn closing_near_the_end(&self, response: FullResponse) -> FullResponse {
        self.ticket.closing_near_the_end(response)
    }
}

/// Whether the ids are to be told, as this query says.
fn tells_ids(query: Option<&str>) -> Result<bool, Halt> {
    let mut tells = true;
    let parameters = query.unwrap_or_default().split('&');
    for value in parameters.filter_map(|parameter| parameter.strip_prefix("ids=")) {
        tells = match value {
            "all" => true,
            "none" => false,
            _ => return Err(Halt::BadQuery),
        };
    }
    Ok(tells)
}
