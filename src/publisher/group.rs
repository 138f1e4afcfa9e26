//! Tickets that share a message.

use std::sync::Arc;
use std::time::Instant;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use tokio::sync::oneshot;

use super::bulk_budget::BulkCharge;
use super::error::PublishResult;
use super::replies::{ReplyRouter, Waiter};
use crate::message::{
    self, GroupVersion, RECORD_HEAD_BYTES, RECORD_HEAD_BYTES_V2, Record, Traceparent,
};

/// RabbitMQ's "persistent" (AMQP 0-9-1, basic class, delivery-mode).
const PERSISTENT: u8 = 2;

/// Tickets that share a message, already in the message's form, and who waits for their results.
#[derive(Default)]
pub struct Group {
    version: GroupVersion,
    records: Arc<Vec<u8>>,
    tickets: usize,
    waiting: Vec<Waiter>,
    /// Of the first ticket: only one that is alone keeps it.
    trace: Option<Box<Traceparent>>,
    /// What a whole group holds of what these may hold together; single tickets' have none.
    bulk: Option<BulkCharge>,
}

impl Group {
    /// An empty group that gathers its tickets in this buffer.
    pub fn new(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        Self {
            records: Arc::new(buffer),
            ..Self::default()
        }
    }

    /// Adds a ticket, whose handler runs on this worker: the one copy of its body on our side, unless
    /// it is the first whose origin is known among others, for which these are copied once more.
    pub fn push(
        &mut self,
        record: Record<'_>,
        deadline: Instant,
        worker: usize,
    ) -> oneshot::Receiver<PublishResult> {
        self.add(record);
        self.wait(deadline, worker)
    }

    /// Adds a ticket for which nobody waits.
    pub fn add(&mut self, record: Record<'_>) {
        let needed = GroupVersion::needed_for(&record.origin);
        if needed > self.version {
            self.records = Arc::new(message::upgraded(&self.records, self.tickets));
            self.version = needed;
        }
        message::append(self.version, Arc::make_mut(&mut self.records), record);
        self.tickets += 1;
    }

    /// Gives the result to one who waits for it.
    pub fn wait(&mut self, deadline: Instant, worker: usize) -> oneshot::Receiver<PublishResult> {
        let (reply, result) = oneshot::channel();
        self.waiting.push(Waiter {
            deadline,
            worker,
            reply,
        });
        result
    }

    /// Makes it one that was submitted as a whole.
    pub(super) fn charge(&mut self, charge: BulkCharge) {
        self.bulk = Some(charge);
    }

    /// Whether it was submitted as a whole, and not ticket by ticket.
    pub(super) fn is_bulk(&self) -> bool {
        self.bulk.is_some()
    }

    /// The version that it is of.
    pub(super) fn version(&self) -> GroupVersion {
        self.version
    }

    /// Keeps the trace of the ticket that was added last, unless it has company: only a single
    /// ticket's message has headers of its own.
    pub fn keep_trace(&mut self, trace: Option<Box<Traceparent>>) {
        if self.tickets == 1 {
            self.trace = trace;
        }
    }

    /// How many tickets it holds.
    pub fn tickets(&self) -> usize {
        self.tickets
    }

    /// How many wait for a result: one a ticket, or one for all.
    pub fn unanswered(&self) -> usize {
        self.waiting.len()
    }

    /// How large it is.
    pub fn bytes(&self) -> usize {
        self.records.len()
    }

    /// How large it would be with this ticket.
    pub fn bytes_with(&self, record: &Record<'_>) -> usize {
        let version = GroupVersion::needed_for(&record.origin).max(self.version);
        let others = if version > self.version {
            let more = RECORD_HEAD_BYTES_V2 - RECORD_HEAD_BYTES;
            self.bytes() + self.tickets * more
        } else {
            self.bytes()
        };
        others + version.overhead_bytes(&record.origin) + record.body.len()
    }

    /// Whether the deadline of a waiting ticket has passed.
    pub fn is_overdue(&self, now: Instant) -> bool {
        self.waiting.iter().any(|waiter| waiter.deadline <= now)
    }

    /// Sends all that wait their result.
    pub fn reply(&mut self, result: PublishResult, router: &ReplyRouter) {
        router.reply(self.waiting.drain(..), result);
    }

    /// Sends a result to those whose deadline has passed; returns how many.
    pub fn reply_overdue(
        &mut self,
        result: PublishResult,
        now: Instant,
        router: &ReplyRouter,
    ) -> usize {
        let before = self.waiting.len();
        let overdue = |waiter: &mut Waiter| waiter.deadline <= now;
        router.reply(self.waiting.extract_if(.., overdue), result);
        before - self.waiting.len()
    }

    /// What is published for it: a single ticket as it came, several as a group.
    pub fn message(&self) -> GroupMessage {
        let first = message::records(self.version, &self.records).next();
        let received_at_us = first.map_or(0, |record| record.received_at_us);
        let properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_app_id("ticketd".into())
            .with_timestamp(u64::try_from(received_at_us / 1_000_000).unwrap_or(0));
        let records = self.records.clone();
        match first {
            Some(record) if self.tickets == 1 => {
                let properties = properties
                    .with_content_type(message::TICKET.into())
                    .with_type("ticket".into())
                    .with_message_id(record.id.to_string().into())
                    .with_headers(headers(&record, self.trace.as_deref()));
                let start = records.len() - record.body.len();
                GroupMessage {
                    records,
                    start,
                    properties,
                }
            }
            _ => {
                let properties = properties
                    .with_content_type(self.version.content_type().into())
                    .with_type("ticket-group".into());
                GroupMessage {
                    records,
                    start: 0,
                    properties,
                }
            }
        }
    }

    /// The buffer, for another group to use.
    pub fn into_buffer(self) -> Option<Vec<u8>> {
        Arc::into_inner(self.records)
    }
}

/// What the message of a single ticket tells of it.
fn headers(record: &Record<'_>, trace: Option<&Traceparent>) -> FieldTable {
    let mut headers = FieldTable::default();
    let received_at = AMQPValue::LongLongInt(record.received_at_us);
    headers.insert(message::RECEIVED_AT.into(), received_at);
    if let Some(source) = record.origin.source {
        let source = AMQPValue::LongString(source.as_str().into());
        headers.insert(message::SOURCE.into(), source);
    }
    if let Some(issued_at_us) = record.origin.issued_at_us {
        let issued_at = AMQPValue::LongLongInt(issued_at_us);
        headers.insert(message::ISSUED_AT.into(), issued_at);
    }
    if let Some(trace) = trace {
        let trace = AMQPValue::LongString(trace.as_str().into());
        headers.insert(message::TRACEPARENT.into(), trace);
    }
    headers
}

/// The message of a group, to publish.
pub struct GroupMessage {
    records: Arc<Vec<u8>>,
    start: usize,
    /// Its properties.
    pub properties: BasicProperties,
}

impl GroupMessage {
    /// Its payload.
    pub fn payload(&self) -> &[u8] {
        self.records.get(self.start..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publisher::replies::reply_channels;
    use crate::source::{Origin, SourceRef};
    use std::time::Duration;
    use uuid::Uuid;

    fn record(n: u128) -> Record<'static> {
        Record {
            id: Uuid::from_u128(n),
            received_at_us: 3_000_001,
            origin: Origin::default(),
            body: b"ticket",
        }
    }

    fn known(n: u128) -> Record<'static> {
        let origin = Origin {
            source: SourceRef::parse(b"shop-1").ok(),
            issued_at_us: Some(7),
        };
        Record {
            origin,
            ..record(n)
        }
    }

    fn group(tickets: u128) -> Group {
        let mut group = Group::default();
        for n in 0..tickets {
            let _result = group.push(record(n), Instant::now(), 0);
        }
        group
    }

    fn content_type(message: &GroupMessage) -> &str {
        message
            .properties
            .content_type()
            .as_ref()
            .map_or("", |name| name.as_str())
    }

    #[test]
    fn a_single_ticket_is_published_as_it_came() {
        let message = group(1).message();
        assert_eq!(
            (message.payload(), content_type(&message)),
            (b"ticket".as_slice(), message::TICKET)
        );
        assert_eq!(*message.properties.delivery_mode(), Some(PERSISTENT));
        assert_eq!(*message.properties.timestamp(), Some(3));
    }

    #[test]
    fn several_tickets_are_published_as_a_group() {
        let message = group(3).message();
        assert_eq!(
            (
                message::count(GroupVersion::V1, message.payload()),
                content_type(&message)
            ),
            (Ok(3), message::GROUP)
        );
        assert_eq!(*message.properties.delivery_mode(), Some(PERSISTENT));
    }

    #[test]
    fn a_group_is_of_the_version_that_its_tickets_need() {
        for at in 0..3 {
            let mut records = [1, 2, 3].map(record);
            records[at] = known(9);
            let mut group = Group::default();
            for record in records {
                let expected = group.bytes_with(&record);
                let _result = group.push(record, Instant::now(), 0);
                assert_eq!(group.bytes(), expected);
            }
            let message = group.message();
            assert_eq!(content_type(&message), message::GROUP_V2);
            let read: Vec<_> = message::records(GroupVersion::V2, message.payload()).collect();
            assert_eq!(read, records);
        }
    }

    #[test]
    fn a_single_ticket_has_its_origin_in_its_headers() {
        let mut group = Group::default();
        let _result = group.push(known(1), Instant::now(), 0);
        let message = group.message();
        assert_eq!(
            (message.payload(), content_type(&message)),
            (b"ticket".as_slice(), message::TICKET)
        );
        let headers = message.properties.headers().as_ref().expect("headers");
        let headers = headers.inner();
        let source = AMQPValue::LongString("shop-1".into());
        assert_eq!(headers.get(message::SOURCE), Some(&source));
        let issued_at = AMQPValue::LongLongInt(7);
        assert_eq!(headers.get(message::ISSUED_AT), Some(&issued_at));
    }

    #[tokio::test]
    async fn only_overdue_tickets_get_a_result() {
        let (router, workers) = reply_channels(1);
        let (now, mut group) = (Instant::now(), Group::default());
        let mut soon = group.push(record(1), now, 0);
        let mut later = group.push(record(2), now + Duration::from_secs(5), 0);
        assert!(group.is_overdue(now));
        assert_eq!(group.reply_overdue(Ok(()), now, &router), 1);
        assert_eq!((group.unanswered(), group.tickets()), (1, 2));
        drop(router);
        for worker in workers {
            worker.forward().await;
        }
        assert_eq!(soon.try_recv(), Ok(Ok(())));
        assert!(later.try_recv().is_err());
    }
}
