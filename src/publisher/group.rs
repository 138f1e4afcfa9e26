//! The message for a group of tickets.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};

use super::Submission;
use crate::message::{self, Record};

/// RabbitMQ's "persistent" (AMQP 0-9-1, basic class, delivery-mode).
const PERSISTENT: u8 = 2;

/// The message for some tickets: a single one as it came, several as a group.
pub fn encode(tickets: &[Submission], mut payload: Vec<u8>) -> (Vec<u8>, BasicProperties) {
    payload.clear();
    let first = tickets.first();
    let received_at_us = first.map_or(0, |ticket| ticket.received_at_us);
    let properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_app_id("ticketd".into())
        .with_timestamp(u64::try_from(received_at_us / 1_000_000).unwrap_or(0));
    if let [ticket] = tickets {
        payload.extend_from_slice(&ticket.body);
        let mut headers = FieldTable::default();
        headers.insert(
            message::RECEIVED_AT.into(),
            AMQPValue::LongLongInt(ticket.received_at_us),
        );
        let properties = properties
            .with_content_type(message::TICKET.into())
            .with_type("ticket".into())
            .with_message_id(ticket.id.to_string().into())
            .with_headers(headers);
        return (payload, properties);
    }
    for ticket in tickets {
        let record = Record {
            id: ticket.id,
            received_at_us: ticket.received_at_us,
            body: &ticket.body,
        };
        message::append(&mut payload, record);
    }
    (
        payload,
        properties
            .with_content_type(message::GROUP.into())
            .with_type("ticket-group".into()),
    )
}
