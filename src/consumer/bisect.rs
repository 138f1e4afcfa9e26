//! Bisects a batch for the tickets that PostgreSQL refuses, and decides whose fault that is:
//! theirs, or the tables'. Pure.
//!
//! ticketd's own tables refuse nothing that comes this far. A refusal comes from what somebody has
//! changed: a constraint, a trigger, a column made narrower. The SQLSTATE does not tell which
//! tickets that is meant for: 23514 is a check that one ticket breaks or that none meets, 22003 a
//! price of too many digits or a column of too few. What tells is whether the tables accept another
//! ticket. So a ticket is dead-lettered only
//!
//! - if it was refused, another one was stored, and it is refused again; of those that follow each
//!   other without another stored, only [`DEAD_LETTERED_MAX`], and then a copy of a stored ticket
//!   must be accepted first (and is rolled back);
//! - if it came alone, so that there is nothing to compare it with: it is one of the first
//!   [`DEAD_LETTERED_MAX`] in a row, and was not delivered before.
//!
//! And then only if a copy of a stored ticket is accepted right before it in one transaction, in
//! which nobody can alter the tables; a consumer that has stored nothing yet has no such copy.
//!
//! Everything else is held and retried, along with what comes after it: the first ticket that is
//! stored shows whose fault it was. A fault of the tables thus dead-letters next to nothing
//! whenever it begins or ends, and tickets at fault delay the others no longer than until one of
//! those is tried.
//!
//! A ticket that is stored vouches only for those that write no more than it did ([`Kind`]): an
//! invalid one leaves most columns null, and products that are known to be stored already are not
//! written.

use std::ops::Range;

#[cfg(doc)]
use super::evidence::DEAD_LETTERED_MAX;
use super::evidence::{Evidence, Kind};

/// Maximum of tickets that are found to be refused in one search while none of the batch is stored.
/// A fault of the tables is known by then, and to try thousands one by one would only keep
/// PostgreSQL busy; the next search begins elsewhere.
const TRIED_MAX: usize = 32;

/// What to do about a ticket that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnRefusal {
    /// It goes to `dead_tickets`.
    DeadLetter,
    /// First it must be checked whether the tables still accept another one.
    Compare,
    /// Nothing yet: it may not be at fault.
    Wait,
}

/// The search of a batch for the tickets that are refused.
#[derive(Debug)]
pub(super) struct Search {
    /// What is to be tried, the last first.
    ranges: Vec<Range<usize>>,
    /// What was refused one by one and may not be at fault.
    refused: Vec<(usize, Kind)>,
    /// How often tickets of each kind were stored before the first attempt.
    before: [u64; Kind::ALL.len()],
    /// Nothing more is to be learnt from trying now.
    over: bool,
    /// Which kinds had to wait when the last round ended.
    waiting: Vec<Kind>,
    /// The last one that was accepted when it was only tried.
    accepted: Option<usize>,
    /// Why the last one was refused.
    pub reason: String,
}

impl Search {
    /// All of a batch is to be tried, at first as a whole.
    pub(super) fn new(all: Range<usize>, evidence: &Evidence) -> Self {
        Self {
            ranges: vec![all],
            refused: Vec::new(),
            before: Kind::ALL.map(|kind| evidence.times(kind)),
            over: false,
            waiting: Vec::new(),
            accepted: None,
            reason: String::new(),
        }
    }

    /// What to try next. None: all is dealt with, or what is left has to wait.
    pub(super) fn next(&mut self, evidence: &Evidence) -> Option<Range<usize>> {
        if self.over {
            return None;
        }
        if self.ranges.is_empty() {
            let refused = std::mem::take(&mut self.refused);
            let (again, wait): (Vec<_>, Vec<_>) = refused
                .into_iter()
                .partition(|&(_, kind)| self.is_comparable(kind, evidence));
            self.refused = wait;
            self.ranges
                .extend(again.into_iter().map(|(at, _)| only(at)));
        }
        self.ranges.pop()
    }

    /// Whether everything is dealt with.
    pub(super) fn is_done(&self) -> bool {
        self.ranges.is_empty() && self.refused.is_empty()
    }

    /// This has to be retried.
    pub(super) fn retry(&mut self, range: Range<usize>) {
        self.ranges.push(range);
    }

    /// This cannot be stored as it is, and both halves are to be tried.
    pub(super) fn halve(&mut self, range: &Range<usize>) {
        let middle = range.start + range.len() / 2;
        self.ranges.push(middle..range.end);
        self.ranges.push(range.start..middle);
    }

    /// A single ticket is refused. `alone`: it has no other beside it, and did not come before.
    pub(super) fn on_refusal(
        &mut self,
        at: usize,
        kind: Kind,
        alone: bool,
        evidence: &Evidence,
    ) -> OnRefusal {
        let comparable = self.is_comparable(kind, evidence);
        if (comparable || alone) && evidence.try_dead_letter(kind) {
            return OnRefusal::DeadLetter;
        }
        // The products of the others may all have been known.
        if comparable || (kind > Kind::Valid && self.is_comparable(Kind::Valid, evidence)) {
            return OnRefusal::Compare;
        }
        self.refused.push((at, kind));
        self.over = self.refused.len() >= TRIED_MAX;
        OnRefusal::Wait
    }

    /// The tables accept no ticket any more, so this one may not be at fault.
    pub(super) fn wait(&mut self, at: usize, kind: Kind) {
        self.refused.push((at, kind));
        self.over = true;
    }

    /// Records that one that is refused was accepted when it was only tried; true if it was the last
    /// time, too.
    pub(super) fn was_accepted(&mut self, at: usize) -> bool {
        self.accepted.replace(at) == Some(at)
    }

    /// Begins anew with all that is left, in as few pieces as possible and from the `start`th
    /// ticket of it on, the rest after that.
    pub(super) fn restart(&mut self, start: usize) {
        self.over = false;
        let refused = std::mem::take(&mut self.refused);
        self.waiting = refused.iter().map(|&(_, kind)| kind).collect();
        let mut left = std::mem::take(&mut self.ranges);
        left.extend(refused.into_iter().map(|(at, _)| only(at)));
        left.sort_by_key(|range| range.start);
        let mut pieces = joined(left);
        let mut skip = start;
        let at = pieces.iter().position(|piece| {
            let begins_here = skip < piece.len();
            skip -= if begins_here { 0 } else { piece.len() };
            begins_here
        });
        if let Some(at) = at
            && let Some(piece) = pieces.get_mut(at)
        {
            let before = piece.start..piece.start + skip;
            piece.start = before.end;
            pieces.rotate_left(at);
            pieces.extend((!before.is_empty()).then_some(before));
        }
        pieces.reverse();
        self.ranges = pieces;
    }

    /// Whether something was stored meanwhile that those that wait can be compared with.
    pub(super) fn can_continue(&self, evidence: &Evidence) -> bool {
        let mut waiting = self.waiting.iter();
        waiting.any(|&kind| self.is_comparable(kind, evidence))
    }

    /// How many tickets are not dealt with.
    pub(super) fn remaining(&self) -> usize {
        self.ranges
            .iter()
            .map(ExactSizeIterator::len)
            .sum::<usize>()
            + self.refused.len()
    }

    /// Whether a ticket that vouches for this kind was stored since the first attempt.
    fn is_comparable(&self, kind: Kind, evidence: &Evidence) -> bool {
        let mut before = Kind::ALL.iter().zip(self.before);
        before.any(|(&other, before)| other == kind && evidence.times(kind) > before)
    }
}

fn only(at: usize) -> Range<usize> {
    at..at + 1
}

/// Ranges that are sorted, with those that touch made one.
fn joined(ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    let mut joined: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::evidence::DEAD_LETTERED_MAX;
    use Kind::{Invalid, Valid};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// A table, and what becomes of the tickets of one batch that is searched in it for as many
    /// rounds as it takes.
    #[derive(Default)]
    struct Table {
        stored: BTreeSet<usize>,
        dead: BTreeSet<usize>,
        attempts: usize,
    }

    impl Table {
        /// One round. `takes` says which ticket is taken at which attempt.
        fn round(
            &mut self,
            search: &mut Search,
            evidence: &Evidence,
            tickets: usize,
            takes: impl Fn(usize, usize) -> bool,
        ) -> bool {
            while let Some(range) = search.next(evidence) {
                self.attempts += 1;
                let refused = range.clone().any(|at| {
                    assert!(
                        !self.stored.contains(&at),
                        "{at} is tried after it was stored"
                    );
                    !self.dead.contains(&at) && !takes(at, self.attempts)
                });
                if !refused {
                    if range.clone().any(|at| !self.dead.contains(&at)) {
                        evidence.accepted(Valid);
                    }
                    self.stored.extend(range);
                } else if range.len() > 1 {
                    search.halve(&range);
                } else {
                    match search.on_refusal(range.start, Valid, tickets == 1, evidence) {
                        OnRefusal::DeadLetter => {
                            self.dead.insert(range.start);
                            search.retry(range);
                        }
                        OnRefusal::Compare if takes(usize::MAX, self.attempts) => {
                            evidence.accepted(Valid);
                            search.retry(range);
                        }
                        OnRefusal::Compare => search.wait(range.start, Valid),
                        OnRefusal::Wait => {}
                    }
                }
            }
            self.stored.retain(|at| !self.dead.contains(at));
            search.is_done()
        }
    }

    #[test]
    fn the_first_two_that_come_alone_are_dead_lettered_and_the_third_waits() {
        let evidence = Evidence::default();
        let mut dead = Vec::new();
        for _ in 0..4 {
            let (mut table, mut search) = (Table::default(), Search::new(0..1, &evidence));
            let done = table.round(&mut search, &evidence, 1, |_, _| false);
            assert_eq!(done, !table.dead.is_empty());
            dead.push(table.dead.len());
        }
        assert_eq!(dead, [1, 1, 0, 0]);
        evidence.accepted(Invalid);
        let mut search = Search::new(0..1, &evidence);
        assert_eq!(
            search.on_refusal(0, Valid, true, &evidence),
            OnRefusal::Wait
        );
        assert_eq!(
            search.on_refusal(0, Invalid, true, &evidence),
            OnRefusal::DeadLetter
        );
        evidence.accepted(Valid);
        assert_eq!(
            search.on_refusal(0, Valid, true, &evidence),
            OnRefusal::DeadLetter
        );
    }

    #[test]
    fn one_that_was_delivered_before_waits_for_another_to_be_stored() {
        let evidence = Evidence::default();
        let mut search = Search::new(0..1, &evidence);
        assert_eq!(search.next(&evidence), Some(0..1));
        assert_eq!(
            search.on_refusal(0, Valid, false, &evidence),
            OnRefusal::Wait
        );
        assert_eq!((search.next(&evidence), search.is_done()), (None, false));
        evidence.accepted(Valid);
        search.restart(0);
        assert_eq!(search.next(&evidence), Some(0..1));
        assert_eq!(
            search.on_refusal(0, Valid, false, &evidence),
            OnRefusal::DeadLetter
        );
    }

    #[test]
    fn products_are_compared_with_those_of_a_copy_if_other_tickets_wrote_none() {
        let evidence = Evidence::default();
        let mut search = Search::new(0..3, &evidence);
        let products = Kind::Products;
        evidence.accepted(Invalid);
        assert_eq!(
            search.on_refusal(0, products, false, &evidence),
            OnRefusal::Wait
        );
        evidence.accepted(Valid);
        assert_eq!(
            search.on_refusal(1, products, false, &evidence),
            OnRefusal::Compare
        );
        evidence.accepted(products);
        assert_eq!(
            search.on_refusal(1, products, false, &evidence),
            OnRefusal::DeadLetter
        );
    }

    #[test]
    fn a_search_in_a_table_that_refuses_everything_is_short_and_goes_round() {
        const TICKETS: usize = 8192;
        let evidence = Evidence::default();
        let mut search = Search::new(0..TICKETS, &evidence);
        let mut table = Table::default();
        for start in [0, 17, 4096, TICKETS - 1] {
            let before = table.attempts;
            assert!(!table.round(&mut search, &evidence, TICKETS, |_, _| false));
            assert!(table.attempts - before < 3 * TRIED_MAX);
            assert_eq!(search.remaining(), TICKETS);
            search.restart(start);
            assert_eq!(search.ranges.last(), Some(&(start..TICKETS)));
        }
        assert!(table.round(&mut search, &evidence, TICKETS, |_, _| true));
        assert_eq!((table.stored.len(), table.dead.len()), (TICKETS, 0));
    }

    proptest! {
        #[test]
        fn exactly_the_tickets_at_fault_are_dead_lettered(bad in prop::collection::btree_set(0..200_usize, 0..150), tickets in 2..200_usize) {
            let bad: BTreeSet<usize> = bad.into_iter().filter(|&at| at < tickets).collect();
            prop_assume!(bad.len() < tickets);
            let evidence = Evidence::default();
            let mut search = Search::new(0..tickets, &evidence);
            let mut table = Table::default();
            let mut rounds = 0;
            while !table.round(&mut search, &evidence, tickets, |at, _| !bad.contains(&at)) {
                search.restart(rounds * 7 % search.remaining());
                rounds += 1;
                prop_assert!(rounds < 1000);
            }
            prop_assert_eq!(&table.dead, &bad);
            prop_assert_eq!(table.stored.len(), tickets - bad.len());
        }

        #[test]
        fn a_fault_of_the_tables_dead_letters_two_at_most_whenever_it_begins_and_ends(
            bad in prop::collection::btree_set(0..100_usize, 0..50),
            begins in 0..200_usize, lasts in 1..300_usize, start in any::<usize>(),
        ) {
            const TICKETS: usize = 100;
            let evidence = Evidence::default();
            let mut search = Search::new(0..TICKETS, &evidence);
            let mut table = Table::default();
            let takes = |at: usize, attempt: usize| !bad.contains(&at) && !(begins..begins + lasts).contains(&attempt);
            while !table.round(&mut search, &evidence, TICKETS, takes) {
                search.restart(start % search.remaining());
            }
            let wrongly = table.dead.difference(&bad).count();
            prop_assert!(wrongly <= DEAD_LETTERED_MAX as usize, "{} of {:?}", wrongly, table.dead);
            prop_assert_eq!(table.stored.len() + table.dead.len(), TICKETS);
        }
    }
}
