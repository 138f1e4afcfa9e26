//! What is to be done with each ticket of a batch. Pure.

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::delivery::Message;
use super::known_products::{Changes, KnownProducts};
use crate::copy::{Dead, Encoded, ProductRow, Recency, Rows};
use crate::message::Record;
use crate::parser::parse;
use crate::ticket::text;

/// A row of COPY data takes about this much more than the ticket's text.
const ROW_OVERHEAD_BYTES: usize = 128;

/// Why the second text of a key is dead.
const KEY_REUSED: &str = "the idempotency key was used with another body";

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

/// The tickets of a batch and what is to be done with each, in the order of
/// their ids: two writers that store the same tickets then wait for each other
/// instead of both for ever.
pub struct Plan<'a> {
    records: Vec<Record<'a>>,
    verdicts: Vec<Verdict>,
    /// Ids that may well be stored already, and are asked for first, with their lengths.
    pub suspects: Vec<(Uuid, usize)>,
    /// How long PostgreSQL may take over the rows.
    pub spread: Duration,
}

impl<'a> Plan<'a> {
    /// Everything is to be stored, except what cannot even be read.
    pub fn new(messages: &'a [Message], spread: Duration) -> Self {
        let mut suspects = Vec::new();
        let mut tickets = Vec::new();
        for message in messages {
            for (record, dead) in message.records() {
                // Ids of version 7 are ours, and new with each ticket; others are made from keys.
                if message.redelivered || record.id.get_version_num() != 7 {
                    suspects.push((record.id, record.body.len()));
                }
                let verdict =
                    dead.map_or(Verdict::Store, |reason| Verdict::Dead(reason.to_owned()));
                tickets.push((record, verdict));
            }
        }
        // Stable, so that the first of an id stays the first.
        tickets.sort_by_key(|(record, _)| record.id);
        let (records, verdicts) = tickets.into_iter().unzip();
        Self {
            records,
            verdicts,
            suspects,
            spread,
        }
    }

    /// Reads tickets and writes their rows, in one pass over their bytes, and
    /// gathers what they change of the products.
    pub fn encode(
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
        let mut rows = Rows::new(bytes);
        let (mut changes, mut products) = (known.gather(now), Vec::new());
        for (record, verdict) in records.iter().zip(verdicts) {
            let dead = |reason: String| Dead {
                ticket_id: record.id,
                received_at_us: record.received_at_us,
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
                    rows.ticket(record.id, record.received_at_us, text, &ticket);
                    let recency = Recency {
                        received_at_us: record.received_at_us,
                        ticket_id: record.id,
                    };
                    for product in products.drain(..) {
                        changes.product(recency, product);
                    }
                }
            }
        }
        (rows.finish(), changes.finish())
    }

    /// All of its tickets.
    pub fn all(&self) -> Range<usize> {
        Range {
            start: 0,
            end: self.records.len(),
        }
    }

    /// These tickets.
    pub fn records(&self, range: Range<usize>) -> &[Record<'a>] {
        self.records.get(range).unwrap_or_default()
    }

    /// Their ids, and how many bytes each has.
    pub fn ids(&self, range: Range<usize>) -> Vec<(Uuid, usize)> {
        let records = self.records(range).iter();
        records
            .map(|record| (record.id, record.body.len()))
            .collect()
    }

    /// The first ticket of an id stays. The same text again is a duplicate;
    /// another text is a key used for two tickets. What was thought to be the
    /// first may itself turn out to be the other text. False if nothing changed.
    pub fn settle(&mut self, range: Range<usize>, stored: &HashMap<Uuid, String>) -> bool {
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
            let settled = match before {
                None => Verdict::Store,
                Some(body) if body == record.body => Verdict::Duplicate,
                Some(_) => Verdict::KeyReused,
            };
            if settled == Verdict::Store {
                first = Some(*record);
            }
            changed |= *verdict != settled;
            *verdict = settled;
        }
        changed
    }

    /// The range together with what shares an id with its ends: ids are settled
    /// as a whole.
    pub fn with_whole_ids(&self, range: Range<usize>) -> Range<usize> {
        let same = |a: usize, b: usize| {
            let ids = self.records.get(a).zip(self.records.get(b));
            ids.is_some_and(|(a, b)| a.id == b.id)
        };
        let Range { mut start, mut end } = range;
        while start > 0 && same(start - 1, start) {
            start -= 1;
        }
        while end > 0 && same(end - 1, end) {
            end += 1;
        }
        start..end
    }

    /// Sends a ticket to `dead_tickets`. False if it was not to be stored
    /// anyway, so that it cannot be what PostgreSQL refused.
    pub fn bury(&mut self, at: usize, why: &str) -> bool {
        match self.verdicts.get_mut(at) {
            Some(verdict @ Verdict::Store) => {
                *verdict = Verdict::Dead(why.to_owned());
                true
            }
            _ => false,
        }
    }
}

/// What is stored of these messages if nothing was stored before.
pub fn rows_of(messages: &[Message]) -> (Encoded<'_>, Vec<ProductRow<'_>>) {
    let plan = Plan::new(messages, Duration::ZERO);
    let mut known = KnownProducts::new(Duration::ZERO);
    let (encoded, changes) = plan.encode(plan.all(), &mut known, Instant::now());
    (encoded, changes.rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::BasicProperties;
    use lapin::message::Delivery;

    const FIRST: &str = "018f0000-0000-7000-8000-000000000001";
    const SECOND: &str = "018f0000-0000-7000-8000-000000000002";
    const OF_A_KEY: &str = "018f0000-0000-5000-8000-000000000003";

    fn message(id: &str, body: &str, redelivered: bool) -> Message {
        let data = body.as_bytes().to_vec();
        let mut delivery = Delivery::mock(1, "".into(), "".into(), redelivered, data);
        delivery.properties = BasicProperties::default().with_message_id(id.into());
        Message::new(delivery, 0)
    }

    fn id(text: &str) -> Uuid {
        text.parse().expect("an id")
    }

    fn plan(messages: &[Message]) -> Plan<'_> {
        Plan::new(messages, Duration::ZERO)
    }

    /// How many rows `tickets` gets, and the ids that go to `dead_tickets`.
    fn stored_and_dead(plan: &Plan<'_>) -> (u64, Vec<Uuid>) {
        let mut known = KnownProducts::new(Duration::ZERO);
        let (rows, _) = plan.encode(plan.all(), &mut known, Instant::now());
        let dead = rows.dead.iter().map(|dead| dead.ticket_id).collect();
        (rows.valid + rows.invalid, dead)
    }

    #[test]
    fn tickets_are_in_the_order_of_their_ids() {
        let messages = [message(SECOND, "b", false), message(FIRST, "a", false)];
        let plan = plan(&messages);
        assert_eq!(plan.ids(plan.all()), [(id(FIRST), 1), (id(SECOND), 1)]);
        assert_eq!(stored_and_dead(&plan), (2, vec![]));
    }

    #[test]
    fn redelivered_tickets_and_ids_made_from_keys_are_asked_for_first() {
        let messages = [
            message(FIRST, "a", false),
            message(SECOND, "b", true),
            message(OF_A_KEY, "c", false),
        ];
        assert_eq!(
            plan(&messages).suspects,
            [(id(SECOND), 1), (id(OF_A_KEY), 1)]
        );
    }

    #[test]
    fn what_is_stored_already_is_not_stored_again_and_another_text_is_dead() {
        let messages = [message(FIRST, "a", true), message(SECOND, "b", true)];
        let mut plan = plan(&messages);
        assert!(!plan.settle(plan.all(), &HashMap::new()));
        let stored = HashMap::from([(id(FIRST), "a".into()), (id(SECOND), "other".into())]);
        assert!(plan.settle(plan.all(), &stored));
        assert_eq!(stored_and_dead(&plan), (0, vec![id(SECOND)]));
        assert!(!plan.settle(plan.all(), &stored), "nothing is left");
    }

    #[test]
    fn of_one_id_the_first_text_in_a_batch_is_stored() {
        let texts = ["a", "a", "other"];
        let messages = texts.map(|text| message(OF_A_KEY, text, false));
        let mut plan = plan(&messages);
        assert!(plan.settle(plan.all(), &HashMap::new()));
        assert_eq!(stored_and_dead(&plan), (1, vec![id(OF_A_KEY)]));
    }

    #[test]
    fn the_first_of_a_batch_gives_way_to_what_was_stored_meanwhile() {
        let messages = ["a", "other", "a"].map(|text| message(OF_A_KEY, text, false));
        let mut plan = plan(&messages);
        assert!(plan.settle(plan.all(), &HashMap::new()));
        assert_eq!(stored_and_dead(&plan), (1, vec![id(OF_A_KEY)]));
        let stored = HashMap::from([(id(OF_A_KEY), "other".into())]);
        assert!(plan.settle(plan.all(), &stored));
        let mut known = KnownProducts::new(Duration::ZERO);
        let (rows, _) = plan.encode(plan.all(), &mut known, Instant::now());
        let dead: Vec<_> = rows.dead.iter().map(|dead| dead.body).collect();
        assert_eq!(
            (rows.valid + rows.invalid, dead),
            (0, vec![b"a".as_slice()])
        );
    }

    #[test]
    fn an_id_is_settled_as_a_whole() {
        let messages = [
            message(FIRST, "a", false),
            message(OF_A_KEY, "b", false),
            message(OF_A_KEY, "c", false),
            message(SECOND, "d", false),
        ];
        let plan = plan(&messages);
        let key = id(OF_A_KEY);
        assert_eq!(
            plan.ids(0..4),
            [key, key, id(FIRST), id(SECOND)].map(|id| (id, 1))
        );
        for (range, whole) in [(0..1, 0..2), (1..3, 0..3), (2..3, 2..3), (3..4, 3..4)] {
            assert_eq!(plan.with_whole_ids(range), whole);
        }
    }

    #[test]
    fn a_ticket_is_buried_once() {
        let messages = [message(FIRST, "a", false)];
        let mut plan = plan(&messages);
        assert!(plan.bury(0, "too wide"));
        assert_eq!(stored_and_dead(&plan), (0, vec![id(FIRST)]));
        assert!(!plan.bury(0, "too wide"));
        assert!(!plan.bury(1, "no such ticket"));
    }
}
