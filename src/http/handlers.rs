//! The handlers, one file for each; `router` says which of them answers what.

mod asker;
mod check_ticket;
mod openapi;
mod page;
mod post_ticket;
mod post_tickets;
mod probes;
mod ticket_list;
mod ticket_state;

pub(crate) use check_ticket::CheckTicket;
pub(crate) use openapi::openapi;
pub(crate) use page::Page;
pub(crate) use post_ticket::{PostTicket, Progress, Submitted, TicketHead};
pub(crate) use post_tickets::{BulkLimits, PostTickets};
pub(crate) use probes::{Operators, Probes, version};
pub(crate) use ticket_list::TicketList;
pub(crate) use ticket_state::TicketState;
