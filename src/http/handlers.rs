//! The handlers, one file for each; `router` says which of them answers what.

mod post_ticket;
mod probes;
mod ticket_state;

pub(crate) use post_ticket::{PostTicket, Progress, Submitted, TicketHead};
pub(crate) use probes::{Operators, Probes, version};
pub(crate) use ticket_state::TicketState;
