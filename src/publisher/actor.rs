//! The task that owns the channel.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, Event};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::gate::{AWAY, BLOCKED, Gate, UP};
use super::group::encode;
use super::{Outcome, Refusal, Submission};
use crate::backoff::Backoff;
use crate::broker::{Broker, BrokerError, Link};
use crate::config::GROUP_BYTES_MAX;
use crate::health::Health;
use crate::message::RECORD_HEAD_BYTES;
use crate::metrics::PublishMetrics;

/// Most messages waiting for their confirms: lapin's work for a confirm of
/// many grows with it, and beyond a few hundred RabbitMQ is no faster.
const UNCONFIRMED_MAX: usize = 512;

/// Most payload buffers kept for the next groups.
const SPARE_MAX: usize = 8;

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(50);

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

/// See the module above: it takes tickets in, and answers them.
pub struct Actor {
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
    /// Starts over with the first confirm of a session.
    backoff: Backoff,
    gate: Arc<Gate>,
    health: Arc<Health>,
    metrics: PublishMetrics,
    /// What this publisher last added to the gauge that all of them share.
    reported: f64,
}

impl Actor {
    /// Not connected yet.
    pub fn new(
        broker: Broker,
        received: mpsc::Receiver<Submission>,
        gate: Arc<Gate>,
        health: Arc<Health>,
    ) -> Self {
        Self {
            broker,
            received,
            closing: false,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            groups: BTreeMap::new(),
            next_group: 0,
            spare: Vec::new(),
            backoff: Backoff::new(),
            gate,
            health,
            metrics: PublishMetrics::new(),
            reported: 0.0,
        }
    }

    /// Publishes until no ticket is left and no more can come.
    pub async fn run(mut self) {
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
        let broker = self.broker.clone();
        let mut tick = ticker();
        // The first attempt waits too, if little: a broker that takes sessions
        // only to end them is not hammered.
        let mut attempt = pin!(open(&broker, self.backoff.next()).fuse());
        loop {
            tokio::select! {
                opened = &mut attempt => match opened {
                    Ok(session) => return Some(session),
                    Err(error) => {
                        warn!("no link to RabbitMQ for publishing: {error}");
                        attempt.set(open(&broker, self.backoff.next()).fuse());
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
                n = self.received.recv_many(&mut arrived, self.gate.limits().group), if !self.closing => {
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
        let blocked = self.gate.state() == BLOCKED;
        let full =
            self.waiting.len() >= self.gate.limits().group || self.waiting_bytes >= GROUP_BYTES_MAX;
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
            .take(self.gate.limits().group)
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
                self.backoff.reset();
                self.answer(group.tickets, Ok(()));
                Ok(())
            }
            Ok(Confirmation::Nack(None)) => {
                self.metrics.failed("nack");
                self.answer(group.tickets, Err(Refusal::Nacked));
                Ok(())
            }
            Ok(
                Confirmation::Ack(Some(_))
                | Confirmation::Nack(Some(_))
                | Confirmation::NotRequested,
            ) => {
                // lapin hands a returned message to whichever confirm comes
                // next, so no further confirm of this channel is believed.
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
                self.block(&why);
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

    fn block(&self, why: &str) {
        warn!("RabbitMQ takes no messages: {why}");
        if self.gate.state() != BLOCKED {
            self.metrics.blocked.increment(1.0);
            self.health.publisher_up(false);
            self.gate.set(BLOCKED);
        }
    }

    fn unblock(&self) {
        if self.gate.state() == BLOCKED {
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
        if self.gate.state() == BLOCKED {
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
            self.groups.retain(|_, group| !group.tickets.is_empty());
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
        let held = count(self.gate.tickets());
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

/// A count as metrics take it.
fn count(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::MAX, f64::from)
}
