//! What is to be done with each ticket of a batch: stored, left out as a duplicate, or
//! dead-lettered. Pure, no clock of its own.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::delivery::{DeliveredMessage, LookUp};
use super::evidence::{Evidence, Kind, Sample};
use super::known_products::{Changes, KnownProducts};
use crate::message::Record;
use crate::store::{Dead, Encoded, ProductRow, RECEIVED_AT_MIN_US, Recency, Rows};
use crate::ticket::parse;
use crate::ticket::text;

/// A row of COPY data takes about this much more than the ticket's text.
const ROW_OVERHEAD_BYTES: usize = 128;

/// Why the second text of a key is dead.
const KEY_REUSED: &str = "the idempotency key was used with another body";

/// Of so many tickets of a transaction copies are kept, to compare refused ones with: enough to
/// have one of each kind soon.
const SAMPLES: usize = 4;

/// Why a ticket is dead that PostgreSQL would refuse for its time. It is not tried, as a refusal
/// means that somebody has changed the tables.
const TOO_EARLY: &str = "its time of receipt is before 4714 BC, which PostgreSQL cannot hold";

/// What is to be done with one ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Store,
    /// It is stored already.
    Duplicate,
    /// Another text has its id, as far as is known: it goes to `dead_tickets`.
    KeyReused,
    /// It goes to `dead_tickets` for this reason.
    Dead(String),
}

/// The tickets of a batch and what is to be done with each, in the order of their ids: two writers
/// that store the same tickets then wait for each other instead of both for ever.
pub(super) struct Plan<'a> {
    records: Vec<Record<'a>>,
    verdicts: Vec<Verdict>,
    /// Where the tickets of each id begin.
    starts: Vec<usize>,
    /// Ids that are probably stored already, with the lengths of their bodies; these are looked up
    /// first.
    pub possible_duplicates: Vec<(Uuid, usize)>,
    /// How long COPY of the rows may be stretched.
    pub pacing: Duration,
    /// Some of them were delivered before.
    redelivered: bool,
}

impl<'a> Plan<'a> {
    /// Everything is to be stored, except what cannot even be read.
    pub(super) fn new(messages: &'a [DeliveredMessage], pacing: Duration) -> Self {
        let mut possible_duplicates = Vec::new();
        let mut tickets = Vec::new();
        for message in messages {
            for (record, dead) in message.records() {
                let may_be_stored = match message.look_up {
                    LookUp::Nothing => false,
                    // Ids of version 7 are new with each ticket, or of keys that seldom come again; what is
                    // there already is found when it is stored. All others are of keys.
                    LookUp::OfKeys => record.id.get_version_num() != 7,
                    LookUp::All => true,
                };
                if may_be_stored {
                    possible_duplicates.push((record.id, record.body.len()));
                }
                let too_early = record.received_at_us < RECEIVED_AT_MIN_US;
                let verdict = match dead.or(too_early.then_some(TOO_EARLY)) {
                    Some(reason) => Verdict::Dead(reason.to_owned()),
                    None => Verdict::Store,
                };
                tickets.push((record, verdict));
            }
        }
        // Stable, so that the first of an id stays the first.
        tickets.sort_by_key(|(record, _)| record.id);
        let (records, verdicts): (Vec<Record<'_>>, _) = tickets.into_iter().unzip();
        Self {
            starts: starts(&records),
            records,
            verdicts,
            possible_duplicates,
            pacing,
            redelivered: messages.iter().any(|message| message.redelivered),
        }
    }

    /// A copy of a stored ticket, under another id.
    pub(super) fn copy_of(sample: &'a Sample, id: Uuid) -> Self {
        let record = Record {
            id,
            received_at_us: sample.received_at_us,
            origin: sample.origin.borrowed(),
            body: &sample.body,
        };
        Self {
            records: vec![record],
            verdicts: vec![Verdict::Store],
            starts: vec![0],
            possible_duplicates: Vec::new(),
            pacing: Duration::ZERO,
            redelivered: false,
        }
    }

    /// Reads tickets and writes their rows, in one pass over their bytes, and gathers what they
    /// change of the products.
    pub(super) fn encode(
        &self,
        range: Range<usize>,
        known: &mut KnownProducts,
        now: Instant,
    ) -> (Encoded<'a>, Changes<'a>) {
        let records = self.records(range.clone());
        let verdicts = self.verdicts.get(range).unwrap_or_default();
        let bytes: usize = records
            .iter()
            .map(|record| record.body.len() + ROW_OVERHEAD_BYTES)
            .sum();
        let has_origins = records.iter().any(|record| record.origin.is_known());
        let mut rows = Rows::new(bytes, has_origins);
        let (mut changes, mut products) = (known.gather(now), Vec::new());
        for (record, verdict) in records.iter().zip(verdicts) {
            let dead = |reason: String| Dead {
                ticket_id: record.id,
                received_at_us: record.received_at_us,
                origin: record.origin,
                reason,
                body: record.body,
            };
            match (verdict, text(record.body)) {
                (Verdict::Duplicate, _) => {}
                (Verdict::KeyReused, _) => rows.dead(dead(KEY_REUSED.into())),
                (Verdict::Dead(reason), _) => rows.dead(dead(reason.clone())),
                (Verdict::Store, Err(why)) => rows.dead(dead(why.to_string())),
                (Verdict::Store, Ok(text)) => {
                    let ticket = parse(text, &mut products);
                    let recency = Recency {
                        received_at_us: record.received_at_us,
                        ticket_id: record.id,
                    };
                    rows.ticket(recency, record.origin, text, &ticket);
                    for product in products.drain(..) {
                        changes.product(recency, product);
                    }
                }
            }
        }
        (rows.finish(), changes.finish())
    }

    /// All of its tickets.
    pub(super) fn all(&self) -> Range<usize> {
        Range {
            start: 0,
            end: self.records.len(),
        }
    }

    /// How many ids its tickets have.
    pub(super) fn ids_len(&self) -> usize {
        self.starts.len()
    }

    /// The tickets of these ids. What shares an id is resolved, and refused, as a whole.
    pub(super) fn tickets_of(&self, ids: &Range<usize>) -> Range<usize> {
        let start = |id: usize| self.starts.get(id).copied();
        let end = self.records.len();
        start(ids.start).unwrap_or(end)..start(ids.end).unwrap_or(end)
    }

    /// These tickets.
    pub(super) fn records(&self, range: Range<usize>) -> &[Record<'a>] {
        self.records.get(range).unwrap_or_default()
    }

    /// Their ids, and how many bytes each has.
    pub(super) fn ids(&self, range: Range<usize>) -> Vec<(Uuid, usize)> {
        let records = self.records(range).iter();
        records
            .map(|record| (record.id, record.body.len()))
            .collect()
    }

    /// Decides between tickets that share an id, given the texts stored under these ids. The first
    /// one stays. The same text again is a duplicate; another text means that a key was used for
    /// two tickets. What was thought to be the first may itself turn out to be the other text.
    /// False if nothing changed.
    pub(super) fn resolve(&mut self, range: Range<usize>, stored: &HashMap<Uuid, String>) -> bool {
        let records = self.records.get(range.clone()).unwrap_or_default();
        let verdicts = self.verdicts.get_mut(range).unwrap_or_default();
        let mut first: Option<Record<'_>> = None;
        let mut changed = false;
        for (record, verdict) in records.iter().zip(verdicts) {
            let open = matches!(verdict, Verdict::Store | Verdict::KeyReused);
            if !open || text(record.body).is_err() {
                continue;
            }
            let before = stored.get(&record.id).map(String::as_bytes);
            let before = before.or(first
                .filter(|first| first.id == record.id)
                .map(|first| first.body));
            let resolved = match before {
                None => Verdict::Store,
                Some(body) if body == record.body => Verdict::Duplicate,
                Some(_) => Verdict::KeyReused,
            };
            if resolved == Verdict::Store {
                first = Some(*record);
            }
            changed |= *verdict != resolved;
            *verdict = resolved;
        }
        changed
    }

    /// What was found to be stored is to be looked up again: the connection was lost, and the server
    /// that is found next may be another one, which does not have it.
    pub(super) fn reopen(&mut self) {
        for (record, verdict) in self.records.iter().zip(&mut self.verdicts) {
            if matches!(verdict, Verdict::Duplicate | Verdict::KeyReused) {
                *verdict = Verdict::Store;
                let asked = (record.id, record.body.len());
                self.possible_duplicates.push(asked);
            }
        }
    }

    /// Whether some of it were found to be stored.
    pub(super) fn has_stored(&self) -> bool {
        let is_stored = |verdict: &Verdict| matches!(verdict, Verdict::Duplicate);
        self.verdicts.iter().any(is_stored)
    }

    /// The ids of those that go to `dead_tickets`.
    pub(super) fn dead(&self, range: Range<usize>) -> HashSet<Uuid> {
        let verdicts = self.verdicts.get(range.clone()).unwrap_or_default();
        let records = self.records(range).iter().zip(verdicts);
        let dead = |verdict: &Verdict| matches!(verdict, Verdict::KeyReused | Verdict::Dead(_));
        records
            .filter(|(_, verdict)| dead(verdict))
            .map(|(record, _)| record.id)
            .collect()
    }

    /// Of these tickets, which have one id, the one that is to be stored, and its kind, its products
    /// aside. If it is refused, it cannot be another.
    pub(super) fn candidate(&mut self, range: Range<usize>) -> Option<(usize, Kind)> {
        let mut candidates = range.clone().filter_map(|at| Some((at, self.kind(at)?)));
        let first = candidates.next();
        if candidates.next().is_some() {
            self.resolve(range, &HashMap::new());
        }
        first
    }

    /// Sends a ticket that was to be stored to `dead_tickets`. Another text of the same id is not
    /// the second one any more, and takes its place.
    pub(super) fn dead_letter(&mut self, at: usize, range: Range<usize>, why: &str) {
        if let Some(verdict) = self.verdicts.get_mut(at) {
            *verdict = Verdict::Dead(why.to_owned());
        }
        self.resolve(range, &HashMap::new());
    }

    /// What kind of ticket this is, its products aside; none if it is not to be stored anyway, so
    /// that it cannot be what the tables refuse.
    pub(super) fn kind(&self, at: usize) -> Option<Kind> {
        let (record, verdict) = self.records.get(at).zip(self.verdicts.get(at))?;
        let text = text(record.body).ok()?;
        (*verdict == Verdict::Store).then(|| match parse(text, &mut Vec::new()).invalid {
            None => Kind::Valid,
            Some(_) => Kind::Invalid,
        })
    }

    /// Records as evidence that these rows are stored, with products or without, and copies of some
    /// of their tickets.
    pub(super) fn record_evidence(
        &self,
        range: Range<usize>,
        rows: &Encoded<'_>,
        with_products: bool,
        evidence: &Evidence,
    ) {
        match (rows.valid, rows.invalid) {
            (1.., _) if with_products => evidence.accepted(Kind::Products),
            (1.., _) => evidence.accepted(Kind::Valid),
            (0, 1..) => evidence.accepted(Kind::Invalid),
            (0, 0) => {}
        }
        for at in range.take(SAMPLES) {
            match (self.kind(at), self.records.get(at)) {
                // Its products are tried along with the copy.
                (Some(Kind::Valid), Some(record)) => evidence.keep(Kind::Products, record),
                (Some(kind), Some(record)) => evidence.keep(kind, record),
                _ => {}
            }
        }
    }

    /// Whether no other ticket of the batch is to be stored, and it was not delivered before.
    pub(super) fn is_alone(&self, at: usize) -> bool {
        let mut others = (0..self.records.len()).filter(|&other| other != at);
        !self.redelivered && !others.any(|other| self.kind(other).is_some())
    }
}

/// Where the tickets of each id begin, of tickets in the order of their ids.
fn starts(records: &[Record<'_>]) -> Vec<usize> {
    let mut starts = Vec::with_capacity(records.len());
    let mut last = None;
    for (at, record) in records.iter().enumerate() {
        if last != Some(record.id) {
            starts.push(at);
            last = Some(record.id);
        }
    }
    starts
}

/// What is stored of these messages at this time, if nothing was stored before.
pub fn rows_of(messages: &[DeliveredMessage], now: Instant) -> (Encoded<'_>, Vec<ProductRow<'_>>) {
    let plan = Plan::new(messages, Duration::ZERO);
    let mut known = KnownProducts::new(Duration::ZERO);
    let (encoded, changes) = plan.encode(plan.all(), &mut known, now);
    (encoded, changes.rows)
}

#[cfg(test)]
mod tests;
