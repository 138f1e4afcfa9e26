//! How much may be under way: all that is allowed while the server takes tickets, and in an outage one
//! ticket after each wait, so that a thousand tills do not keep it down.

use std::time::{Duration, Instant};

use crate::backoff::Backoff;

/// The longest wait for what somebody has to put right, such as a wrong token.
const LASTING_MAX: Duration = Duration::from_secs(30);

/// The first such wait: nothing of that kind is over at once.
const LASTING_MIN: Duration = Duration::from_secs(1);

/// What keeps tickets from being taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It passes by itself; the server may have asked for some time.
    Passing(Option<Duration>),
    /// Somebody has to do something about it.
    Lasting,
}

/// How much may be under way.
#[derive(Debug)]
pub(super) struct Pace {
    inflight_max: usize,
    /// Until when nothing is begun, in an outage.
    held: Option<Instant>,
    /// Whether one ticket is under way to find out whether that is over.
    is_probing: bool,
    /// Counts outages begun, gone on and ended: what was begun before says nothing of now.
    round: u64,
    passing: Backoff,
    lasting: Backoff,
}

impl Pace {
    /// With so many tickets under way at once.
    pub(super) fn new(inflight_max: usize) -> Self {
        Self {
            inflight_max,
            held: None,
            is_probing: false,
            round: 0,
            passing: Backoff::new(),
            lasting: Backoff::up_to(LASTING_MAX),
        }
    }

    /// Whether one more may be begun beside so many.
    pub(super) fn has_room(&self, under_way: usize, now: Instant) -> bool {
        match self.held {
            None => under_way < self.inflight_max,
            Some(until) => !self.is_probing && now >= until,
        }
    }

    /// One more is begun, in this round.
    pub(super) fn begin(&mut self) -> u64 {
        self.is_probing = self.held.is_some();
        self.round
    }

    /// When one may be begun again, in an outage.
    pub(super) fn held_until(&self) -> Option<Instant> {
        self.held.filter(|_until| !self.is_probing)
    }

    /// What was begun in that round came to nothing that says how the server is.
    pub(super) fn idle(&mut self, round: u64) {
        if round == self.round {
            self.is_probing = false;
        }
    }

    /// A ticket that was begun in that round was taken, or rejected. True if an outage ends with it.
    pub(super) fn answered(&mut self, round: u64) -> bool {
        if round != self.round || self.held.is_none() {
            return false;
        }
        self.held = None;
        self.turn();
        self.passing.reset();
        self.lasting.reset();
        true
    }

    /// A ticket that was begun in that round was not taken. True if an outage begins with it.
    pub(super) fn failed(&mut self, round: u64, trouble: Trouble, now: Instant) -> bool {
        let begins = self.held.is_none() && round == self.round;
        let asked = match trouble {
            Trouble::Passing(asked) => asked.unwrap_or_default(),
            Trouble::Lasting => LASTING_MIN,
        };
        if round == self.round {
            let wait = match trouble {
                Trouble::Passing(_) => self.passing.next(),
                Trouble::Lasting => self.lasting.next(),
            };
            self.held = Some(now + wait.max(asked));
            self.turn();
        } else if let Some(until) = &mut self.held {
            *until = (*until).max(now + asked);
        }
        begins
    }

    fn turn(&mut self) {
        self.round += 1;
        self.is_probing = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSING: Trouble = Trouble::Passing(None);

    #[test]
    fn an_outage_lets_one_ticket_through_after_each_wait() {
        let (mut pace, mut now) = (Pace::new(64), Instant::now());
        assert!(pace.has_room(63, now) && !pace.has_room(64, now));
        let rounds: Vec<_> = (0..64).map(|_| pace.begin()).collect();
        assert!(pace.failed(rounds[0], PASSING, now));
        let until = pace.held_until().expect("an outage");
        for round in &rounds[1..] {
            assert!(!pace.failed(*round, PASSING, now));
        }
        assert_eq!(pace.held_until(), Some(until), "one failure of many counts");
        assert!(!pace.has_room(0, now));
        now = until;
        assert!(pace.has_room(0, now));
        let probe = pace.begin();
        assert!(!pace.has_room(0, now) && pace.held_until().is_none());
        assert!(!pace.failed(probe, PASSING, now), "it goes on");
        now = pace.held_until().expect("an outage");
        let probe = pace.begin();
        assert!(pace.answered(probe));
        assert!(pace.has_room(63, now));
    }

    #[test]
    fn what_was_begun_before_does_not_end_an_outage() {
        let (mut pace, now) = (Pace::new(64), Instant::now());
        let (first, second) = (pace.begin(), pace.begin());
        let asked = Duration::from_secs(5);
        pace.failed(first, Trouble::Passing(Some(asked)), now);
        assert!(!pace.answered(second));
        assert_eq!(pace.held_until(), Some(now + asked));
        let longer = Trouble::Passing(Some(2 * asked));
        assert!(!pace.failed(second, longer, now));
        assert_eq!(pace.held_until(), Some(now + 2 * asked));
    }

    #[test]
    fn what_somebody_has_to_put_right_is_waited_for_longer() {
        let (mut pace, mut now) = (Pace::new(64), Instant::now());
        for _ in 0..20 {
            let round = pace.begin();
            pace.failed(round, Trouble::Lasting, now);
            let until = pace.held_until().expect("an outage");
            assert!((LASTING_MIN..=LASTING_MAX).contains(&(until - now)));
            now = until;
        }
        let round = pace.begin();
        pace.failed(round, Trouble::Lasting, now);
        let until = pace.held_until().expect("an outage");
        assert!(until - now >= LASTING_MAX / 2);
    }

    #[test]
    fn a_probe_that_says_nothing_is_followed_by_another() {
        let (mut pace, now) = (Pace::new(64), Instant::now());
        let round = pace.begin();
        pace.failed(round, PASSING, now);
        let later = pace.held_until().expect("an outage");
        let probe = pace.begin();
        pace.idle(probe);
        assert!(pace.has_room(0, later));
    }
}
