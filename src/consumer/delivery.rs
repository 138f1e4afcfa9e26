//! A delivery as the tickets in it.

use lapin::BasicProperties;
use lapin::message::Delivery;
use uuid::Uuid;

use super::error::SubscriptionError;
use super::received_at::{self, Anomaly};
use crate::clock::now_us;
use crate::message::{self, Record};

/// What a subscription yields.
pub(super) enum Delivered {
    /// A message, and which of the queues it came from.
    Message(usize, DeliveredMessage),
    /// Nothing more comes, for this reason.
    Ended(SubscriptionError),
}

impl Delivered {
    /// What came from one of the queues.
    pub(super) fn of(queue: usize, delivery: Result<Delivery, lapin::Error>) -> Self {
        match delivery {
            Ok(delivery) => Self::Message(queue, DeliveredMessage::new(delivery, now_us())),
            Err(error) => Self::Ended(SubscriptionError::Delivery(error)),
        }
    }
}

/// A delivered message, which the batch owns until it is stored.
#[derive(Debug)]
pub struct DeliveredMessage {
    /// What acknowledges it.
    pub tag: u64,
    /// How many tickets it holds.
    pub tickets: usize,
    /// RabbitMQ has delivered it before, so it may be stored already.
    pub redelivered: bool,
    /// What is wrong with the times of its tickets.
    pub anomaly: Anomaly,
    read_at_us: i64,
    data: Vec<u8>,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Ticket {
        id: Uuid,
        received_at_us: i64,
    },
    Group,
    /// It can never be stored, and goes to `dead_tickets` whole.
    Unreadable {
        id: Uuid,
        received_at_us: i64,
        reason: String,
    },
}

impl DeliveredMessage {
    /// Reads a delivery; none of its tickets counts as received later than now.
    pub fn new(delivery: Delivery, now_us: i64) -> Self {
        let (properties, data) = (&delivery.properties, &delivery.data);
        let (received_at_us, mut anomaly) = received_at::of_ticket(properties, now_us);
        let (content, tickets) = read(properties, data, received_at_us);
        if matches!(content, Content::Group) {
            anomaly = received_at::of_group(data, now_us);
        }
        Self {
            tag: delivery.delivery_tag,
            tickets,
            redelivered: delivery.redelivered,
            anomaly,
            read_at_us: now_us,
            data: delivery.data,
            content,
        }
    }

    /// The size of its payload.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Its tickets, each with the reason for which it cannot be stored, if there is one.
    pub fn records(&self) -> impl Iterator<Item = (Record<'_>, Option<&str>)> {
        let (single, group) = match &self.content {
            Content::Group => (None, self.data.as_slice()),
            Content::Ticket { id, received_at_us } => (
                Some((self.whole(*id, *received_at_us), None)),
                [].as_slice(),
            ),
            Content::Unreadable {
                id,
                received_at_us,
                reason,
            } => (
                Some((self.whole(*id, *received_at_us), Some(reason.as_str()))),
                [].as_slice(),
            ),
        };
        single
            .into_iter()
            .chain(message::records(group).map(|record| (self.not_ahead(record), None)))
    }

    fn not_ahead<'a>(&self, record: Record<'a>) -> Record<'a> {
        Record {
            received_at_us: record.received_at_us.min(self.read_at_us),
            ..record
        }
    }

    fn whole(&self, id: Uuid, received_at_us: i64) -> Record<'_> {
        Record {
            id,
            received_at_us,
            body: &self.data,
        }
    }
}

/// Ours or a foreign producer's: the content type decides, and a ticket needs an id.
fn read(properties: &BasicProperties, data: &[u8], received_at_us: i64) -> (Content, usize) {
    let content_type = properties
        .content_type()
        .as_ref()
        .map_or(message::TICKET, |name| name.as_str());
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let id = properties
        .message_id()
        .as_ref()
        .and_then(|id| Uuid::try_parse(id.as_str()).ok());
    let reason = if media_type.eq_ignore_ascii_case(message::GROUP) {
        match message::count(data) {
            Ok(tickets) => return (Content::Group, tickets),
            Err(malformed) => malformed.to_string(),
        }
    } else if !media_type.eq_ignore_ascii_case(message::TICKET) {
        // Escaped, because it may hold what text in PostgreSQL cannot.
        format!("unknown content type {content_type:?}")
    } else if let Some(id) = id {
        return (Content::Ticket { id, received_at_us }, 1);
    } else {
        "no message_id that is a UUID".into()
    };
    // Made from the bytes, so that a second delivery is the same dead ticket.
    let id = id.unwrap_or_else(|| Uuid::new_v5(&Uuid::NAMESPACE_OID, data));
    (
        Content::Unreadable {
            id,
            received_at_us,
            reason,
        },
        1,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::RECEIVED_AT;
    use lapin::types::{AMQPValue, FieldTable};

    const NOW_US: i64 = 1_700_000_000_000_000;
    const ID: &str = "018f0000-0000-7000-8000-000000000001";

    fn message(properties: BasicProperties, data: &[u8]) -> DeliveredMessage {
        let mut delivery = Delivery::mock(7, "".into(), "".into(), false, data.to_vec());
        delivery.properties = properties;
        DeliveredMessage::new(delivery, NOW_US)
    }

    fn only(message: &DeliveredMessage) -> (Record<'_>, Option<&str>) {
        let mut records = message.records();
        let record = records.next().expect("a record");
        assert_eq!((records.next(), message.tickets), (None, 1));
        record
    }

    #[test]
    fn a_single_ticket_has_its_id_and_time_from_the_properties() {
        let mut headers = FieldTable::default();
        headers.insert(RECEIVED_AT.into(), AMQPValue::LongLongInt(42));
        let properties = BasicProperties::default()
            .with_content_type("text/plain; charset=utf-8".into())
            .with_message_id(ID.into())
            .with_headers(headers);
        let message = message(properties, b"x");
        let (record, dead) = only(&message);
        assert_eq!(
            (
                record.id.to_string().as_str(),
                record.received_at_us,
                record.body,
                dead
            ),
            (ID, 42, b"x".as_slice(), None)
        );
    }

    #[test]
    fn a_group_gives_its_records() {
        let mut payload = Vec::new();
        for n in 1..=3_u128 {
            message::append(
                &mut payload,
                Record {
                    id: Uuid::from_u128(n),
                    received_at_us: 5,
                    body: b"abc",
                },
            );
        }
        let properties = BasicProperties::default().with_content_type(message::GROUP.into());
        let message = message(properties, &payload);
        let ids: Vec<_> = message
            .records()
            .map(|(record, dead)| (record.id.as_u128(), dead))
            .collect();
        assert_eq!(
            (ids, message.tickets),
            (vec![(1, None), (2, None), (3, None)], 3)
        );
    }

    #[test]
    fn no_ticket_of_a_group_counts_as_received_later_than_now() {
        let times_us = [
            5,
            NOW_US,
            NOW_US + 1,
            NOW_US + 7_000_000,
            i64::MAX,
            i64::MIN,
        ];
        let mut payload = Vec::new();
        for received_at_us in times_us {
            let (id, body) = (Uuid::nil(), b"abc".as_slice());
            message::append(
                &mut payload,
                Record {
                    id,
                    received_at_us,
                    body,
                },
            );
        }
        let properties = BasicProperties::default().with_content_type(message::GROUP.into());
        let message = message(properties, &payload);
        let read_us: Vec<_> = message.records().map(|(r, _)| r.received_at_us).collect();
        assert_eq!(read_us, [5, NOW_US, NOW_US, NOW_US, NOW_US, i64::MIN]);
        let anomaly = (message.anomaly.ahead, message.anomaly.ahead_us);
        assert_eq!(
            anomaly,
            (2, i64::MAX - NOW_US),
            "the third is as good as now"
        );
    }

    #[test]
    fn what_cannot_be_read_is_one_dead_ticket_with_all_its_bytes() {
        let cases = [
            (BasicProperties::default(), "message_id"),
            (
                BasicProperties::default().with_message_id("7".into()),
                "message_id",
            ),
            (
                BasicProperties::default()
                    .with_message_id(ID.into())
                    .with_content_type("image/png".into()),
                "image/png",
            ),
            (
                BasicProperties::default().with_content_type("a\0b".into()),
                r"a\0b",
            ),
            (
                BasicProperties::default().with_content_type(message::GROUP.into()),
                "malformed group at byte 0",
            ),
        ];
        for (properties, why) in cases {
            let (first, second) = (
                message(properties.clone(), b"abc"),
                message(properties, b"abc"),
            );
            let (record, dead) = only(&first);
            assert!(dead.is_some_and(|reason| reason.contains(why)), "{dead:?}");
            assert_eq!(
                (record.body, record.id),
                (b"abc".as_slice(), only(&second).0.id)
            );
        }
    }
}
