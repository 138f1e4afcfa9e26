//! ticketd from the outside: the built binary between a client and real servers.
//!
//! `make test` brings the servers up and names them in DATABASE_URL and AMQP_URL. Every test works
//! in a schema and queues of its own, so all of them can run at once.

// With this clippy takes helpers for the tests that they are.
#![cfg(test)]

/// The binary under test.
const TICKETD: &str = env!("CARGO_BIN_EXE_ticketd");

mod alerts;
mod amqps;
mod bounds;
mod bulk;
mod certificates;
mod clients;
mod commands;
mod consuming;
mod credentials;
mod day;
mod dead;
mod documents;
mod encoding;
mod encodings;
mod ending;
mod export;
mod framing;
mod gauges;
mod http;
mod https;
mod image;
mod import;
mod keys;
mod layering;
mod openapi;
mod openssl;
mod operation;
mod operators;
mod origins;
mod output;
mod page;
mod partitions;
mod pipeline;
mod poison;
mod postgres_tls;
mod producers;
mod products;
mod refused;
mod reparse;
mod request_ids;
mod sample;
mod secrets;
mod send;
mod senders;
mod settings;
mod several_brokers;
mod start_order;
mod stored;
mod summaries;
mod supervisor;
mod upgrade;
mod version;
