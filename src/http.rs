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
mod reply;
mod server;

pub use body::Bodies;
pub use server::{Server, Workers};

use std::sync::Arc;
use std::time::Instant;

use hyper::body::{Body, Incoming};
use hyper::header::HeaderMap;
use hyper::{Method, Request};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::clock::now_us;
use crate::health::Health;
use crate::message::Record;
use crate::metrics::HttpMetrics;
use crate::publisher::{Outcome, Publisher, Refusal};
use crate::status::{Status, Unavailable};
use crate::ticket::text;
use body::Unread;
use reply::Reply;

/// The namespace of ids made from keys (UUID version 5, RFC 9562 section 5.5).
/// Changing it would make every repeated ticket a new one.
const KEY_NAMESPACE: Uuid = Uuid::from_u128(0x7b0d_51b2_6f5c_4e0a_9f8e_1c0d_3a6b_27d4);

/// The longest key, in bytes.
const KEY_BYTES_MAX: usize = 255;

/// The headers that make a repetition recognisable: the IETF's draft of
/// Idempotency-Key, and Standard Webhooks. The first one present counts.
const KEY_HEADERS: [&str; 2] = ["idempotency-key", "webhook-id"];

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
enum Route<'a> {
    Ticket(&'a Publisher),
    TicketState(&'a Status, Uuid),
    Metrics,
    Live,
    Ready,
}

impl Service {
    /// Answers one request.
    pub async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Reply {
        let started = Instant::now();
        let reply = self.route(request).await;
        self.metrics.answered(reply.status().as_u16());
        self.metrics.duration.record(started.elapsed());
        reply
    }

    async fn route(&self, request: Request<Incoming>) -> Reply {
        let Some(route) = self.find(request.uri().path()) else {
            return unread_body(&request, reply::not_found());
        };
        match (route, request.method()) {
            (Route::Ticket(publisher), &Method::POST) => self.take(publisher, request).await,
            (Route::Ticket(_), _) => unread_body(&request, reply::method_not_allowed("POST")),
            (Route::TicketState(status, id), &(Method::GET | Method::HEAD)) => {
                state(status, id).await
            }
            (Route::Metrics, &(Method::GET | Method::HEAD)) => {
                reply::metrics(self.prometheus.render())
            }
            (Route::Live, &(Method::GET | Method::HEAD)) => reply::live(),
            (Route::Ready, &(Method::GET | Method::HEAD)) => reply::ready(self.health.readiness()),
            _ => unread_body(&request, reply::method_not_allowed("GET, HEAD")),
        }
    }

    fn find(&self, path: &str) -> Option<Route<'_>> {
        match path {
            "/ticket" => self.publisher.as_ref().map(Route::Ticket),
            "/metrics" => Some(Route::Metrics),
            "/livez" => Some(Route::Live),
            "/readyz" | "/healthz" => Some(Route::Ready),
            _ => {
                let id = path.strip_prefix("/ticket/")?;
                let id = Uuid::try_parse(id).ok()?;
                let status = self.status.as_ref()?;
                Some(Route::TicketState(status, id))
            }
        }
    }

    /// POST /ticket.
    async fn take(&self, publisher: &Publisher, request: Request<Incoming>) -> Reply {
        let (arrived, received_at_us) = (Instant::now(), now_us());
        let id = ticket_id(request.headers());
        let body = match self.bodies.read(request.into_body()).await {
            Ok(body) => body,
            Err(unread) => return self.unread(unread),
        };
        let id = match id {
            Ok(id) => id,
            Err(why) => return self.reject("bad_key", reply::bad_request(why)),
        };
        if let Err(why) = text(&body) {
            return self.reject("not_text", reply::bad_request(&why.to_string()));
        }
        if self.health.draining() {
            return self.refuse(Refusal::Draining);
        }
        let record = Record {
            id,
            received_at_us,
            body: &body,
        };
        let submitted = publisher.submit(record, arrived);
        drop(body);
        match outcome(submitted).await {
            Ok(()) => {
                self.metrics.accepted.increment(1);
                reply::accepted(id, self.status.is_some())
            }
            Err(refusal) => self.refuse(refusal),
        }
    }

    fn unread(&self, unread: Unread) -> Reply {
        match unread {
            Unread::TooLarge => self.reject("too_large", reply::too_large(self.bodies.max())),
            Unread::TooSlow => self.reject("too_slow", reply::too_slow()),
            Unread::Broken => self.reject("broken_body", reply::broken_body()),
            Unread::TooMany => self.refuse(Refusal::Overloaded),
        }
    }

    fn refuse(&self, refusal: Refusal) -> Reply {
        self.reject(refusal.reason(), reply::refused(refusal))
    }

    fn reject(&self, reason: &'static str, reply: Reply) -> Reply {
        self.metrics.rejected(reason);
        reply
    }
}

/// GET /ticket/{id}.
async fn state(status: &Status, id: Uuid) -> Reply {
    match status.of(id).await {
        Ok(Some(json)) => reply::state(json),
        Ok(None) => reply::not_stored(),
        Err(Unavailable) => reply::database_away(),
    }
}

/// Whoever still sends a body that nobody reads is told that the connection ends.
fn unread_body(request: &Request<Incoming>, reply: Reply) -> Reply {
    if request.body().is_end_stream() {
        reply
    } else {
        reply::closing(reply)
    }
}

async fn outcome(submitted: Result<oneshot::Receiver<Outcome>, Refusal>) -> Outcome {
    // A publisher that ends without an answer has not seen a confirm.
    submitted?.await.unwrap_or(Err(Refusal::Draining))
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
        assert!(ticket_id(&with("idempotency-key", &[b'k'; 255])).is_ok());
        let mut twice = with("idempotency-key", b"a");
        twice.append("idempotency-key", HeaderValue::from_static("b"));
        assert!(ticket_id(&twice).is_err());
    }
}
