//! What must hold of ticketd whatever bytes it is sent.
//!
//! Each property takes bytes and panics if it does not hold of them. libFuzzer calls them from
//! `fuzz/fuzz_targets/`, and `tests/parser/` on the kept corpus and on generated tickets, without
//! libFuzzer.

mod copy;
mod group;
mod parser;
mod row;
mod split;

pub use group::group;
pub use parser::parser;
pub use row::row;
pub use split::split;

use lapin::message::Delivery;
use ticketd::message::Record;
use ticketd::source::{Origin, SourceRef};
use ticketd::{DeliveredMessage, Group};
use uuid::Uuid;

/// Parts the tickets of an input: ASCII's record separator, which tickets have no use for.
pub const SEPARATOR: u8 = 0x1e;

/// When tickets were received: few enough that some share a time, and both ends of what is possible.
const TIMES_US: [i64; 8] = [
    0,
    -1,
    1_767_225_600_000_000,
    1_767_225_600_000_001,
    // PostgreSQL counts from here.
    946_684_800_000_000,
    i64::MIN,
    i64::MAX,
    i64::MIN + 946_684_800_000_000,
];

/// Who sent tickets: most nobody that is known.
const SOURCES: [&str; 4] = ["", "", "shop-1", "a.b_c-0"];

/// What is known of a ticket with this id.
fn origin(id: Uuid) -> Origin<'static> {
    let [_, source, issued_at, time, ..] = *id.as_bytes();
    let source = SOURCES[usize::from(source) % SOURCES.len()];
    let issued_at_us = TIMES_US[usize::from(time) % TIMES_US.len()];
    Origin {
        source: SourceRef::parse(source.as_bytes()).ok(),
        // In a group the smallest time is none.
        issued_at_us: (issued_at % 4 == 0 && issued_at_us != i64::MIN).then_some(issued_at_us),
    }
}

/// An input as tickets that are sent together, of which an empty one could only be the one and only;
/// ids and times follow from their bytes.
fn tickets(input: &[u8]) -> Vec<Record<'_>> {
    let bodies = input.split(|&byte| byte == SEPARATOR);
    let record = |(at, body)| {
        // The place is hashed too, since the same ticket may come twice.
        let id = Uuid::new_v5(&Uuid::from_u128(at), body);
        let received_at_us = TIMES_US[usize::from(id.as_bytes()[0]) % TIMES_US.len()];
        Record {
            id,
            received_at_us,
            origin: origin(id),
            body,
        }
    };
    let full = (0..).zip(bodies).filter(|(_, body)| !body.is_empty());
    let tickets: Vec<_> = full.map(record).collect();
    if tickets.is_empty() {
        return vec![record((0, b""))];
    }
    tickets
}

/// Publishes tickets as one message, and takes it as RabbitMQ would deliver it.
fn deliver(tickets: &[Record<'_>]) -> DeliveredMessage {
    let mut group = Group::default();
    for ticket in tickets {
        let _outcome = group.push(*ticket, std::time::Instant::now(), 0);
    }
    let message = group.message();
    let payload = message.payload().to_vec();
    let mut delivery = Delivery::mock(1, "".into(), "".into(), false, payload);
    delivery.properties = message.properties;
    // At the end of time, no ticket is from the future.
    DeliveredMessage::new(delivery, i64::MAX)
}
