//! Where the handlers of all workers put tickets and the publisher's task takes
//! groups from. Never locked for longer than the copy of one ticket.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use super::group::Group;
use super::replies::Desks;
use super::{Limits, Outcome, Refusal};
use crate::config::GROUP_BYTES_MAX;
use crate::message::{RECORD_HEAD_BYTES, Record};

/// Most buffers kept for the next groups.
const SPARE_MAX: usize = 8;

/// Whether tickets are taken, and if not why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// They are.
    Up,
    /// There is no link to RabbitMQ.
    Away,
    /// RabbitMQ takes no messages.
    Blocked,
}

/// The tickets between their arrival and their publishing, and the count of
/// those between their arrival and their answer.
pub struct Intake {
    limits: Limits,
    desks: Desks,
    state: Mutex<State>,
    arrived: Notify,
}

struct State {
    link: Link,
    /// Publishers that can still hand tickets over.
    open: usize,
    /// Messages that wait for their confirms, as the publisher's task last said.
    unsettled: usize,
    /// The publisher's task has been woken and has not yet looked.
    woken: bool,
    /// Tickets and bytes that are not settled, wherever they are.
    tickets: usize,
    bytes: usize,
    /// Groups that nothing can be added to, oldest first.
    sealed: VecDeque<Group>,
    filling: Group,
    spare: Vec<Vec<u8>>,
}

impl Intake {
    /// Empty, and without a link; for so many publishers.
    pub fn new(limits: Limits, desks: Desks, publishers: usize) -> Self {
        let state = State {
            link: Link::Away,
            open: publishers,
            unsettled: 0,
            woken: false,
            tickets: 0,
            bytes: 0,
            sealed: VecDeque::new(),
            filling: Group::default(),
            spare: Vec::new(),
        };
        Self {
            limits,
            desks,
            state: Mutex::new(state),
            arrived: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a ticket that is handed over at this time and whose handler waits
    /// at this desk, or refuses it.
    pub fn submit(
        &self,
        record: Record<'_>,
        now: Instant,
        desk: usize,
    ) -> Result<oneshot::Receiver<Outcome>, Refusal> {
        let mut state = self.state();
        match state.link {
            Link::Up => {}
            Link::Away => return Err(Refusal::Away),
            Link::Blocked => return Err(Refusal::Blocked),
        }
        if state.tickets >= self.limits.inflight || state.bytes >= self.limits.inflight_bytes {
            return Err(Refusal::Overloaded);
        }
        let bytes = RECORD_HEAD_BYTES + record.body.len();
        if state.filling.tickets() > 0 && state.filling.bytes() + bytes > GROUP_BYTES_MAX {
            state.seal();
        }
        state.tickets += 1;
        state.bytes += bytes;
        let outcome = state
            .filling
            .push(record, now + self.limits.confirm_timeout, desk);
        if state.filling.tickets() >= self.limits.group {
            state.seal();
        }
        // The publisher's task may be on another core, where waking it costs
        // a system call: only if it has something to do, and once.
        let wake = !state.woken && state.may_leave();
        state.woken |= wake;
        drop(state);
        if wake {
            self.arrived.notify_one();
        }
        Ok(outcome)
    }

    /// Waits until there is something new.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Whether tickets that come at once could still join those of the next
    /// group, while so many messages wait for their confirms. A lone ticket has
    /// no reason to wait for any.
    pub fn may_be_joined(&self, unsettled: usize) -> bool {
        let mut state = self.state();
        state.unsettled = unsettled;
        state.filling.tickets() > 1 && state.partial_may_leave()
    }

    /// The next group to publish, while so many wait for their confirms.
    pub fn next(&self, unsettled: usize) -> Option<Group> {
        let mut state = self.state();
        state.unsettled = unsettled;
        state.woken = false;
        if state.partial_may_leave() {
            state.seal();
        }
        state.sealed.pop_front()
    }

    /// Takes groups back that are to be published again, the newest first.
    pub fn take_back(&self, groups: impl Iterator<Item = Group>) {
        let mut state = self.state();
        groups.for_each(|group| state.sealed.push_front(group));
    }

    /// Settles a group: all that still wait get this answer.
    pub fn settle(&self, mut group: Group, outcome: Outcome) {
        let (tickets, bytes) = (group.unanswered(), group.bytes());
        group.answer(outcome, &self.desks);
        let mut state = self.state();
        state.tickets -= tickets;
        state.bytes -= bytes;
        if state.spare.len() < SPARE_MAX {
            state.spare.extend(group.into_buffer());
        }
    }

    /// Answers those of a published group whose time is up.
    pub fn answer_late(&self, group: &mut Group, outcome: Outcome, now: Instant) {
        let late = group.answer_late(outcome, now, &self.desks);
        self.state().tickets -= late;
    }

    /// Answers those not yet published whose time is up. A group that nobody
    /// waits for any more is not published at all.
    pub fn expire(&self, outcome: Outcome, now: Instant) {
        let mut state = self.state();
        if state.filling.is_late(now) {
            state.seal();
        }
        let (mut late, mut bytes) = (0, 0);
        state.sealed.retain_mut(|group| {
            late += group.answer_late(outcome, now, &self.desks);
            let kept = group.unanswered() > 0;
            bytes += if kept { 0 } else { group.bytes() };
            kept
        });
        state.tickets -= late;
        state.bytes -= bytes;
    }

    /// Whether tickets are taken, and if not why.
    pub fn link(&self) -> Link {
        self.state().link
    }

    /// Longest for a confirm.
    pub fn confirm_timeout(&self) -> Duration {
        self.limits.confirm_timeout
    }

    /// Says whether tickets are taken, and if not why.
    pub fn set_link(&self, link: Link) {
        self.state().link = link;
    }

    /// One publisher less: after the last one, no more tickets can come.
    pub fn close(&self) {
        self.state().open -= 1;
        self.arrived.notify_one();
    }

    /// No tickets wait to be published, and no more can come.
    pub fn is_finished(&self) -> bool {
        let state = self.state();
        state.open == 0 && state.sealed.is_empty() && state.filling.tickets() == 0
    }

    /// How many tickets are not settled.
    pub fn tickets(&self) -> usize {
        self.state().tickets
    }
}

impl State {
    /// There is a group that may be published.
    fn may_leave(&self) -> bool {
        !self.sealed.is_empty() || self.partial_may_leave()
    }

    /// A group that could still grow leaves when no other waits for its
    /// confirm. It leaves behind a single other too when it holds half of the
    /// tickets: then the next ones gather while the first confirm is under way.
    fn partial_may_leave(&self) -> bool {
        let held = self.filling.tickets();
        self.sealed.is_empty()
            && held > 0
            && match self.unsettled {
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
mod tests {
    use super::*;
    use crate::publisher::replies::{Desk, desks};
    use futures_util::FutureExt;
    use uuid::Uuid;

    const BODY: [u8; 1000] = [b'x'; 1000];

    /// With one publisher, and what serves its desk.
    fn intake_and_desk(group: usize, inflight: usize) -> (Intake, Desk) {
        let limits = Limits {
            group,
            inflight,
            inflight_bytes: 1 << 20,
            confirm_timeout: Duration::from_secs(5),
        };
        let (desks, mut served) = desks(1);
        let intake = Intake::new(limits, desks, 1);
        intake.set_link(Link::Up);
        (intake, served.remove(0))
    }

    fn intake(group: usize, inflight: usize) -> Intake {
        intake_and_desk(group, inflight).0
    }

    fn submit(intake: &Intake) -> Result<oneshot::Receiver<Outcome>, Refusal> {
        submit_body(intake, &BODY)
    }

    fn submit_body(intake: &Intake, body: &[u8]) -> Result<oneshot::Receiver<Outcome>, Refusal> {
        let record = Record {
            id: Uuid::nil(),
            received_at_us: 0,
            body,
        };
        intake.submit(record, Instant::now(), 0)
    }

    #[test]
    fn a_full_group_leaves_and_a_partial_one_waits_for_the_one_before() {
        let intake = intake(2, 100);
        let _waiting: Vec<_> = (0..3).map(|_| submit(&intake).expect("taken")).collect();
        assert_eq!(intake.next(9).map(|group| group.tickets()), Some(2));
        assert!(intake.next(1).is_none());
        assert_eq!(intake.next(0).map(|group| group.tickets()), Some(1));
        assert!(intake.next(0).is_none());
    }

    #[test]
    fn a_partial_group_follows_a_single_other_once_it_holds_half_of_the_tickets() {
        let intake = intake(100, 100);
        let mut waiting: Vec<_> = (0..2).map(|_| submit(&intake).expect("taken")).collect();
        let _published = intake.next(0).expect("a group");
        waiting.push(submit(&intake).expect("taken"));
        assert!(intake.next(1).is_none());
        waiting.push(submit(&intake).expect("taken"));
        assert!(intake.next(2).is_none());
        assert_eq!(intake.next(1).map(|group| group.tickets()), Some(2));
    }

    #[test]
    fn only_a_ticket_with_company_waits_for_more_of_it() {
        let intake = intake(100, 100);
        let mut waiting = vec![submit(&intake).expect("taken")];
        assert!(!intake.may_be_joined(0));
        waiting.push(submit(&intake).expect("taken"));
        assert!(intake.may_be_joined(0));
        assert!(!intake.may_be_joined(2));
    }

    #[test]
    fn the_publisher_is_woken_once_and_only_for_what_may_leave() {
        let intake = intake(2, 100);
        let woken = || intake.arrived().now_or_never().is_some();
        let mut waiting = vec![submit(&intake).expect("taken")];
        assert!(woken(), "nothing else is under way");
        let _published = intake.next(0).expect("a group");
        assert!(intake.next(2).is_none());
        waiting.push(submit(&intake).expect("taken"));
        assert!(!woken(), "two others are under way");
        waiting.push(submit(&intake).expect("taken"));
        assert!(woken(), "a full group");
        waiting.push(submit(&intake).expect("taken"));
        assert!(!woken(), "it has not looked since");
    }

    #[test]
    fn nothing_more_can_come_once_every_publisher_is_gone() {
        let limits = intake(1, 1).limits;
        let intake = Intake::new(limits, desks(2).0, 2);
        intake.close();
        assert!(!intake.is_finished());
        intake.close();
        assert!(intake.is_finished());
    }

    #[test]
    fn a_group_is_bounded_in_bytes() {
        let rest = GROUP_BYTES_MAX - 2 * RECORD_HEAD_BYTES - BODY.len();
        for (more, groups) in [(0, [2, 0]), (1, [1, 1])] {
            let intake = intake(10_000, 10_000);
            let _first = submit(&intake).expect("taken");
            let _second = submit_body(&intake, &vec![b'x'; rest + more]).expect("taken");
            let next = || intake.next(0).map_or(0, |group| group.tickets());
            assert_eq!([next(), next()], groups, "{more} more");
        }
    }

    #[test]
    fn a_ticket_larger_than_a_group_is_one_of_its_own() {
        let intake = intake(10_000, 10_000);
        let _first = submit(&intake).expect("taken");
        let _large = submit_body(&intake, &vec![b'x'; 2 * GROUP_BYTES_MAX]).expect("taken");
        let _last = submit(&intake).expect("taken");
        let groups = std::iter::from_fn(|| intake.next(0));
        assert_eq!(
            groups.map(|group| group.tickets()).collect::<Vec<_>>(),
            [1; 3]
        );
    }

    #[test]
    fn what_is_not_settled_is_bounded_in_bytes_too() {
        let (intake, _desk) = intake_and_desk(10_000, 10_000);
        let most = intake.limits.inflight_bytes;
        let _first =
            submit_body(&intake, &vec![b'x'; most - RECORD_HEAD_BYTES - 1]).expect("taken");
        let _reaches_it = submit(&intake).expect("there was a byte left");
        assert_eq!(submit(&intake).err(), Some(Refusal::Overloaded));
        intake.settle(intake.next(0).expect("the first"), Ok(()));
        assert!(submit(&intake).is_ok());

        let intake = intake_and_desk(10_000, 10_000).0;
        let _reaches_it =
            submit_body(&intake, &vec![b'x'; most - RECORD_HEAD_BYTES]).expect("taken");
        assert_eq!(submit(&intake).err(), Some(Refusal::Overloaded));
    }

    #[test]
    fn few_buffers_are_kept() {
        let intake = intake(1, 100);
        let _waiting: Vec<_> = (0..20).map(|_| submit(&intake).expect("taken")).collect();
        while let Some(group) = intake.next(0) {
            intake.settle(group, Ok(()));
        }
        assert_eq!(intake.state().spare.len(), SPARE_MAX);
    }

    #[tokio::test]
    async fn what_is_not_settled_is_bounded_and_settling_makes_room() {
        let (intake, desk) = intake_and_desk(10, 2);
        let mut waiting: Vec<_> = (0..2).map(|_| submit(&intake).expect("taken")).collect();
        assert_eq!(submit(&intake).err(), Some(Refusal::Overloaded));
        intake.settle(intake.next(0).expect("a group"), Ok(()));
        assert!(submit(&intake).is_ok());
        assert_eq!(intake.tickets(), 1);
        drop(intake);
        desk.serve().await;
        assert_eq!(waiting.remove(0).try_recv(), Ok(Ok(())));
    }

    #[test]
    fn without_a_link_nothing_is_taken() {
        let intake = intake(10, 10);
        for (link, refusal) in [
            (Link::Away, Refusal::Away),
            (Link::Blocked, Refusal::Blocked),
        ] {
            intake.set_link(link);
            assert_eq!(submit(&intake).err(), Some(refusal));
        }
        assert_eq!(intake.tickets(), 0);
    }

    #[tokio::test]
    async fn the_late_are_answered_and_their_group_is_dropped() {
        let (intake, desk) = intake_and_desk(10, 10);
        let mut outcome = submit(&intake).expect("taken");
        intake.expire(Err(Refusal::Deadline), Instant::now());
        assert!(outcome.try_recv().is_err(), "in time");
        intake.expire(
            Err(Refusal::Deadline),
            Instant::now() + Duration::from_secs(6),
        );
        assert!(intake.next(0).is_none());
        assert_eq!((intake.tickets(), intake.state().bytes), (0, 0));
        drop(intake);
        desk.serve().await;
        assert_eq!(outcome.try_recv(), Ok(Err(Refusal::Deadline)));
    }

    #[test]
    fn what_is_taken_back_leaves_first_and_in_its_order() {
        let intake = intake(1, 10);
        let _waiting: Vec<_> = (0..3).map(|_| submit(&intake).expect("taken")).collect();
        let mut taken: Vec<_> = (0..2).filter_map(|_| intake.next(9)).collect();
        let first = taken[0].message().properties.clone();
        intake.take_back(taken.drain(..).rev());
        let again = intake.next(9).expect("a group").message();
        assert_eq!(again.properties, first);
    }
}
