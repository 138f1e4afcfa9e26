//! ticketd from the outside: the built binary between a client and real servers.
//!
//! `make test` brings the servers up and names them in DATABASE_URL and AMQP_URL. Every test works
//! in a schema and queues of its own, so all of them can run at once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test that fails panics"
)]

#[path = "../support/mod.rs"]
mod support;

mod bounds;
mod commands;
mod consuming;
mod documents;
mod encoding;
mod ending;
mod framing;
mod http;
mod image;
mod layering;
mod operation;
mod output;
mod pipeline;
mod producers;
mod products;
mod refused;
mod secrets;
mod start_order;
mod upgrade;
