//! PostgreSQL: everything that ticketd asks of it, and every SQL statement.
//!
//! - `connect`: a session whose death is noticed on both ends.
//! - `encryption`: TLS under it.
//! - `notices`: what PostgreSQL says beside its answers.
//! - `transaction`: a batch stored as a whole, from encoded rows (`copy`), sent
//!   in `chunks`, and the `products` that may have changed.
//! - `unique_keys`: which key a row has in common with one that is there.
//! - `inserts`: the statements that write tickets, with their origins and without.
//! - `error`: what went wrong, classified by what helps.
//! - `ticket_reader`: questions about tickets, asked by `ticket_queries`.
//! - `day`: what each source sent on a day, and which are silent.
//! - `export`: tickets written out.
//! - `dead_tickets`: those that could not be stored, listed and taken for a replay.
//! - `dead_watch`: how many these are, for the metrics.
//! - `reparse`: stored invalid tickets judged again.
//! - `migrate`: the tables created, or brought up to date while others write.

mod chunks;
mod connect;
pub mod copy;
mod day;
mod dead_tickets;
mod dead_watch;
mod encryption;
mod error;
mod export;
mod inserts;
mod migrate;
mod notices;
mod products;
mod reparse;
mod ticket_queries;
mod ticket_reader;
mod transaction;
mod unique_keys;

pub(crate) use connect::check_tls;
pub(crate) use copy::{Dead, Encoded, ProductRow, RECEIVED_AT_MIN_US, Recency, Rows};
pub(crate) use day::{DayError, TicketDays};
pub(crate) use dead_tickets::{DeadList, DeadTicket, DeadTickets, Identity, TakenTicket};
pub(crate) use dead_watch::watch_dead_tickets;
pub(crate) use error::StoreError;
pub(crate) use export::{ExportError, TicketExport};
pub(crate) use migrate::{
    Partition, Partitions, Tables, ensure_schema, list_partitions, migrate, watch_partitions,
};
pub(crate) use reparse::{Judged, Reparse};
pub(crate) use ticket_queries::TicketFilter;
pub(crate) use ticket_reader::{TicketReader, Unavailable};
pub(crate) use transaction::{Comparison, Store};
