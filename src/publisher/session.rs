//! The task that owns the channel.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{Channel, Confirmation, Event};
use tokio::task::yield_now;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::error::PublishError;
use super::group::{Group, GroupMessage};
use super::queue::LinkState::{Blocked, Down, Up};
use super::queue::PublishQueue;
use crate::backoff::Backoff;
use crate::broker::{Broker, BrokerError, Link};
use crate::health::Health;
use crate::metrics::PublishMetrics;

/// Most messages waiting for their confirms: lapin's work for a confirm of
/// many grows with it, and beyond a few hundred RabbitMQ is no faster.
const UNCONFIRMED_MAX: usize = 512;

/// A channel on which RabbitMQ has refused everything for so long is given up:
/// it may go on refusing there when there is room again.
const REFUSED_MAX: Duration = Duration::from_secs(2);

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(50);

/// A group that is published and not confirmed.
struct Published {
    group: Group,
    at: Instant,
}

/// A confirm, or what came instead of one.
struct Settled {
    number: u64,
    result: Result<Confirmation, lapin::Error>,
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

/// Publishes groups and answers their tickets.
pub struct ChannelActor {
    broker: Broker,
    queue: Arc<PublishQueue>,
    /// Published and not confirmed, by their order.
    published: BTreeMap<u64, Published>,
    next_number: u64,
    /// Starts over with the first confirm of a session.
    backoff: Backoff,
    /// There has been a session.
    was_up: bool,
    /// Since when this session has seen refusals and no confirm.
    refused_since: Option<Instant>,
    health: Arc<Health>,
    metrics: PublishMetrics,
}

impl ChannelActor {
    /// Not connected yet.
    pub fn new(broker: Broker, queue: Arc<PublishQueue>, health: Arc<Health>) -> Self {
        Self {
            broker,
            queue,
            published: BTreeMap::new(),
            next_number: 0,
            backoff: Backoff::new(),
            was_up: false,
            refused_since: None,
            health,
            metrics: PublishMetrics::new(),
        }
    }

    /// Publishes until no ticket is left and no more can come.
    pub async fn run(mut self) {
        while let Some(mut session) = self.open().await {
            self.link_up(true);
            self.was_up = true;
            let end = self.serve(&mut session).await;
            self.link_up(false);
            self.requeue();
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
        let (broker, queue) = (self.broker.clone(), self.queue.clone());
        let mut tick = ticker();
        // The first attempt waits too, if little: a broker that takes sessions
        // only to end them is not hammered.
        let mut attempt = pin!(open(&broker, self.backoff.next()).fuse());
        loop {
            tokio::select! {
                opened = &mut attempt => match opened {
                    Ok(session) => return Some(session),
                    Err(error) => {
                        warn!("no link to RabbitMQ for publishing: {error:#}");
                        self.give_up(error);
                        attempt.set(open(&broker, self.backoff.next()).fuse());
                    }
                },
                () = queue.arrived() => {}
                _ = tick.tick() => {
                    self.report();
                    self.queue.expire(Err(PublishError::Unavailable), Instant::now());
                }
            }
            if self.queue.is_finished() {
                return None;
            }
        }
    }

    /// A right that was never there will not come by itself; one that was may.
    fn give_up(&self, error: BrokerError) {
        if let BrokerError::Forbidden(why) = error
            && !self.was_up
        {
            self.health.give_up(why);
        }
    }

    async fn serve(&mut self, session: &mut Session) -> End {
        let mut events = pin!(session.link.events());
        let mut tick = ticker();
        let queue = self.queue.clone();
        loop {
            // One turn of this worker's loop, in which every connection that has
            // a ticket hands it over: fewer and larger messages.
            if queue.should_linger(session.unsettled.len()) {
                yield_now().await;
            }
            self.publish(session);
            if self.published.is_empty() && queue.is_finished() {
                return End::Drained;
            }
            let step = tokio::select! {
                () = queue.arrived() => Ok(()),
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

    /// Publishes as many groups as may leave now.
    fn publish(&mut self, session: &Session) {
        if self.queue.link() == Blocked {
            return;
        }
        while session.unsettled.len() < UNCONFIRMED_MAX
            && let Some(group) = self.queue.next(session.unsettled.len())
        {
            self.metrics.groups.increment(1);
            self.metrics.group_size.record(count(group.tickets()));
            let (number, message) = (self.next_number, group.message());
            let (exchange, key) = (self.broker.exchange(), self.broker.routing_key());
            let channel = session.channel.clone();
            session.unsettled.push(
                async move {
                    let result = confirm(&channel, exchange, key, message).await;
                    Settled { number, result }
                }
                .boxed(),
            );
            self.next_number += 1;
            let at = Instant::now();
            self.published.insert(number, Published { group, at });
        }
    }

    /// Answers a group. 202 hangs on this match: only an ack that returned
    /// nothing says that the message is safe.
    fn settle(&mut self, settled: Settled) -> Result<(), String> {
        let Some(Published { group, at }) = self.published.remove(&settled.number) else {
            return Ok(());
        };
        match settled.result {
            Ok(Confirmation::Ack(None)) => {
                self.metrics.confirm.record(at.elapsed());
                self.backoff.reset();
                self.refused_since = None;
                self.queue.settle(group, Ok(()));
                Ok(())
            }
            Ok(Confirmation::Nack(None)) => {
                self.metrics.failed("nack");
                self.queue.settle(group, Err(PublishError::Nacked));
                let since = *self.refused_since.get_or_insert_with(Instant::now);
                if since.elapsed() > REFUSED_MAX {
                    return Err("RabbitMQ refuses every message".into());
                }
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
                self.queue.settle(group, Err(PublishError::Returned));
                Err("a message came back unroutable, or was not confirmed at all".into())
            }
            Err(error) => {
                self.metrics.failed("closed");
                self.published
                    .insert(settled.number, Published { group, at });
                Err(error.to_string())
            }
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
        if self.queue.link() != Blocked {
            self.metrics.blocked.increment(1.0);
            self.health.publishing(false);
            self.queue.set_link(Blocked);
        }
    }

    fn unblock(&self) {
        if self.queue.link() == Blocked {
            self.metrics.blocked.decrement(1.0);
            self.health.publishing(true);
            self.queue.set_link(Up);
        }
    }

    /// Answers tickets whose time is up. A broker that says it is blocked is
    /// waited for; one that is silent is not: what lies in lapin's buffers may
    /// still go out, and dropping the link bounds how much.
    fn expire(&mut self) -> Result<(), String> {
        let now = Instant::now();
        if self.queue.link() == Blocked {
            let outcome = Err(PublishError::Blocked);
            self.queue.expire(outcome, now);
            for published in self.published.values_mut() {
                self.queue.reply_overdue(&mut published.group, outcome, now);
            }
            // Nobody waits for their confirms any more, so nothing has to.
            let left = |_: &u64, published: &mut Published| published.group.unanswered() == 0;
            for (_, Published { group, .. }) in self.published.extract_if(.., left) {
                self.queue.settle(group, outcome);
            }
            return Ok(());
        }
        let outcome = Err(PublishError::Timeout);
        self.queue.expire(outcome, now);
        for published in self.published.values_mut() {
            if published.group.is_overdue(now) {
                self.queue.reply_overdue(&mut published.group, outcome, now);
            }
        }
        // What the link is judged by is how long it has had a message: one that
        // waited elsewhere before may be late at once.
        let oldest = self.published.values().next();
        if oldest.is_some_and(|oldest| now >= oldest.at + self.queue.confirm_timeout()) {
            self.metrics.failed("timeout");
            return Err("no confirm in time".into());
        }
        Ok(())
    }

    fn report(&self) {
        self.metrics.inflight.set(count(self.queue.tickets()));
    }

    /// After a session: what it did not settle waits again, oldest first, and
    /// what has run out of time is answered.
    fn requeue(&mut self) {
        let published = std::mem::take(&mut self.published).into_values();
        self.queue
            .requeue(published.rev().map(|published| published.group));
        self.queue
            .expire(Err(PublishError::Timeout), Instant::now());
    }

    fn link_up(&mut self, up: bool) {
        if up {
            self.refused_since = None;
            info!("publishing to RabbitMQ");
            self.metrics.connected.increment(1.0);
        } else {
            self.unblock();
            self.metrics.connected.decrement(1.0);
        }
        self.health.publishing(up);
        self.queue.set_link(if up { Up } else { Down });
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
    message: GroupMessage,
) -> Result<Confirmation, lapin::Error> {
    // Mandatory: should even the alternate exchange be missing, the message
    // comes back instead of being confirmed into nothing.
    let options = BasicPublishOptions {
        mandatory: true,
        immediate: false,
    };
    let properties = message.properties.clone();
    let written = channel.basic_publish(exchange, key, options, message.payload(), properties);
    let confirmed = written.await?;
    drop(message);
    confirmed.await
}

/// A count as metrics take it.
fn count(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::MAX, f64::from)
}
