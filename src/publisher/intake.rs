//! Where handlers put tickets and the publisher's task takes groups from. Only
//! ever locked for the copy of one ticket, and by one worker.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, oneshot};

use super::group::Group;
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
    state: Mutex<State>,
    arrived: Notify,
}

struct State {
    link: Link,
    closed: bool,
    /// Tickets and bytes that are not settled, wherever they are.
    tickets: usize,
    bytes: usize,
    /// Groups that nothing can be added to, oldest first.
    sealed: VecDeque<Group>,
    filling: Group,
    spare: Vec<Vec<u8>>,
}

impl Intake {
    /// Empty, and without a link.
    pub fn new(limits: Limits) -> Self {
        let state = State {
            link: Link::Away,
            closed: false,
            tickets: 0,
            bytes: 0,
            sealed: VecDeque::new(),
            filling: Group::default(),
            spare: Vec::new(),
        };
        Self {
            limits,
            state: Mutex::new(state),
            arrived: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a ticket that arrived at this time, or refuses it.
    pub fn submit(
        &self,
        record: Record<'_>,
        arrived: Instant,
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
            .push(record, arrived + self.limits.confirm_timeout);
        let first = state.filling.tickets() == 1;
        let half = state.filling.tickets() * 2 == state.tickets;
        let full = state.filling.tickets() >= self.limits.group;
        if full {
            state.seal();
        }
        drop(state);
        if first || half || full {
            self.arrived.notify_one();
        }
        Ok(outcome)
    }

    /// Waits until there is something new.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Whether tickets that come at once could still join those of the next
    /// group. A lone ticket has no reason to wait for any.
    pub fn may_be_joined(&self, unsettled: usize) -> bool {
        let state = self.state();
        state.filling.tickets() > 1 && state.partial_may_leave(unsettled)
    }

    /// The next group to publish, while so many wait for their confirms.
    pub fn next(&self, unsettled: usize) -> Option<Group> {
        let mut state = self.state();
        if state.partial_may_leave(unsettled) {
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
        group.answer(outcome);
        let mut state = self.state();
        state.tickets -= tickets;
        state.bytes -= bytes;
        if state.spare.len() < SPARE_MAX {
            state.spare.extend(group.into_buffer());
        }
    }

    /// Answers those of a published group whose time is up.
    pub fn answer_late(&self, group: &mut Group, outcome: Outcome, now: Instant) {
        let late = group.answer_late(outcome, now);
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
            late += group.answer_late(outcome, now);
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

    /// Says whether tickets are taken, and if not why.
    pub fn set_link(&self, link: Link) {
        self.state().link = link;
    }

    /// No more tickets can come.
    pub fn close(&self) {
        self.state().closed = true;
        self.arrived.notify_one();
    }

    /// No tickets wait to be published, and no more can come.
    pub fn is_finished(&self) -> bool {
        let state = self.state();
        state.closed && state.sealed.is_empty() && state.filling.tickets() == 0
    }

    /// How many tickets are not settled.
    pub fn tickets(&self) -> usize {
        self.state().tickets
    }
}

impl State {
    /// A group that could still grow leaves when no other waits for its
    /// confirm. It leaves behind a single other too when it holds half of the
    /// tickets: then the next ones gather while the first confirm is under way.
    fn partial_may_leave(&self, unsettled: usize) -> bool {
        let held = self.filling.tickets();
        self.sealed.is_empty()
            && held > 0
            && match unsettled {
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
    use std::time::Duration;
    use uuid::Uuid;

    const BODY: [u8; 1000] = [b'x'; 1000];

    fn intake(group: usize, inflight: usize) -> Intake {
        let limits = Limits {
            group,
            inflight,
            inflight_bytes: 1 << 20,
            confirm_timeout: Duration::from_secs(5),
        };
        let intake = Intake::new(limits);
        intake.set_link(Link::Up);
        intake
    }

    fn submit(intake: &Intake) -> Result<oneshot::Receiver<Outcome>, Refusal> {
        let record = Record {
            id: Uuid::nil(),
            received_at_us: 0,
            body: &BODY,
        };
        intake.submit(record, Instant::now())
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
    fn a_group_is_bounded_in_bytes() {
        let intake = intake(10_000, 10_000);
        let _waiting: Vec<_> = (0..300).map(|_| submit(&intake).expect("taken")).collect();
        let first = intake.next(9).expect("a full group");
        assert!(first.bytes() <= GROUP_BYTES_MAX && first.bytes() > GROUP_BYTES_MAX - 2000);
    }

    #[test]
    fn what_is_not_settled_is_bounded_and_settling_makes_room() {
        let intake = intake(10, 2);
        let mut waiting: Vec<_> = (0..2).map(|_| submit(&intake).expect("taken")).collect();
        assert_eq!(submit(&intake).err(), Some(Refusal::Overloaded));
        intake.settle(intake.next(0).expect("a group"), Ok(()));
        assert_eq!(waiting.remove(0).try_recv(), Ok(Ok(())));
        assert!(submit(&intake).is_ok());
        assert_eq!(intake.tickets(), 1);
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

    #[test]
    fn the_late_are_answered_and_their_group_is_dropped() {
        let intake = intake(10, 10);
        let mut outcome = submit(&intake).expect("taken");
        intake.expire(Err(Refusal::Deadline), Instant::now());
        assert!(outcome.try_recv().is_err(), "in time");
        intake.expire(
            Err(Refusal::Deadline),
            Instant::now() + Duration::from_secs(6),
        );
        assert_eq!(outcome.try_recv(), Ok(Err(Refusal::Deadline)));
        assert!(intake.next(0).is_none());
        assert_eq!((intake.tickets(), intake.state().bytes), (0, 0));
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
