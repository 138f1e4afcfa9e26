//! ticketd takes sales receipts over HTTP and puts each one into PostgreSQL
//! exactly once, through RabbitMQ.
//!
//! ```text
//! POST /ticket -> http -> publisher -> RabbitMQ -> consumer -> ticket -> store -> PostgreSQL
//!      202 <- confirm ----'                            ack <- COMMIT ---------'
//! ```
//!
//! A ticket is answered 202 only once RabbitMQ has confirmed it, and taken off
//! RabbitMQ only once PostgreSQL has committed it. Whatever lies between may
//! happen twice; the ticket's id, given before all that, makes it count once.
//!
//! Each room may use what its arrow points to, and is entered by its front door,
//! `crate::room`, never by a file inside it; `tests/it/layering.rs` holds it:
//!
//! ```text
//! main -> commands, service -> http -> publisher -> broker, message
//!            |        |        |-> store (a ticket's state only)
//!            |        |        '-> bulk, coding        bulk -> ticket
//!            |        '-> consumer -> broker, message, store, ticket        store -> ticket
//!            '-> client, bulk, coding
//! ```
//!
//! Leaves, which anyone may use and which use nothing but `config`: `metrics`, `health`,
//! `backoff`, `clock`, `thread`, `source`, `tls`. Pure, without I/O, clock or logs: `ticket`,
//! `bulk`, `coding`, `message`, `source`, `store/copy`,
//! `consumer/{batch, ack_window, dedup, known_products}`.

mod backoff;
mod broker;
mod bulk;
mod client;
mod clock;
mod coding;
mod commands;
pub mod config;
mod consumer;
mod health;
mod http;
pub mod message;
mod metrics;
mod publisher;
mod service;
pub mod source;
mod store;
mod thread;
pub mod ticket;
mod tls;

pub use commands::{
    check, credential, day, dead, export, healthcheck, import, migrate, partitions, reparse,
    sample, send, show_settings, silent, status,
};
pub use metrics::install as install_metrics;
pub use service::{Service, check_files};

// The way from a body to its row without the servers in between, for `fuzz/` and `benches/`.
#[doc(hidden)]
pub use consumer::{DeliveredMessage, KnownProducts, rows_of};
#[doc(hidden)]
pub use publisher::Group;
#[doc(hidden)]
pub use store::copy;
