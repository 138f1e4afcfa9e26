//! The handlers, one file for each; `router` says which of them answers what.

mod post_ticket;
mod probes;
mod ticket_state;

pub use post_ticket::{PostTicket, Progress, TicketHead};
pub use probes::Probes;
pub use ticket_state::TicketState;
