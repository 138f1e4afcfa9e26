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

/// A ticket of a group of version 2.
#[derive(Debug, Clone, Copy)]
pub struct SourcedRecord<'a> {
    /// Its id.
    pub id: Uuid,
    /// When it was received, in µs since the Unix epoch.
    pub received_at_us: i64,
    /// Who sent it; empty for nobody.
    pub source: &'a str,
    /// When it was issued; the smallest number for no time.
    pub issued_at_us: i64,
    /// Its text.
    pub body: &'a [u8],
}

/// The payload of a group of version 2: id, time of receipt, 128 and the length of the source, time
/// of issue, length, source and body of each, all big endian.
pub fn sourced_group<'a>(records: impl IntoIterator<Item = SourcedRecord<'a>>) -> Vec<u8> {
    let mut payload = Vec::new();
    for record in records {
        payload.extend(record.id.as_bytes());
        payload.extend(record.received_at_us.to_be_bytes());
        payload.push(128 + u8::try_from(record.source.len()).unwrap());
        payload.extend(record.issued_at_us.to_be_bytes());
        let length = u32::try_from(record.body.len()).unwrap();
        payload.extend(length.to_be_bytes());
        payload.extend(record.source.as_bytes());
        payload.extend(record.body);
    }
    payload
}

/// The properties of a message that is a group of version 2.
pub fn sourced_group_properties() -> BasicProperties {
    let content_type = "application/x-ticket-group; version=2";
    BasicProperties::default().with_content_type(content_type.into())
}

/// The properties of a message that is one ticket with a source and a time of issue.
pub fn sourced_properties(id: Uuid, source: &str, issued_at_us: i64) -> BasicProperties {
    let properties = ticket_properties(id, issued_at_us + 1);
    let mut headers = properties.headers().clone().unwrap_or_default();
    let name = AMQPValue::LongString(source.into());
    headers.insert("x-source".into(), name);
    let issued_at = AMQPValue::LongLongInt(issued_at_us);
    headers.insert("x-issued-at-us".into(), issued_at);
    properties.with_headers(headers)
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
