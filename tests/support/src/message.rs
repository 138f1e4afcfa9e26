//! Messages as another producer would make them: written here from the format's description, not
//! with ticketd's own encoder, so that the two check each other.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use uuid::Uuid;

/// The payload of a group: id, time and length before each body, all big endian.
pub fn group<'a>(records: impl IntoIterator<Item = (Uuid, i64, &'a [u8])>) -> Vec<u8> {
    let mut payload = Vec::new();
    for (id, received_at_us, body) in records {
        payload.extend(id.as_bytes());
        payload.extend(received_at_us.to_be_bytes());
        payload.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        payload.extend(body);
    }
    payload
}

/// The properties of a message that is one ticket, received at that time.
pub fn ticket_properties(id: Uuid, received_at_us: i64) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert(
        "x-received-at-us".into(),
        AMQPValue::LongLongInt(received_at_us),
    );
    BasicProperties::default()
        .with_content_type("text/plain".into())
        .with_message_id(id.to_string().into())
        .with_headers(headers)
}

/// The properties of a message that is a group.
pub fn group_properties() -> BasicProperties {
    BasicProperties::default().with_content_type("application/x-ticket-group".into())
}
