//! The tickets that wait to be published: the handlers of all workers put them in, and the
//! publisher's task takes groups out. Never locked for longer than the copy of one ticket.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use super::bulk_budget::BulkBudget;
use super::error::{PublishError, PublishResult};
use super::group::Group;
use super::limits::PublishLimits;
use super::replies::ReplyRouter;
use crate::config::GROUP_BYTES_MAX;
use crate::message::{GroupVersion, Record, Traceparent};

/// Maximum of buffers kept for the next groups.
const SPARE_MAX: usize = 8;

/// Maximum of whole groups that wait for their confirms: RabbitMQ writes each before what comes after.
const BULK_UNCONFIRMED_MAX: usize = 4;

/// The same while single tickets come.
const BULK_UNCONFIRMED_BESIDE_SINGLES: usize = 1;

/// Maximum of tickets in a whole group while single tickets come, which wait behind it.
const BULK_GROUP_BESIDE_SINGLES: usize = 256;

/// Time from the last single ticket until no more are expected.
const SINGLES_LAST: Duration = Duration::from_millis(100);

/// Whether tickets are accepted, and if not why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkState {
    /// They are.
    Up,
    /// There is no connection to RabbitMQ.
    Down,
    /// RabbitMQ accepts no messages.
    Blocked,
}

/// The tickets between their arrival and their publishing, and the count of those between their
/// arrival and their result.
pub(super) struct PublishQueue {
    limits: PublishLimits,
    bulk_budget: BulkBudget,
    router: ReplyRouter,
    state: Mutex<State>,
    arrived: Notify,
}

/// Messages that wait for their confirms.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct UnconfirmedMessages {
    /// Of single tickets.
    pub singles: usize,
    /// That were submitted as whole groups.
    pub bulk: usize,
}

struct State {
    link: LinkState,
    /// Publishers that can still submit tickets.
    open: usize,
    /// As the publisher's task last reported.
    unconfirmed: UnconfirmedMessages,
    /// The publisher's task has been woken and has not yet looked.
    woken: bool,
    /// Single tickets, and their bytes, that are not settled, wherever they are.
    tickets: usize,
    bytes: usize,
    /// Tickets of whole groups that are not settled.
    bulk_tickets: usize,
    /// When the last single ticket came.
    single_at: Option<Instant>,
    /// Groups that nothing can be added to, oldest first.
    sealed: VecDeque<Group>,
    /// Groups that were submitted as such, likewise; they come after all others.
    bulk: VecDeque<Group>,
    filling: Group,
    spare: Vec<Vec<u8>>,
}

impl PublishQueue {
    /// Empty, and without a connection; for so many publishers.
    pub(super) fn new(limits: PublishLimits, router: ReplyRouter, publishers: usize) -> Self {
        let state = State {
            link: LinkState::Down,
            open: publishers,
            unconfirmed: UnconfirmedMessages::default(),
            woken: false,
            tickets: 0,
            bytes: 0,
            bulk_tickets: 0,
            single_at: None,
            sealed: VecDeque::new(),
            bulk: VecDeque::new(),
            filling: Group::default(),
            spare: Vec::new(),
        };
        Self {
            limits,
            bulk_budget: BulkBudget::new(),
            router,
            state: Mutex::new(state),
            arrived: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts a ticket that is submitted at this time by a handler of this worker, or rejects it.
    pub(super) fn submit(
        &self,
        record: Record<'_>,
        trace: Option<Box<Traceparent>>,
        now: Instant,
        worker: usize,
    ) -> Result<oneshot::Receiver<PublishResult>, PublishError> {
        let mut state = self.state();
        state.check_link()?;
        if state.tickets >= self.limits.inflight || state.bytes >= self.limits.inflight_bytes {
            return Err(PublishError::Overloaded);
        }
        // It fits into no group that may be written.
        let alone = GroupVersion::needed_for(&record.origin) > self.limits.version;
        let full = alone || state.filling.bytes_with(&record) > GROUP_BYTES_MAX;
        if state.filling.tickets() > 0 && full {
            state.seal();
        }
        let before = state.filling.bytes();
        let result = state
            .filling
            .push(record, now + self.limits.confirm_timeout, worker);
        state.filling.keep_trace(trace);
        state.single_at = Some(now);
        state.tickets += 1;
        state.bytes += state.filling.bytes() - before;
        if alone || state.filling.tickets() >= self.limits.group {
            state.seal();
        }
        // The publisher's task may be on another core, where waking it costs a system call: only if
        // it has something to do, and once.
        let wake = !state.woken && state.has_ready_group();
        state.woken |= wake;
        drop(state);
        if wake {
            self.arrived.notify_one();
        }
        Ok(result)
    }

    /// Accepts a whole group of a handler of this worker once there is room for it, or rejects it.
    pub(super) async fn submit_group(
        &self,
        mut group: Group,
        worker: usize,
    ) -> Result<oneshot::Receiver<PublishResult>, PublishError> {
        self.state().check_link()?;
        let wait_max = self.limits.confirm_timeout;
        let charge = self.bulk_budget.charge(group.bytes(), wait_max).await?;
        let result = group.wait(Instant::now() + self.limits.confirm_timeout, worker);
        group.charge(charge);
        let mut state = self.state();
        state.check_link()?;
        state.bulk_tickets += group.tickets();
        state.bulk.push_back(group);
        let wake = !state.woken && state.has_ready_group();
        state.woken |= wake;
        drop(state);
        if wake {
            self.arrived.notify_one();
        }
        Ok(result)
    }

    /// Whether tickets are accepted now, and if not why.
    pub(super) fn check_link(&self) -> Result<(), PublishError> {
        self.state().check_link()
    }

    /// A group without tickets, in a buffer that was used before if there is one, and how many may come
    /// into it.
    pub(super) fn empty_group(&self) -> (Group, usize) {
        let mut state = self.state();
        let tickets = match state.singles_come() {
            true => self.limits.group.min(BULK_GROUP_BESIDE_SINGLES),
            false => self.limits.group,
        };
        (Group::new(state.spare.pop().unwrap_or_default()), tickets)
    }

    /// What may be held, and for how long.
    pub(super) fn limits(&self) -> PublishLimits {
        self.limits
    }

    /// Waits until there is something new.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Whether to wait for one turn of the event loop, so that tickets that arrive meanwhile join
    /// the next group, while so many messages wait for their confirms. A lone ticket is published
    /// immediately.
    pub(super) fn should_linger(&self, unconfirmed: UnconfirmedMessages) -> bool {
        let mut state = self.state();
        state.unconfirmed = unconfirmed;
        state.filling.tickets() > 1 && state.is_partial_ready()
    }

    /// The next group to publish, while so many wait for their confirms: whole groups only where
    /// there is no other.
    pub(super) fn next(&self, unconfirmed: UnconfirmedMessages) -> Option<Group> {
        let mut state = self.state();
        state.unconfirmed = unconfirmed;
        state.woken = false;
        if state.is_partial_ready() {
            state.seal();
        }
        match state.sealed.pop_front() {
            None if state.may_publish_bulk() => state.bulk.pop_front(),
            group => group,
        }
    }

    /// Puts groups back that are to be published again, given the newest first.
    pub(super) fn requeue(&self, groups: impl Iterator<Item = Group>) {
        let mut state = self.state();
        groups.for_each(|group| match group.is_bulk() {
            true => state.bulk.push_front(group),
            false => state.sealed.push_front(group),
        });
    }

    /// Settles a group: all that still wait get this result.
    pub(super) fn settle(&self, mut group: Group, result: PublishResult) {
        let tickets = group.unanswered();
        group.reply(result, &self.router);
        let mut state = self.state();
        if group.is_bulk() {
            state.bulk_tickets -= group.tickets();
        } else {
            state.tickets -= tickets;
            state.bytes -= group.bytes();
        }
        if state.spare.len() < SPARE_MAX {
            state.spare.extend(group.into_buffer());
        }
    }

    /// Sends a result to those of a published group whose deadline has passed.
    pub(super) fn reply_overdue(&self, group: &mut Group, result: PublishResult, now: Instant) {
        let overdue = group.reply_overdue(result, now, &self.router);
        if !group.is_bulk() {
            self.state().tickets -= overdue;
        }
    }

    /// Sends a result to those not yet published whose deadline has passed. A group that nobody
    /// waits for any more is not published at all.
    pub(super) fn expire(&self, result: PublishResult, now: Instant) {
        let mut state = self.state();
        if state.filling.is_overdue(now) {
            state.seal();
        }
        let (mut overdue, mut bytes) = (0, 0);
        state.sealed.retain_mut(|group| {
            overdue += group.reply_overdue(result, now, &self.router);
            let kept = group.unanswered() > 0;
            bytes += if kept { 0 } else { group.bytes() };
            kept
        });
        state.tickets -= overdue;
        state.bytes -= bytes;
        let mut bulk_tickets = 0;
        state.bulk.retain_mut(|group| {
            let overdue = group.reply_overdue(result, now, &self.router);
            bulk_tickets += if overdue > 0 { group.tickets() } else { 0 };
            overdue == 0
        });
        state.bulk_tickets -= bulk_tickets;
    }

    /// Maximum wait for a confirm.
    pub(super) fn confirm_timeout(&self) -> Duration {
        self.limits.confirm_timeout
    }

    /// Sets whether tickets are accepted, and if not why.
    pub(super) fn set_link(&self, link: LinkState) {
        self.state().link = link;
    }

    /// One publisher less: after the last one, no more tickets can come.
    pub(super) fn close(&self) {
        self.state().open -= 1;
        self.arrived.notify_one();
    }

    /// No tickets wait to be published, and no more can come.
    pub(super) fn is_finished(&self) -> bool {
        let state = self.state();
        let is_empty = state.sealed.is_empty() && state.bulk.is_empty();
        state.open == 0 && is_empty && state.filling.tickets() == 0
    }

    /// How many tickets are not settled.
    pub(super) fn tickets(&self) -> usize {
        let state = self.state();
        state.tickets + state.bulk_tickets
    }
}

impl State {
    /// Whether tickets are accepted.
    fn check_link(&self) -> Result<(), PublishError> {
        match self.link {
            LinkState::Up => Ok(()),
            LinkState::Down => Err(PublishError::Unavailable),
            LinkState::Blocked => Err(PublishError::Blocked),
        }
    }

    /// There is a group that may be published.
    fn has_ready_group(&self) -> bool {
        !self.sealed.is_empty() || self.may_publish_bulk() || self.is_partial_ready()
    }

    /// There is a whole group, and the ones before it are confirmed as far as they have to be.
    fn may_publish_bulk(&self) -> bool {
        !self.bulk.is_empty()
            && self.unconfirmed.bulk
                < match self.singles_come() {
                    true => BULK_UNCONFIRMED_BESIDE_SINGLES,
                    false => BULK_UNCONFIRMED_MAX,
                }
    }

    fn singles_come(&self) -> bool {
        self.single_at.is_some_and(|at| at.elapsed() < SINGLES_LAST)
    }

    /// A group that could still grow is published when no other waits for its confirm. It is
    /// published behind a single other too when it holds half of the tickets: then the next ones
    /// gather while the first confirm is awaited.
    fn is_partial_ready(&self) -> bool {
        let held = self.filling.tickets();
        self.sealed.is_empty()
            && held > 0
            && match self.unconfirmed.singles {
                0 => true,
                1 => held * 2 >= self.tickets,
                _ => false,
            }
    }

    fn seal(&mut self) {
        let next = Group::new(self.spare.pop().unwrap_or_default());
        let full = std::mem::replace(&mut self.filling, next);
        self.sealed.push_back(full);
    }
}

#[cfg(test)]
mod tests;
