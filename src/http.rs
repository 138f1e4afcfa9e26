//! Requests in, responses out.
//!
//! ```text
//! listener -> worker -> connection -> router -> pending -> handlers -> publisher, store
//! ```
//!
//! | request | response |
//! |---|---|
//! | POST /ticket, confirmed | 202, `Location`, `{"id":"…"}` |
//! | POST /tickets, all confirmed | 202, `{"accepted":…,"ids":[…]}` |
//! | empty, not UTF-8, NUL in it, bad key, broken gzip or zstd | 400 |
//! | no valid credential, where one is needed | 401 |
//! | too large | 413, connection closed |
//! | too slow | 408, connection closed |
//! | known path, other method | 405 with `Allow` |
//! | compressed in another way, another charset | 415 |
//! | many tickets of no known Content-Type | 415 |
//! | its source is over its limit | 429 with `Retry-After` |
//! | not confirmed, for any reason | 503 with `Retry-After` |
//!
//! Errors are problem documents (RFC 9457).

mod auth;
mod body;
mod connection;
mod context;
mod encoding;
mod freshness;
mod handle;
mod handlers;
mod handshake;
mod host;
mod idempotency;
mod idle;
mod issued_at;
mod listener;
mod pending;
mod problem;
mod rejections;
mod request_id;
mod response;
mod router;
mod socket;
mod stream;
mod worker;

pub(crate) use auth::{CredentialsFile, Senders, UNNAMED_KEYS_MAX};
pub(crate) use body::Bodies;
pub(crate) use handlers::{BulkLimits, Operators, Page, PostTicket, Probes, TicketState};
pub(crate) use host::Hosts;
pub(crate) use listener::Listener;
pub(crate) use rejections::RejectionLog;
pub(crate) use router::{Stored, admin, public};
pub(crate) use worker::Workers;
