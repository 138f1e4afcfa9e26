//! A delivery as the tickets in it.

use lapin::BasicProperties;
use lapin::message::Delivery;
use uuid::Uuid;

use super::error::SubscriptionError;
use super::headers;
use super::received_at::{self, Anomaly};
use crate::clock::now_us;
use crate::message::{self, GroupVersion, Record};
use crate::source::OwnedOrigin;

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

/// Which of a message's tickets are asked for before they are stored, as they may be there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LookUp {
    /// None: a ticket that is there is noticed when it is refused.
    Nothing,
    /// Those whose ids were made from keys, which may come again.
    OfKeys,
    /// All.
    All,
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
    /// Which of its tickets are asked for first.
    pub(super) look_up: LookUp,
    /// What is wrong with the times of its tickets, and with its headers.
    pub anomaly: Anomaly,
    read_at_us: i64,
    data: Vec<u8>,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// Its version, and when its first ticket was received.
    Group(GroupVersion, i64),
    /// Its payload is one ticket.
    Ticket(Whole),
    /// It can never be stored, and goes to `dead_tickets` whole, for this reason.
    Unreadable(Whole, String),
}

/// What the properties tell of a payload that is, or should have been, one ticket.
#[derive(Debug)]
struct Whole {
    id: Uuid,
    received_at_us: i64,
    origin: OwnedOrigin,
}

impl DeliveredMessage {
    /// Reads a delivery; none of its tickets counts as received later than now.
    pub fn new(delivery: Delivery, now_us: i64) -> Self {
        let (properties, data) = (&delivery.properties, &delivery.data);
        let mut anomaly = Anomaly::default();
        let (content, tickets) = read(properties, data, now_us, &mut anomaly);
        Self {
            tag: delivery.delivery_tag,
            tickets,
            redelivered: delivery.redelivered,
            look_up: match delivery.redelivered {
                true => LookUp::All,
                false => LookUp::OfKeys,
            },
            anomaly,
            read_at_us: now_us,
            data: delivery.data,
            content,
        }
    }

    /// A group that was never published; its records must be whole.
    pub(super) fn of_group(version: GroupVersion, group: Vec<u8>, look_up: LookUp) -> Self {
        let read_at_us = now_us();
        Self {
            tag: 0,
            tickets: message::records(version, &group).count(),
            redelivered: false,
            look_up,
            anomaly: Anomaly::default(),
            read_at_us,
            data: group,
            content: Content::Group(version, read_at_us),
        }
    }

    /// The size of its payload.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// When the first of its tickets was received, in µs since the Unix epoch.
    pub fn oldest_us(&self) -> i64 {
        match &self.content {
            Content::Group(_, oldest_us) => *oldest_us,
            Content::Ticket(whole) | Content::Unreadable(whole, _) => whole.received_at_us,
        }
    }

    /// Its tickets, each with the reason for which it cannot be stored, if there is one.
    pub fn records(&self) -> impl Iterator<Item = (Record<'_>, Option<&str>)> {
        let nothing = message::records(GroupVersion::V1, &[]);
        let (single, group) = match &self.content {
            Content::Group(version, _) => (None, message::records(*version, &self.data)),
            Content::Ticket(whole) => (Some((self.whole(whole), None)), nothing),
            Content::Unreadable(whole, reason) => {
                (Some((self.whole(whole), Some(reason.as_str()))), nothing)
            }
        };
        let group = group.map(|record| (self.not_ahead(record), None));
        single.into_iter().chain(group)
    }

    fn not_ahead<'a>(&self, record: Record<'a>) -> Record<'a> {
        Record {
            received_at_us: record.received_at_us.min(self.read_at_us),
            ..record
        }
    }

    fn whole<'a>(&'a self, whole: &'a Whole) -> Record<'a> {
        Record {
            id: whole.id,
            received_at_us: whole.received_at_us,
            origin: whole.origin.borrowed(),
            body: &self.data,
        }
    }
}

/// Ours or a foreign producer's: the content type decides, and a ticket needs an id.
fn read(
    properties: &BasicProperties,
    data: &[u8],
    now_us: i64,
    anomaly: &mut Anomaly,
) -> (Content, usize) {
    let content_type = properties
        .content_type()
        .as_ref()
        .map_or(message::TICKET, |name| name.as_str());
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let id = properties
        .message_id()
        .as_ref()
        .and_then(|id| Uuid::try_parse(id.as_str()).ok());
    let reason = if let Some(version) = GroupVersion::of(content_type) {
        match message::count(version, data) {
            Ok(tickets) => {
                let oldest_us;
                (oldest_us, *anomaly) = received_at::of_group(version, data, now_us);
                return (Content::Group(version, oldest_us), tickets);
            }
            Err(malformed) => malformed.to_string(),
        }
    } else if !media_type.eq_ignore_ascii_case(message::TICKET) {
        // Escaped, because it may hold what text in PostgreSQL cannot.
        format!("unknown content type {content_type:?}")
    } else if let Some(id) = id {
        return (Content::Ticket(whole(properties, id, now_us, anomaly)), 1);
    } else {
        "no message_id that is a UUID".into()
    };
    // Made from the bytes, so that a second delivery is the same dead ticket.
    let id = id.unwrap_or_else(|| Uuid::new_v5(&Uuid::NAMESPACE_OID, data));
    let whole = whole(properties, id, now_us, anomaly);
    (Content::Unreadable(whole, reason), 1)
}

/// What the properties tell of the payload as a whole.
fn whole(properties: &BasicProperties, id: Uuid, now_us: i64, anomaly: &mut Anomaly) -> Whole {
    let received_at_us;
    (received_at_us, *anomaly) = received_at::of_ticket(properties, now_us);
    let origin = OwnedOrigin {
        source: anomaly.header(headers::source(properties, message::SOURCE)),
        issued_at_us: anomaly.header(headers::whole_number(properties, message::ISSUED_AT)),
    };
    Whole {
        id,
        received_at_us,
        origin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{ISSUED_AT, RECEIVED_AT, SOURCE};
    use crate::source::{Origin, SourceRef};
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

    fn with_headers(headers: &[(&str, AMQPValue)]) -> BasicProperties {
        let mut table = FieldTable::default();
        for (name, value) in headers {
            table.insert((*name).into(), value.clone());
        }
        BasicProperties::default()
            .with_message_id(ID.into())
            .with_headers(table)
    }

    #[test]
    fn a_single_ticket_has_its_origin_from_the_headers() {
        let issued_at = AMQPValue::LongLongInt(-7);
        for name in [
            AMQPValue::LongString("shop-1".into()),
            AMQPValue::ShortString("shop-1".into()),
        ] {
            let headers = [(SOURCE, name), (ISSUED_AT, issued_at.clone())];
            let message = message(with_headers(&headers), b"x");
            let origin = Origin {
                source: SourceRef::parse(b"shop-1").ok(),
                issued_at_us: Some(-7),
            };
            assert_eq!(only(&message).0.origin, origin);
            assert_eq!(message.anomaly.misread, None);
        }
    }

    #[test]
    fn a_header_that_cannot_be_read_is_reported_and_the_ticket_stored_without() {
        for (header, value) in [
            (SOURCE, AMQPValue::LongString("Shop 1".into())),
            (SOURCE, AMQPValue::LongString("".into())),
            (SOURCE, AMQPValue::LongInt(1)),
            (ISSUED_AT, AMQPValue::LongString("7".into())),
        ] {
            let kind = value.get_type();
            let message = message(with_headers(&[(header, value)]), b"x");
            let (record, dead) = only(&message);
            assert_eq!((record.origin, dead), (Origin::default(), None));
            let misread = Some(headers::Misread { header, kind });
            assert_eq!(message.anomaly.misread, misread);
        }
    }

    #[test]
    fn a_group_of_version_2_gives_its_origins() {
        let origin = Origin {
            source: SourceRef::parse(b"shop-1").ok(),
            issued_at_us: Some(3),
        };
        let records = [origin, Origin::default()].map(|origin| Record {
            id: Uuid::nil(),
            received_at_us: 5,
            origin,
            body: b"abc",
        });
        let mut payload = Vec::new();
        for record in records {
            message::append(GroupVersion::V2, &mut payload, record);
        }
        let properties = BasicProperties::default().with_content_type(message::GROUP_V2.into());
        let message = message(properties, &payload);
        let read: Vec<_> = message.records().map(|(record, _)| record).collect();
        assert_eq!(read, records);
    }

    #[test]
    fn a_group_gives_its_records() {
        let mut payload = Vec::new();
        for n in 1..=3_u128 {
            let record = Record {
                id: Uuid::from_u128(n),
                received_at_us: 5,
                origin: Origin::default(),
                body: b"abc",
            };
            message::append(GroupVersion::V1, &mut payload, record);
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
            let record = Record {
                id,
                received_at_us,
                origin: Origin::default(),
                body,
            };
            message::append(GroupVersion::V1, &mut payload, record);
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
            (
                BasicProperties::default().with_content_type(message::GROUP_V2.into()),
                "malformed group at byte 0",
            ),
            (
                BasicProperties::default()
                    .with_content_type("application/x-ticket-group; version=3".into()),
                "unknown content type",
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
