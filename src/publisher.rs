//! Group commit: tickets in, one message for many of them, an answer for each
//! when the message is confirmed.
//!
//! One task owns the channel, every publish on it and every confirm: lapin
//! numbers a publish and puts it on the wire under two different locks, so two
//! tasks publishing on one channel could swap each other's confirms.
//!
//! A group leaves when no other is waiting for its confirm, or when it is full.
//! So a lone ticket waits for nobody, and the busier it is the larger groups
//! grow, without a timer. When the link fails, what was not confirmed is
//! published again on the next one with the same ids, as long as its deadline
//! allows; the store keeps one row an id.
//!
//! A body stays the `Bytes` that hyper read until it is gathered into the
//! group's payload; lapin copies that once more into its frames.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Event};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};
use uuid::Uuid;

use crate::backoff::Backoff;
use crate::broker::{Broker, BrokerError, Link};
use crate::config::GROUP_BYTES_MAX;
use crate::health::Health;
use crate::message::{self, RECORD_HEAD_BYTES, Record};
use crate::metrics::PublishMetrics;

/// Most messages waiting for their confirms: lapin's work for a confirm of
/// many grows with it, and beyond a few hundred RabbitMQ is no faster.
const UNCONFIRMED_MAX: usize = 512;

/// Most payload buffers kept for the next groups.
const SPARE_MAX: usize = 8;

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(50);

/// RabbitMQ's "persistent" (AMQP 0-9-1, basic class, delivery-mode).
const PERSISTENT: u8 = 2;

/// Why a ticket was not confirmed. Its sender may try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no link to RabbitMQ.
    Away,
    /// RabbitMQ takes no messages for want of memory or disk.
    Blocked,
    /// RabbitMQ refused the message.
    Nacked,
    /// RabbitMQ had nowhere to put the message.
    Returned,
    /// No confirm came in time; the ticket may be stored all the same.
    Deadline,
    /// Too many tickets are waiting already.
    Overloaded,
    /// The process is ending.
    Draining,
}

impl Refusal {
    /// The label in metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Away => "broker_away",
            Self::Blocked => "broker_blocked",
            Self::Nacked => "nack",
            Self::Returned => "returned",
            Self::Deadline => "confirm_timeout",
            Self::Overloaded => "overloaded",
            Self::Draining => "draining",
        }
    }
}

/// What became of a ticket.
pub type Outcome = Result<(), Refusal>;

/// What a publisher may hold and how long it may wait.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most tickets in one message.
    pub group: usize,
    /// Most tickets between arrival and confirm.
    pub inflight: usize,
    /// Most bytes of them.
    pub inflight_bytes: usize,
    /// Longest from arrival to confirm.
    pub confirm_timeout: Duration,
}

/// The way in, for any number of request handlers.
#[derive(Clone)]
pub struct Publisher {
    submissions: mpsc::Sender<Submission>,
    gate: Arc<Gate>,
}

impl Publisher {
    /// Hands a ticket over. The outcome comes through the receiver; dropping
    /// the receiver changes nothing for the ticket.
    pub fn submit(
        &self,
        id: Uuid,
        received_at_us: i64,
        body: Bytes,
    ) -> Result<oneshot::Receiver<Outcome>, Refusal> {
        self.gate.enter(body.len())?;
        let (reply, outcome) = oneshot::channel();
        let deadline = Instant::now() + self.gate.limits.confirm_timeout;
        let submission = Submission {
            id,
            received_at_us,
            body,
            deadline,
            reply,
        };
        match self.submissions.try_send(submission) {
            Ok(()) => Ok(outcome),
            Err(mpsc::error::TrySendError::Full(submission)) => {
                self.gate.leave(submission.body.len());
                Err(Refusal::Overloaded)
            }
            Err(mpsc::error::TrySendError::Closed(submission)) => {
                self.gate.leave(submission.body.len());
                Err(Refusal::Draining)
            }
        }
    }
}

/// One ticket between its handler and its confirm.
struct Submission {
    id: Uuid,
    received_at_us: i64,
    body: Bytes,
    deadline: Instant,
    reply: oneshot::Sender<Outcome>,
}

/// What handlers look at before they hand a ticket over.
struct Gate {
    state: AtomicU8,
    tickets: AtomicUsize,
    bytes: AtomicUsize,
    limits: Limits,
}

const UP: u8 = 0;
const AWAY: u8 = 1;
const BLOCKED: u8 = 2;

impl Gate {
    fn enter(&self, bytes: usize) -> Result<(), Refusal> {
        self.check()?;
        let tickets = self.tickets.fetch_add(1, Ordering::Relaxed);
        let held = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if tickets >= self.limits.inflight || held >= self.limits.inflight_bytes {
            self.leave(bytes);
            return Err(Refusal::Overloaded);
        }
        Ok(())
    }

    fn leave(&self, bytes: usize) {
        self.tickets.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn check(&self) -> Outcome {
        match self.state.load(Ordering::Relaxed) {
            UP => Ok(()),
            BLOCKED => Err(Refusal::Blocked),
            _ => Err(Refusal::Away),
        }
    }

    fn set(&self, state: u8) {
        self.state.store(state, Ordering::Relaxed);
    }
}

/// Makes a publisher and the task behind it, which ends when every handle is
/// gone and every ticket has its answer.
pub fn publisher(
    broker: Broker,
    limits: Limits,
    health: Arc<Health>,
) -> (Publisher, impl Future<Output = ()> + Send) {
    let (submissions, received) = mpsc::channel(limits.inflight.max(1));
    let gate = Arc::new(Gate {
        state: AtomicU8::new(AWAY),
        tickets: AtomicUsize::new(0),
        bytes: AtomicUsize::new(0),
        limits,
    });
    let actor = Actor {
        broker,
        received,
        closing: false,
        waiting: VecDeque::new(),
        waiting_bytes: 0,
        groups: BTreeMap::new(),
        next_group: 0,
        spare: Vec::new(),
        gate: gate.clone(),
        health,
        metrics: PublishMetrics::new(),
        reported: 0.0,
    };
    (Publisher { submissions, gate }, actor.run())
}

/// Tickets that share a message.
struct Group {
    tickets: Vec<Submission>,
    published: Instant,
}

/// A confirm, or what came instead of one.
struct Settled {
    group: u64,
    result: Result<Confirmation, lapin::Error>,
    payload: Vec<u8>,
}

/// The channel and what is under way on it.
struct Session {
    link: Link,
    channel: Channel,
    unsettled: FuturesUnordered<BoxFuture<'static, Settled>>,
}

/// How a session ended.
enum End {
    /// Every ticket is answered and no more can come.
    Drained,
    /// The link cannot be trusted any more.
    Failed(String),
}

struct Actor {
    broker: Broker,
    received: mpsc::Receiver<Submission>,
    closing: bool,
    /// Not published yet, oldest first.
    waiting: VecDeque<Submission>,
    waiting_bytes: usize,
    /// Published and not confirmed, by their order.
    groups: BTreeMap<u64, Group>,
    next_group: u64,
    /// Payload buffers to use again.
    spare: Vec<Vec<u8>>,
    gate: Arc<Gate>,
    health: Arc<Health>,
    metrics: PublishMetrics,
    /// What this publisher last added to the gauge that all of them share.
    reported: f64,
}

impl Actor {
    async fn run(mut self) {
        while let Some(mut session) = self.open().await {
            self.link_up(true);
            let end = self.serve(&mut session).await;
            self.link_up(false);
            self.take_back();
            match end {
                End::Drained => {
                    session.link.close().await;
                    return;
                }
                End::Failed(why) => warn!("publishing to RabbitMQ stopped: {why}"),
            }
        }
    }

    /// Opens a session, however long it takes. Tickets that wait meanwhile are
    /// answered when their time is up. None: no ticket is left and no more can come.
    async fn open(&mut self) -> Option<Session> {
        let mut backoff = Backoff::new();
        let broker = self.broker.clone();
        let mut tick = ticker();
        let mut attempt = pin!(open(&broker, Duration::ZERO).fuse());
        loop {
            tokio::select! {
                opened = &mut attempt => match opened {
                    Ok(session) => return Some(session),
                    Err(error) => {
                        warn!("no link to RabbitMQ for publishing: {error}");
                        attempt.set(open(&broker, backoff.next()).fuse());
                    }
                },
                submission = self.received.recv(), if !self.closing => self.take(submission),
                _ = tick.tick() => {
                    self.report();
                    self.expire_waiting(Refusal::Away);
                }
            }
            if self.closing && self.waiting.is_empty() {
                return None;
            }
        }
    }

    async fn serve(&mut self, session: &mut Session) -> End {
        let mut events = pin!(session.link.events());
        let mut tick = ticker();
        let mut arrived = Vec::new();
        loop {
            self.publish(session);
            if self.closing && self.waiting.is_empty() && self.groups.is_empty() {
                return End::Drained;
            }
            let step = tokio::select! {
                n = self.received.recv_many(&mut arrived, self.gate.limits.group), if !self.closing => {
                    self.closing = n == 0;
                    arrived.drain(..).for_each(|submission| self.take(Some(submission)));
                    Ok(())
                }
                Some(settled) = session.unsettled.next() => self.settle(settled),
                event = events.next() => self.note(event),
                _ = tick.tick() => {
                    self.report();
                    self.expire()
                }
            };
            if let Err(why) = step {
                return End::Failed(why);
            }
        }
    }

    fn take(&mut self, submission: Option<Submission>) {
        match submission {
            Some(submission) => {
                self.waiting_bytes += submission.body.len();
                self.waiting.push_back(submission);
            }
            None => self.closing = true,
        }
    }

    /// Publishes as many groups as may leave now.
    fn publish(&mut self, session: &Session) {
        while self.may_leave(session.unsettled.len()) {
            let tickets = self.next_tickets();
            self.metrics.groups.increment(1);
            self.metrics.group_size.record(count(tickets.len()));

            let (payload, properties) = encode(&tickets, self.spare.pop().unwrap_or_default());
            let group = self.next_group;
            self.next_group += 1;
            self.groups.insert(
                group,
                Group {
                    tickets,
                    published: Instant::now(),
                },
            );
            let (exchange, key) = (self.broker.exchange(), self.broker.routing_key());
            let channel = session.channel.clone();
            session.unsettled.push(
                async move {
                    let result = confirm(&channel, exchange, key, &payload, properties).await;
                    Settled {
                        group,
                        result,
                        payload,
                    }
                }
                .boxed(),
            );
        }
    }

    fn may_leave(&self, unsettled: usize) -> bool {
        let blocked = self.gate.state.load(Ordering::Relaxed) == BLOCKED;
        let full =
            self.waiting.len() >= self.gate.limits.group || self.waiting_bytes >= GROUP_BYTES_MAX;
        !self.waiting.is_empty()
            && !blocked
            && (unsettled == 0 || full && unsettled < UNCONFIRMED_MAX)
    }

    fn next_tickets(&mut self) -> Vec<Submission> {
        let mut bytes = 0;
        let fits = |submission: &&Submission| {
            let first = bytes == 0;
            bytes += RECORD_HEAD_BYTES + submission.body.len();
            first || bytes <= GROUP_BYTES_MAX
        };
        let count = self
            .waiting
            .iter()
            .take(self.gate.limits.group)
            .take_while(fits)
            .count();
        let tickets: Vec<_> = self.waiting.drain(..count).collect();
        self.waiting_bytes -= tickets
            .iter()
            .map(|ticket| ticket.body.len())
            .sum::<usize>();
        tickets
    }

    /// Answers a group. 202 hangs on this match: only an ack that returned
    /// nothing says that the message is safe.
    fn settle(&mut self, settled: Settled) -> Result<(), String> {
        let Some(group) = self.groups.remove(&settled.group) else {
            return Ok(());
        };
        if self.spare.len() < SPARE_MAX {
            self.spare.push(settled.payload);
        }
        match settled.result {
            Ok(Confirmation::Ack(None)) => {
                self.metrics.confirm.record(group.published.elapsed());
                self.answer(group.tickets, Ok(()));
                Ok(())
            }
            Ok(Confirmation::Nack(_)) => {
                self.metrics.failed("nack");
                self.answer(group.tickets, Err(Refusal::Nacked));
                Ok(())
            }
            Ok(Confirmation::Ack(Some(_)) | Confirmation::NotRequested) => {
                // lapin cannot tell for sure which message came back, so no
                // further confirm of this channel is believed.
                self.metrics.failed("returned");
                self.answer(group.tickets, Err(Refusal::Returned));
                Err("a message came back unroutable, or was not confirmed at all".into())
            }
            Err(error) => {
                self.metrics.failed("closed");
                self.groups.insert(settled.group, group);
                Err(error.to_string())
            }
        }
    }

    fn answer(&self, tickets: impl IntoIterator<Item = Submission>, outcome: Outcome) {
        for ticket in tickets {
            self.gate.leave(ticket.body.len());
            // The handler is gone when its client hung up; the ticket is no less stored.
            let _unheard = ticket.reply.send(outcome);
        }
    }

    fn note(&mut self, event: Option<Event>) -> Result<(), String> {
        match event {
            Some(Event::ConnectionBlocked(why)) => {
                warn!("RabbitMQ takes no messages: {why}");
                self.metrics.blocked.increment(1.0);
                self.health.publisher_up(false);
                self.gate.set(BLOCKED);
                Ok(())
            }
            Some(Event::ConnectionUnblocked) => {
                info!("RabbitMQ takes messages again");
                self.unblock();
                Ok(())
            }
            Some(Event::Error(error)) => Err(error.to_string()),
            Some(_) => Ok(()),
            None => Err("the connection ended".into()),
        }
    }

    fn unblock(&mut self) {
        if self.gate.state.load(Ordering::Relaxed) == BLOCKED {
            self.metrics.blocked.decrement(1.0);
            self.health.publisher_up(true);
            self.gate.set(UP);
        }
    }

    /// Answers tickets whose time is up. A broker that says it is blocked is
    /// waited for; one that is silent is not: what lies in lapin's buffers may
    /// still go out, and dropping the link bounds how much.
    fn expire(&mut self) -> Result<(), String> {
        let now = Instant::now();
        if self.gate.state.load(Ordering::Relaxed) == BLOCKED {
            self.expire_waiting(Refusal::Blocked);
            let mut late = Vec::new();
            for group in self.groups.values_mut() {
                late.extend(
                    group
                        .tickets
                        .extract_if(.., |ticket| ticket.deadline <= now),
                );
            }
            self.answer(late, Err(Refusal::Blocked));
            return Ok(());
        }
        self.expire_waiting(Refusal::Deadline);
        let late = |group: &Group| group.tickets.iter().any(|ticket| ticket.deadline <= now);
        if self.groups.values().any(late) {
            self.metrics.failed("timeout");
            return Err("no confirm in time".into());
        }
        Ok(())
    }

    fn expire_waiting(&mut self, refusal: Refusal) {
        let now = Instant::now();
        let late = self
            .waiting
            .iter()
            .take_while(|ticket| ticket.deadline <= now)
            .count();
        let late: Vec<_> = self.waiting.drain(..late).collect();
        self.waiting_bytes -= late.iter().map(|ticket| ticket.body.len()).sum::<usize>();
        self.answer(late, Err(refusal));
    }

    fn report(&mut self) {
        let held = count(self.gate.tickets.load(Ordering::Relaxed));
        self.metrics.inflight.increment(held - self.reported);
        self.reported = held;
    }

    /// After a session: what it did not settle waits again, oldest first, and
    /// what has run out of time is answered.
    fn take_back(&mut self) {
        for group in std::mem::take(&mut self.groups).into_values().rev() {
            for ticket in group.tickets.into_iter().rev() {
                self.waiting_bytes += ticket.body.len();
                self.waiting.push_front(ticket);
            }
        }
        self.expire_waiting(Refusal::Deadline);
    }

    fn link_up(&mut self, up: bool) {
        if up {
            info!("publishing to RabbitMQ");
            self.metrics.connected.increment(1.0);
        } else {
            self.unblock();
            self.metrics.connected.decrement(1.0);
        }
        self.health.publisher_up(up);
        self.gate.set(if up { UP } else { AWAY });
    }
}

async fn open(broker: &Broker, wait: Duration) -> Result<Session, BrokerError> {
    tokio::time::sleep(wait).await;
    let link = broker.connect("publish").await?;
    let channel = link.publishing_channel().await?;
    Ok(Session {
        link,
        channel,
        unsettled: FuturesUnordered::new(),
    })
}

fn ticker() -> tokio::time::Interval {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}

async fn confirm(
    channel: &Channel,
    exchange: ShortString,
    key: ShortString,
    payload: &[u8],
    properties: BasicProperties,
) -> Result<Confirmation, lapin::Error> {
    // Mandatory: should even the alternate exchange be missing, the message
    // comes back instead of being confirmed into nothing.
    let options = BasicPublishOptions {
        mandatory: true,
        immediate: false,
    };
    channel
        .basic_publish(exchange, key, options, payload, properties)
        .await?
        .await
}

/// The message for some tickets: a single one as it came, several as a group.
fn encode(tickets: &[Submission], mut payload: Vec<u8>) -> (Vec<u8>, BasicProperties) {
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

/// A count as metrics take it.
fn count(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::MAX, f64::from)
}
