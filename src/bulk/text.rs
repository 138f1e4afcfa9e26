//! Tickets one behind the other, as tills write them.

use super::entry::{Entry, EntryError, EntryProblem, Place};
use crate::ticket::{SplitError, TicketSplitter};

/// The next ticket that is complete, if there is one.
pub(crate) fn next_of_text(splitter: &mut TicketSplitter) -> Result<Option<Entry<'_>>, EntryError> {
    let place = |number, line| Place {
        number,
        line,
        has_lines: true,
    };
    let ticket = splitter.next_ticket().map_err(|error| match error {
        SplitError::NoOrder { line } => {
            let before = "the first ticket does not begin with Order:";
            place(1, line).is(EntryProblem::Malformed(before))
        }
        SplitError::TooLarge { number, line } => place(number, line).is(EntryProblem::TooLarge),
    })?;
    Ok(ticket.map(|ticket| Entry {
        place: place(ticket.number, ticket.line),
        key: None,
        issued_at_us: None,
        body: ticket.body.into(),
    }))
}
