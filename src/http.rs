//! Requests in, answers out: routes, limits, and what each outcome is as a status.
//!
//! | request | answer |
//! |---|---|
//! | POST /ticket, confirmed | 202, `Location`, `{"id":"…"}` |
//! | empty, not UTF-8, NUL in it, bad key | 400 |
//! | too large | 413, connection closed |
//! | too slow | 408, connection closed |
//! | known path, other method | 405 with `Allow` |
//! | not confirmed, whyever | 503 with `Retry-After` |
//!
//! A body is never read as a ticket here: it is checked only for what cannot be
//! stored at all. Errors are problem documents (RFC 9457).

mod body;
mod connection;
mod listener;
mod pending;
mod response;
mod socket;

pub use body::Bodies;
pub use listener::{Server, Workers};

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::header::HeaderMap;
use hyper::{Method, Request};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::RecvError;
use uuid::Uuid;

use crate::clock::now_us;
use crate::health::Health;
use crate::message::Record;
use crate::metrics::HttpMetrics;
use crate::publisher::{Outcome, Publisher, Refusal};
use crate::store::{Status, Unavailable};
use crate::ticket::{TextError, text};
use body::{Begun, Unread};
use pending::{Answer, Head, Step};
use response::Reply;

/// The namespace of ids made from keys (UUID version 5, RFC 9562 section 5.5).
/// Changing it would make every repeated ticket a new one.
const KEY_NAMESPACE: Uuid = Uuid::from_u128(0x7b0d_51b2_6f5c_4e0a_9f8e_1c0d_3a6b_27d4);

/// The longest key, in bytes.
const KEY_BYTES_MAX: usize = 255;

/// The headers that make a repetition recognisable: the IETF's draft of
/// Idempotency-Key, and Standard Webhooks. The first one present counts.
const KEY_HEADERS: [&str; 2] = ["idempotency-key", "webhook-id"];

/// A ticket on its way, by its id, and where the outcome comes from.
type Published = (Uuid, oneshot::Receiver<Outcome>);

/// Why a ticket is not taken.
enum Rejection {
    BadKey(&'static str),
    NotText(TextError),
    Unread(Unread),
    Refused(Refusal),
}

/// What requests are answered from; one for each worker.
pub struct Service {
    /// Takes tickets; none on a listener that only serves /metrics and health.
    pub publisher: Option<Publisher>,
    /// Knows stored tickets; none without a database.
    pub status: Option<Status>,
    /// What bodies may hold.
    pub bodies: Bodies,
    /// What /readyz answers from.
    pub health: Arc<Health>,
    /// What /metrics answers from.
    pub prometheus: PrometheusHandle,
    /// What is counted here.
    pub metrics: HttpMetrics,
}

/// Where a request leads.
enum Route {
    Ticket,
    TicketState(Uuid),
    Metrics,
    Live,
    Ready,
}

impl Service {
    /// Begins to answer a request.
    pub fn answer(self: &Arc<Self>, request: Request<Incoming>) -> Answer {
        let started = Instant::now();
        let step = self.route(request);
        Answer::new(self.clone(), started, step)
    }

    fn route(self: &Arc<Self>, request: Request<Incoming>) -> Step {
        let reply = match (self.find(request.uri().path()), request.method()) {
            (Some(Route::Ticket), &Method::POST) => {
                let head = Head {
                    id: ticket_id(request.headers()),
                    received_at_us: now_us(),
                };
                return Step::Arrived(head, request.into_body());
            }
            (Some(Route::TicketState(id)), &(Method::GET | Method::HEAD)) => {
                return Step::Apart(Box::pin(self.clone().state(id)));
            }
            (Some(Route::Metrics), &(Method::GET | Method::HEAD)) => {
                response::metrics(self.prometheus.render())
            }
            (Some(Route::Live), &(Method::GET | Method::HEAD)) => response::live(),
            (Some(Route::Ready), &(Method::GET | Method::HEAD)) => {
                response::ready(self.health.readiness())
            }
            (Some(Route::Ticket), _) => unread_body(&request, response::method_not_allowed("POST")),
            (Some(_), _) => unread_body(&request, response::method_not_allowed("GET, HEAD")),
            (None, _) => unread_body(&request, response::not_found()),
        };
        Step::known(reply)
    }

    fn find(&self, path: &str) -> Option<Route> {
        match path {
            "/ticket" => self.publisher.is_some().then_some(Route::Ticket),
            "/metrics" => Some(Route::Metrics),
            "/livez" => Some(Route::Live),
            "/readyz" | "/healthz" => Some(Route::Ready),
            _ => {
                let id = path.strip_prefix("/ticket/")?;
                let id = Uuid::try_parse(id).ok()?;
                self.status.is_some().then_some(Route::TicketState(id))
            }
        }
    }

    /// POST /ticket: the first look at the body, of which nearly always all is there.
    fn take(self: &Arc<Self>, head: Head, mut body: Incoming) -> Step {
        let published = match self.bodies.begin(&mut body) {
            Ok(Begun::Whole(body)) => self.publish(head, &body),
            Ok(Begun::Partly(first)) => {
                return Step::Apart(Box::pin(self.clone().take_slowly(head, first, body)));
            }
            Err(unread) => Err(Rejection::Unread(unread)),
        };
        match published {
            Ok((id, outcome)) => Step::Published(id, outcome),
            Err(why) => Step::known(self.reject(&why)),
        }
    }

    async fn take_slowly(self: Arc<Self>, head: Head, first: Bytes, rest: Incoming) -> Reply {
        let body = self.bodies.finish(first, rest).await;
        let published = body
            .map_err(Rejection::Unread)
            .and_then(|body| self.publish(head, &body));
        match published {
            Ok((id, outcome)) => self.settled(id, outcome.await),
            Err(why) => self.reject(&why),
        }
    }

    fn publish(&self, head: Head, body: &[u8]) -> Result<Published, Rejection> {
        let id = head.id.map_err(Rejection::BadKey)?;
        text(body).map_err(Rejection::NotText)?;
        if self.health.draining() {
            return Err(Rejection::Refused(Refusal::Draining));
        }
        let record = Record {
            id,
            received_at_us: head.received_at_us,
            body,
        };
        let publisher = self.publisher.as_ref().ok_or(Refusal::Away);
        let submitted = publisher.and_then(|publisher| publisher.submit(record));
        submitted
            .map(|outcome| (id, outcome))
            .map_err(Rejection::Refused)
    }

    fn settled(&self, id: Uuid, outcome: Result<Outcome, RecvError>) -> Reply {
        // A publisher that ends without an answer has not seen a confirm.
        match outcome.unwrap_or(Err(Refusal::Draining)) {
            Ok(()) => {
                self.metrics.accepted.increment(1);
                self.see_off(response::accepted(id, self.status.is_some()))
            }
            Err(refusal) => self.reject(&Rejection::Refused(refusal)),
        }
    }

    /// GET /ticket/{id}.
    async fn state(self: Arc<Self>, id: Uuid) -> Reply {
        let Some(status) = &self.status else {
            return response::not_found();
        };
        match status.of(id).await {
            Ok(Some(json)) => response::state(json),
            Ok(None) => response::not_stored(),
            Err(Unavailable) => response::database_away(),
        }
    }

    fn reject(&self, why: &Rejection) -> Reply {
        let (reason, reply) = match why {
            Rejection::BadKey(why) => ("bad_key", response::bad_request(why)),
            Rejection::NotText(why) => ("not_text", response::bad_request(&why.to_string())),
            Rejection::Unread(Unread::TooLarge) => {
                ("too_large", response::too_large(self.bodies.max()))
            }
            Rejection::Unread(Unread::TooSlow) => ("too_slow", response::too_slow()),
            Rejection::Unread(Unread::Broken) => ("broken_body", response::broken_body()),
            Rejection::Unread(Unread::TooMany) => {
                let (reason, reply) = refused(Refusal::Overloaded);
                (reason, response::closing(reply))
            }
            Rejection::Refused(refusal) => refused(*refusal),
        };
        self.metrics.rejected(reason);
        self.see_off(reply)
    }

    /// Near the end of the process, a client that keeps its connection is to
    /// come again elsewhere before this one is closed.
    fn see_off(&self, reply: Reply) -> Reply {
        if self.health.seeing_off() {
            response::closing(reply)
        } else {
            reply
        }
    }
}

fn refused(refusal: Refusal) -> (&'static str, Reply) {
    (refusal.reason(), response::refused(refusal))
}

/// Whoever still sends a body that nobody reads is told that the connection ends.
fn unread_body(request: &Request<Incoming>, reply: Reply) -> Reply {
    if request.body().is_end_stream() {
        reply
    } else {
        response::closing(reply)
    }
}

/// The id of a ticket: made from its key, so that a repetition is recognised,
/// or else a new one that grows with time (UUID version 7).
fn ticket_id(headers: &HeaderMap) -> Result<Uuid, &'static str> {
    for name in KEY_HEADERS {
        let mut keys = headers.get_all(name).iter();
        let Some(key) = keys.next() else { continue };
        let key = key.as_bytes();
        if keys.next().is_some() {
            return Err("more than one key");
        }
        if key.is_empty() || key.len() > KEY_BYTES_MAX || !key.iter().all(u8::is_ascii_graphic) {
            return Err("a key has 1 to 255 visible ASCII characters");
        }
        return Ok(Uuid::new_v5(&KEY_NAMESPACE, key));
    }
    Ok(Uuid::now_v7())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn with(name: &'static str, value: &[u8]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(
            name,
            HeaderValue::from_bytes(value).expect("a header value"),
        );
        headers
    }

    #[test]
    fn the_same_key_is_the_same_ticket_whichever_header_brings_it() {
        let id = ticket_id(&with("idempotency-key", b"till-7/4711")).expect("a good key");
        assert_eq!(
            id,
            ticket_id(&with("webhook-id", b"till-7/4711")).expect("a good key")
        );
        assert_ne!(
            id,
            ticket_id(&with("webhook-id", b"till-7/4712")).expect("a good key")
        );
        assert_eq!(id.get_version_num(), 5);
    }

    #[test]
    fn every_byte_of_a_key_counts() {
        let key = [b'k'; KEY_BYTES_MAX];
        let mut ids = vec![ticket_id(&with("idempotency-key", &key)).expect("a good key")];
        for at in 0..KEY_BYTES_MAX {
            let mut other = key;
            other[at] = b'x';
            ids.push(ticket_id(&with("webhook-id", &other)).expect("a good key"));
        }
        let shorter = ticket_id(&with("webhook-id", &key[1..]));
        ids.push(shorter.expect("a good key"));
        let different: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(different.len(), ids.len());
    }

    #[test]
    fn without_a_key_every_ticket_is_new() {
        let (one, two) = (ticket_id(&HeaderMap::new()), ticket_id(&HeaderMap::new()));
        assert_ne!(one, two);
        assert_eq!(one.expect("an id").get_version_num(), 7);
    }

    #[test]
    fn a_key_is_short_visible_and_alone() {
        for key in [
            b"".as_slice(),
            &[b'k'; 256],
            b"two words",
            "clé".as_bytes(),
            b"tab\t",
        ] {
            assert!(ticket_id(&with("idempotency-key", key)).is_err(), "{key:?}");
        }
        for key in [b"k".as_slice(), b"!~", &[b'k'; 255]] {
            assert!(ticket_id(&with("idempotency-key", key)).is_ok(), "{key:?}");
        }
        let mut twice = with("idempotency-key", b"a");
        twice.append("idempotency-key", HeaderValue::from_static("b"));
        assert!(ticket_id(&twice).is_err());
    }
}
