//! The promise under faults: a ticket answered 202 is stored exactly once,
//! whatever is killed, stopped, cut off, blocked or full in between.
//!
//! ```text
//! driver -> ticketd accept -> proxy -> RabbitMQ -> proxy -> ticketd consume -> proxy -> PostgreSQL
//!   '-> ledger (a file) ------------------> checker <---------------------------------- rows
//! ```
//!
//! The driver writes down what it is about to send and what it was answered;
//! the checker knows nothing but that file and the tables. In between are real
//! servers of the tests' own, which they kill, stop and fill up, and a proxy on
//! every link. A fault that hits the whole of a server has the machine for
//! itself; of those that hit nothing but a test's own processes, links, queues
//! and tables, two run at a time, whatever the number of test threads.
//!
//! `cargo test --test faults` runs a short selection, and `make test_faults` the rest: each fault
//! alone, and faults composed by chance from seeds that are always the same. With `SEED=` or
//! `MINUTES=` it composes anew. The outages of `long` run only in `make test_long`.

// With this clippy takes helpers for the tests that they are.
#![cfg(test)]

/// The binary under test.
const TICKETD: &str = env!("CARGO_BIN_EXE_ticketd");

mod accept;
mod amqp;
mod backend;
mod bulk;
mod checker;
mod cluster;
mod confirms;
mod declaring;
mod failover;
mod fake_broker;
mod fault;
mod full_disk;
mod given_up;
mod importing;
mod ledger;
mod long;
mod many;
mod nemesis;
mod others_are_served_despite;
mod plan;
mod proxy;
mod rig;
mod scanner;
mod schedule;
mod sending;
mod stack;
mod stored_once_despite;
mod ticket;
mod ticketd;
mod topology;
mod upgrading;
