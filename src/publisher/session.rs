//! The task that owns the channel.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use lapin::{Channel, Confirmation, Event};
use tokio::task::yield_now;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::channel::{confirm, open};
use super::error::{PublishError, SessionError};
use super::group::Group;
use super::queue::{LinkState, PublishQueue, UnconfirmedMessages};
use crate::backoff::Backoff;
use crate::broker::{Broker, BrokerError, Link};
use crate::health::Health;
use crate::metrics::{LinkGuard, PublishFailed, PublishMetrics};

/// Maximum of messages waiting for their confirms: lapin's work for a confirm of many grows with
/// it, and beyond a few hundred RabbitMQ is no faster.
const UNCONFIRMED_MAX: usize = 512;

/// A channel on which RabbitMQ has refused everything for so long is given up: it may go on
/// refusing there when there is room again.
const REFUSED_MAX: Duration = Duration::from_secs(2);

/// How long after the loss of a connection its tickets wait for another one's confirm, before it
/// counts that there is none, or that RabbitMQ refuses them. Until a cluster has found out who leads
/// the queue now, it refuses what it is sent.
const REPLACED_WITHIN: Duration = Duration::from_secs(2);

/// How long a connection to one of several servers is kept without a confirm, at least: where the
/// leader of the queue hangs, the others elect another after 6 to 7 s, and send it what is
/// unconfirmed on channels that are there. A new channel would look for the old leader.
const ELECTION: Duration = Duration::from_secs(8);

/// How often deadlines are checked.
const TICK: Duration = Duration::from_millis(50);

/// A group that is published and not confirmed.
struct Unconfirmed {
    group: Group,
    published_at: Instant,
}

/// A confirm, or what came instead of one.
struct Confirmed {
    number: u64,
    is_bulk: bool,
    result: Result<Confirmation, lapin::Error>,
}

/// A connection with its channel, and what is unconfirmed on it.
struct PublishSession {
    // Dropped in this order, so that the last to be shown is that there is no connection.
    blocked: Option<LinkGuard>,
    up: LinkGuard,
    link: Link,
    channel: Channel,
    confirms: FuturesUnordered<BoxFuture<'static, Confirmed>>,
    /// How many of these are of whole groups.
    bulk_confirms: usize,
    /// Since when it has seen refusals and no confirm.
    refused_since: Option<Instant>,
}

impl PublishSession {
    /// One more message was refused; an error if that is all that happens.
    fn refused(&mut self) -> Result<(), SessionError> {
        let since = *self.refused_since.get_or_insert_with(Instant::now);
        if since.elapsed() > REFUSED_MAX {
            return Err(SessionError::EverythingRefused);
        }
        Ok(())
    }

    /// How many messages wait for their confirms.
    fn unconfirmed(&self) -> UnconfirmedMessages {
        UnconfirmedMessages {
            singles: self.confirms.len() - self.bulk_confirms,
            bulk: self.bulk_confirms,
        }
    }

    /// Ends it; the connection remains to be closed, and what shows that it is up to be dropped.
    fn into_parts(self) -> (Link, LinkGuard) {
        (self.link, self.up)
    }
}

/// Publishes groups and sends their tickets the results.
pub(super) struct ChannelActor {
    broker: Broker,
    queue: Arc<PublishQueue>,
    /// Published and not confirmed, in their order.
    unconfirmed: BTreeMap<u64, Unconfirmed>,
    next_number: u64,
    /// Starts over with the first confirm of a session.
    backoff: Backoff,
    /// There has been a session.
    was_up: bool,
    /// Until when another connection has time to confirm what the last one did not; none once one
    /// has confirmed something.
    replaced_by: Option<Instant>,
    /// Shows that the connection is up while another server has time to take its place.
    held: Option<LinkGuard>,
    health: Arc<Health>,
    metrics: PublishMetrics,
}

impl ChannelActor {
    /// Not connected yet.
    pub(super) fn new(broker: Broker, queue: Arc<PublishQueue>, health: Arc<Health>) -> Self {
        Self {
            broker,
            queue,
            unconfirmed: BTreeMap::new(),
            next_number: 0,
            backoff: Backoff::new(),
            was_up: false,
            replaced_by: None,
            held: None,
            health,
            metrics: PublishMetrics::new(),
        }
    }

    /// Publishes until no ticket is left and no more can come.
    pub(super) async fn run(mut self) {
        while let Some((link, channel)) = self.connect().await {
            info!("publishing to RabbitMQ");
            self.was_up = true;
            let mut session = self.session(link, channel);
            let started = Instant::now();
            let served = self.serve(&mut session).await;
            let (link, up) = session.into_parts();
            self.requeue();
            match served {
                Ok(()) => return link.close().await,
                Err(error) => {
                    warn!(error = %format_args!("{error:#}"), "publishing to RabbitMQ stopped");
                    self.lost(up, started);
                }
            }
        }
    }

    /// A connection is lost that was made then. Where there are other servers, nobody is told for as
    /// long as one of them may take its place.
    fn lost(&mut self, up: LinkGuard, started: Instant) {
        if !self.broker.has_several_servers() {
            return;
        }
        let now = Instant::now();
        if started + REPLACED_WITHIN < now {
            self.replaced_by = None;
        }
        self.replaced_by.get_or_insert(now + REPLACED_WITHIN);
        if self.is_being_replaced() {
            self.held = Some(up);
        }
    }

    fn is_being_replaced(&self) -> bool {
        self.replaced_by.is_some_and(|until| Instant::now() < until)
    }

    /// Connects, however long it takes. The tickets that wait meanwhile get their result when their
    /// deadline has passed. None: no ticket is left and no more can come.
    async fn connect(&mut self) -> Option<(Link, Channel)> {
        let (broker, queue) = (self.broker.clone(), self.queue.clone());
        let mut tick = ticker();
        // The first attempt waits too, if little: a broker that accepts sessions only to end them
        // is not hammered.
        let mut attempt = pin!(open(&broker, self.backoff.next()).fuse());
        loop {
            tokio::select! {
                opened = &mut attempt => match opened {
                    Ok(opened) => return Some(opened),
                    Err(error) => {
                        warn!(error = %format_args!("{error:#}"), "no connection to RabbitMQ for publishing");
                        self.give_up(error);
                        attempt.set(open(&broker, self.backoff.next()).fuse());
                    }
                },
                () = queue.arrived() => {}
                _ = tick.tick() => {
                    self.report();
                    self.held = self.held.take().filter(|_| self.is_being_replaced());
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

    /// From now on, and for as long as the session lasts, tickets are accepted.
    fn session(&mut self, link: Link, channel: Channel) -> PublishSession {
        let up = self.held.take().unwrap_or_else(|| self.up());
        PublishSession {
            blocked: None,
            up,
            link,
            channel,
            confirms: FuturesUnordered::new(),
            bulk_confirms: 0,
            refused_since: None,
        }
    }

    /// While it lives, tickets are accepted.
    fn up(&self) -> LinkGuard {
        let (queue, health) = (self.queue.clone(), self.health.clone());
        LinkGuard::new(self.metrics.connected.clone(), move |up| {
            health.publishing(up);
            queue.set_link(if up { LinkState::Up } else { LinkState::Down });
        })
    }

    /// Ok: every ticket has its result and no more can come.
    async fn serve(&mut self, session: &mut PublishSession) -> Result<(), SessionError> {
        let mut events = pin!(session.link.events());
        let mut tick = ticker();
        let queue = self.queue.clone();
        loop {
            // One turn of this worker's loop, in which every connection that has a ticket submits
            // it: fewer and larger messages.
            if queue.should_linger(session.unconfirmed()) {
                yield_now().await;
            }
            self.publish(session);
            if self.unconfirmed.is_empty() && queue.is_finished() {
                return Ok(());
            }
            tokio::select! {
                () = queue.arrived() => {}
                Some(confirmed) = session.confirms.next() => self.settle(session, confirmed)?,
                event = events.next() => self.on_event(session, event)?,
                _ = tick.tick() => {
                    self.report();
                    self.expire(session)?;
                }
            }
        }
    }

    /// Publishes as many groups as are ready now.
    fn publish(&mut self, session: &mut PublishSession) {
        if session.blocked.is_some() {
            return;
        }
        while session.confirms.len() < UNCONFIRMED_MAX
            && let Some(group) = self.queue.next(session.unconfirmed())
        {
            let is_bulk = group.is_bulk();
            session.bulk_confirms += usize::from(is_bulk);
            self.metrics.groups.increment(1);
            self.metrics.group_size.record(count(group.tickets()));
            let (number, message) = (self.next_number, group.message());
            let (exchange, key) = (self.broker.exchange(), self.broker.routing_key());
            let channel = session.channel.clone();
            session.confirms.push(
                async move {
                    let result = confirm(&channel, exchange, key, message).await;
                    Confirmed {
                        number,
                        is_bulk,
                        result,
                    }
                }
                .boxed(),
            );
            self.next_number += 1;
            let unconfirmed = Unconfirmed {
                group,
                published_at: Instant::now(),
            };
            self.unconfirmed.insert(number, unconfirmed);
        }
    }

    /// Settles a group. 202 hangs on this match: only an ack that returned nothing says that the
    /// message is safe.
    fn settle(
        &mut self,
        session: &mut PublishSession,
        confirmed: Confirmed,
    ) -> Result<(), SessionError> {
        let number = confirmed.number;
        session.bulk_confirms -= usize::from(confirmed.is_bulk);
        let Some(Unconfirmed {
            group,
            published_at,
        }) = self.unconfirmed.remove(&number)
        else {
            return Ok(());
        };
        match confirmed.result {
            Ok(Confirmation::Ack(None)) => {
                self.metrics.confirm.record(published_at.elapsed());
                self.backoff.reset();
                session.refused_since = None;
                self.replaced_by = None;
                self.queue.settle(group, Ok(()));
                Ok(())
            }
            Ok(Confirmation::Nack(None)) => {
                self.metrics.failed(PublishFailed::Nack);
                if self.is_being_replaced() {
                    // It goes on refusing on this channel; a refused message is not taken.
                    let unconfirmed = Unconfirmed {
                        group,
                        published_at,
                    };
                    self.unconfirmed.insert(number, unconfirmed);
                    return Err(SessionError::EverythingRefused);
                }
                self.queue.settle(group, Err(PublishError::Nacked));
                session.refused()
            }
            Ok(
                Confirmation::Ack(Some(_))
                | Confirmation::Nack(Some(_))
                | Confirmation::NotRequested,
            ) => {
                // lapin hands a returned message to whichever confirm comes next, so no further
                // confirm of this channel is believed.
                self.metrics.failed(PublishFailed::Returned);
                self.queue.settle(group, Err(PublishError::Returned));
                Err(SessionError::Returned)
            }
            Err(error) => {
                self.metrics.failed(PublishFailed::Closed);
                let unconfirmed = Unconfirmed {
                    group,
                    published_at,
                };
                self.unconfirmed.insert(number, unconfirmed);
                Err(error.into())
            }
        }
    }

    fn on_event(
        &self,
        session: &mut PublishSession,
        event: Option<Event>,
    ) -> Result<(), SessionError> {
        match event {
            Some(Event::ConnectionBlocked(reason)) => {
                warn!(%reason, "RabbitMQ accepts no messages");
                session.blocked.get_or_insert_with(|| self.blocked());
                Ok(())
            }
            Some(Event::ConnectionUnblocked) => {
                info!("RabbitMQ accepts messages again");
                session.blocked = None;
                Ok(())
            }
            Some(Event::Error(error)) => Err(error.into()),
            Some(_) => Ok(()),
            None => Err(SessionError::ConnectionClosed),
        }
    }

    /// While it lives, tickets are rejected because RabbitMQ is blocked.
    fn blocked(&self) -> LinkGuard {
        let (queue, health) = (self.queue.clone(), self.health.clone());
        LinkGuard::new(self.metrics.blocked.clone(), move |blocked| {
            health.publishing(!blocked);
            queue.set_link(if blocked {
                LinkState::Blocked
            } else {
                LinkState::Up
            });
        })
    }

    /// Sends tickets whose deadline has passed their result. A broker that says it is blocked is
    /// waited for; one that is silent is not: what lies in lapin's buffers may still go out, and
    /// dropping the connection bounds how much.
    fn expire(&mut self, session: &PublishSession) -> Result<(), SessionError> {
        let now = Instant::now();
        if session.blocked.is_some() {
            self.expire_blocked(now);
            return Ok(());
        }
        let result = Err(PublishError::Timeout);
        self.queue.expire(result, now);
        for unconfirmed in self.unconfirmed.values_mut() {
            if unconfirmed.group.is_overdue(now) {
                self.queue
                    .reply_overdue(&mut unconfirmed.group, result, now);
            }
        }
        // The connection is judged by how long it has had a message: one that waited elsewhere
        // before may be overdue at once.
        let oldest = self.unconfirmed.values().next();
        let timeout = self.silence_max();
        if oldest.is_some_and(|oldest| now >= oldest.published_at + timeout) {
            self.metrics.failed(PublishFailed::Timeout);
            return Err(SessionError::ConfirmTimeout);
        }
        Ok(())
    }

    /// How long a connection may confirm nothing.
    fn silence_max(&self) -> Duration {
        let timeout = self.queue.confirm_timeout();
        if self.broker.has_several_servers() {
            return timeout.max(ELECTION);
        }
        timeout
    }

    fn expire_blocked(&mut self, now: Instant) {
        let result = Err(PublishError::Blocked);
        self.queue.expire(result, now);
        for unconfirmed in self.unconfirmed.values_mut() {
            self.queue
                .reply_overdue(&mut unconfirmed.group, result, now);
        }
        // Nobody waits for their confirms any more, so nothing has to.
        let done = |_: &u64, unconfirmed: &mut Unconfirmed| unconfirmed.group.unanswered() == 0;
        for (_, Unconfirmed { group, .. }) in self.unconfirmed.extract_if(.., done) {
            self.queue.settle(group, result);
        }
    }

    fn report(&self) {
        self.metrics.inflight.set(count(self.queue.tickets()));
    }

    /// After a session: what it did not settle is published again, oldest first, and tickets whose
    /// deadline has passed get their result.
    fn requeue(&mut self) {
        let unconfirmed = std::mem::take(&mut self.unconfirmed).into_values();
        self.queue
            .requeue(unconfirmed.rev().map(|unconfirmed| unconfirmed.group));
        self.queue
            .expire(Err(PublishError::Timeout), Instant::now());
    }
}

fn ticker() -> tokio::time::Interval {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}

/// A count as metrics take it.
fn count(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::MAX, f64::from)
}
