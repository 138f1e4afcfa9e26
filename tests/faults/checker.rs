//! The verdict: what the ledger says was sent and answered, against what the tables hold.
//!
//! It shares no code with ticketd, and knows of a test only its ledger.

mod facts;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use tokio_postgres::Client;
use uuid::Uuid;

use self::facts::{Facts, Request, Row};
use crate::ledger::{Kind, hash, now_us};
use crate::ticket;

/// How far the clocks of two processes of one machine may seem apart, in µs.
const CLOCK_SLACK_US: u64 = 50_000;

/// Everything in which the tables break the promise, in words. A product's row may be that of a
/// ticket so much older than the newest; nothing where one consumer stayed up.
pub(crate) async fn check(ledger: &Path, sql: &Client, behind: Duration) -> Vec<String> {
    let mut facts = Facts::gather(ledger, sql).await;
    facts.behind_us = i64::try_from(behind.as_micros()).unwrap();
    facts.violations()
}

/// Whether nothing that was answered 202 is still on its way.
pub(crate) async fn is_all_stored(ledger: &Path, sql: &Client) -> bool {
    accepted_is_stored(&Facts::gather(ledger, sql).await).is_empty()
}

/// Each way to break the promise.
const PARTS: [fn(&Facts) -> Vec<String>; 6] = [
    statuses_are_expected,
    accepted_is_stored,
    stored_was_sent,
    dead_had_to_die,
    rows_say_what_their_text_says,
    products_are_the_newest,
];

impl Facts {
    fn violations(&self) -> Vec<String> {
        PARTS.iter().flat_map(|part| part(self)).collect()
    }
}

/// 202 or 503 for what can be stored, 400 for what cannot; nobody hears anything else, except
/// where a slow ticket ran out of time.
fn statuses_are_expected(facts: &Facts) -> Vec<String> {
    let is_expected = |request: &Request| match (request.kind, request.status) {
        (_, None) => true,
        (Kind::Refused, Some(status)) => matches!(status, 400 | 408),
        (_, Some(202)) => request.id.is_some(),
        (_, Some(status)) => matches!(status, 503 | 408),
    };
    let unexpected = facts
        .requests
        .iter()
        .filter(|request| !is_expected(request));
    unexpected
        .map(|request| {
            format!(
                "{:?} ticket {} was answered {:?}",
                request.kind, request.n, request.status
            )
        })
        .collect()
}

/// Every 202 is one row with an equal body, or a row and a dead ticket where two bodies had one key.
fn accepted_is_stored(facts: &Facts) -> Vec<String> {
    let mut stored: HashMap<Uuid, Vec<Uuid>> = HashMap::new();
    for row in &facts.rows {
        stored.entry(row.ticket_id).or_default().push(row.hash);
    }
    let dead: HashSet<_> = facts.dead.iter().copied().collect();
    let mut violations = Vec::new();
    let mut ids: HashMap<&str, Uuid> = HashMap::new();
    for request in facts
        .requests
        .iter()
        .filter(|request| request.status == Some(202))
    {
        let Some(id) = request.id else { continue };
        let Request { n, kind, hash, .. } = request;
        match stored.get(&id).map(Vec::as_slice) {
            Some([one]) if one == hash => {}
            Some([_other]) if request.key.is_some() && dead.contains(&(id, *hash)) => {}
            found => violations.push(format!(
                "{kind:?} ticket {n} was answered 202 as {id}, and stored are {found:?} for {hash}, dead: {}",
                dead.contains(&(id, *hash))
            )),
        }
        if let Some(key) = &request.key
            && *ids.entry(key).or_insert(id) != id
        {
            violations.push(format!("key {key} was given two ids, one of them {id}"));
        }
    }
    violations
}

/// Nothing is stored that was not sent, no ticket twice, and no key twice.
fn stored_was_sent(facts: &Facts) -> Vec<String> {
    let mut requests: HashMap<Uuid, Vec<&Request>> = HashMap::new();
    for request in &facts.requests {
        requests.entry(request.hash).or_default().push(request);
    }
    let (mut ids, mut origins) = (HashSet::new(), HashSet::new());
    let mut violations = Vec::new();
    for row in &facts.rows {
        let Some(sent) = requests.get(&row.hash) else {
            violations.push(format!(
                "{} was never sent: {:.200}",
                row.ticket_id, row.text
            ));
            continue;
        };
        if sent
            .iter()
            .all(|request| matches!(request.kind, Kind::Torn | Kind::Refused))
        {
            violations.push(format!("{} cannot have been taken whole", row.ticket_id));
        }
        if !ids.insert(row.ticket_id) {
            violations.push(format!("id {} is there twice", row.ticket_id));
        }
        // Tickets with a key are one ticket, whatever their bodies.
        let origin = sent[0].key.clone().unwrap_or_else(|| row.hash.to_string());
        if !origins.insert(origin.clone()) {
            violations.push(format!(
                "{origin} is stored more than once, as {} too",
                row.ticket_id
            ));
        }
        let earliest = sent
            .iter()
            .map(|request| request.sent_us)
            .min()
            .unwrap_or(0);
        let latest = sent
            .iter()
            .map(|request| request.ended_us.unwrap_or(u64::MAX))
            .max();
        let received = u64::try_from(row.received_us).unwrap();
        let until = latest
            .unwrap_or(u64::MAX)
            .min(now_us())
            .saturating_add(60_000_000);
        if received + CLOCK_SLACK_US < earliest || received > until {
            violations.push(format!(
                "{} was received at {received}, sent from {earliest} on",
                row.ticket_id
            ));
        }
    }
    violations
}

/// A dead ticket is one whose key another body had before; nothing else here may die.
fn dead_had_to_die(facts: &Facts) -> Vec<String> {
    let stored: HashMap<_, _> = facts
        .rows
        .iter()
        .map(|row| (row.ticket_id, row.hash))
        .collect();
    let mut keys: HashMap<Uuid, &str> = HashMap::new();
    for request in &facts.requests {
        keys.entry(request.hash)
            .or_insert(request.key.as_deref().unwrap_or_default());
    }
    let mut seen = HashSet::new();
    let mut violations = Vec::new();
    for (id, hash) in &facts.dead {
        let key = keys.get(hash).copied().unwrap_or_default();
        let other = stored.get(id).filter(|other| *other != hash);
        let same_key = other.is_some_and(|other| keys.get(other).copied() == Some(key));
        if key.is_empty() || !same_key {
            violations.push(format!(
                "{id} is dead without need: key {key:?}, stored: {other:?}"
            ));
        }
        if !seen.insert((id, hash)) {
            violations.push(format!("{id} is dead twice"));
        }
    }
    violations
}

/// The columns are what the text says.
fn rows_say_what_their_text_says(facts: &Facts) -> Vec<String> {
    let agrees = |row: &Row| match ticket::read(&row.text) {
        Some(read) => {
            row.valid
                && !row.has_reason
                && row.order_id.as_ref() == Some(&read.order_id)
                && row.total.as_ref() == Some(&read.total)
        }
        None => !row.valid && row.has_reason,
    };
    let wrong = facts.rows.iter().filter(|row| !agrees(row));
    wrong
        .map(|row| {
            format!(
                "{} is not what its text says: {:.200}",
                row.ticket_id, row.text
            )
        })
        .collect()
}

/// Each product is what the newest valid ticket says, the later line where a ticket names it twice.
fn products_are_the_newest(facts: &Facts) -> Vec<String> {
    let mut rows: Vec<_> = facts.rows.iter().collect();
    rows.sort_by_key(|row| (row.received_us, row.ticket_id));
    // Of each product what every ticket says, the newest last. Of one ticket the last line counts.
    let mut said: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for (at, row) in rows.into_iter().enumerate() {
        for (name, id, price) in ticket::read(&row.text)
            .into_iter()
            .flat_map(|read| read.products)
        {
            let ticket = (row.received_us, at);
            said.entry(id).or_default().insert(ticket, (name, price));
        }
    }
    let ids: HashSet<_> = said.keys().chain(facts.products.keys()).collect();
    let is_wrong = |id: &&String| {
        let Some((found, said)) = facts.products.get(*id).zip(said.get(*id)) else {
            return true;
        };
        let newest = said.last_key_value();
        let oldest_us = newest.map_or(0, |((received_us, _), _)| received_us - facts.behind_us);
        let mut recent = said.range((oldest_us, 0)..).map(|(_, product)| product);
        let is_newest = newest.is_some_and(|(_, newest)| newest == found);
        let is_recent = facts.behind_us > 0 && recent.any(|product| product == found);
        !is_newest && !is_recent
    };
    let wrong = ids.into_iter().filter(is_wrong);
    wrong
        .map(|id| {
            let newest = said.get(id).and_then(BTreeMap::last_key_value);
            let found = facts.products.get(id);
            format!("product {id} should be {newest:?} and is {found:?}")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Uuid = Uuid::from_u128(1);
    const TEXT: &str = "Order: 1\nVAT: 0.10\nTotal: 1.00\n\nproduct,product_id,price\nTea,T,1.00\n";

    fn request(key: Option<&str>, status: Option<u16>, text: &str) -> Request {
        Request {
            n: 0,
            sent_us: 1_000_000,
            ended_us: Some(2_000_000),
            kind: if key.is_some() {
                Kind::Keyed
            } else {
                Kind::Plain
            },
            key: key.map(str::to_owned),
            hash: hash(text.as_bytes()),
            status,
            id: (status == Some(202)).then_some(ID),
        }
    }

    fn row(id: Uuid, text: &str) -> Row {
        let read = ticket::read(text);
        Row {
            ticket_id: id,
            hash: hash(text.as_bytes()),
            text: text.to_owned(),
            received_us: 1_500_000,
            valid: read.is_some(),
            order_id: read.as_ref().map(|read| read.order_id.clone()),
            total: read.as_ref().map(|read| read.total.clone()),
            has_reason: read.is_none(),
        }
    }

    fn facts(requests: Vec<Request>, rows: Vec<Row>) -> Facts {
        let tea = ("T".to_owned(), ("Tea".to_owned(), "1.00".to_owned()));
        let products = if rows.is_empty() {
            BTreeMap::new()
        } else {
            BTreeMap::from([tea])
        };
        Facts {
            requests,
            rows,
            dead: Vec::new(),
            products,
            behind_us: 0,
        }
    }

    fn verdict(facts: &Facts) -> usize {
        facts.violations().len()
    }

    /// The checker passes what keeps the promise, and sees each way to break it.
    #[test]
    fn every_kind_of_violation_is_seen() {
        let good = || facts(vec![request(None, Some(202), TEXT)], vec![row(ID, TEXT)]);
        assert_eq!(verdict(&good()), 0);
        let unanswered = |rows| facts(vec![request(None, None, TEXT)], rows);
        assert_eq!(
            verdict(&unanswered(vec![])) + verdict(&unanswered(vec![row(ID, TEXT)])),
            0
        );

        let lost = facts(vec![request(None, Some(202), TEXT)], vec![]);
        assert_eq!(verdict(&lost), 1, "a 202 without a row");
        let mut twice = good();
        twice.rows.push(row(Uuid::from_u128(2), TEXT));
        assert_eq!(verdict(&twice), 1, "one ticket under two ids");
        let mut invented = good();
        invented.rows.push(row(Uuid::from_u128(2), "never sent"));
        assert_eq!(verdict(&invented), 1, "a row that nobody sent");
        let mut mangled = good();
        mangled.rows[0].total = Some("1".into());
        assert_eq!(verdict(&mangled), 1, "a column that differs");
        let mut stale = good();
        stale
            .products
            .insert("T".into(), ("Tea".into(), "0.90".into()));
        assert_eq!(verdict(&stale), 1, "a product that is not the newest");
        let mut killed = good();
        killed.dead.push((ID, hash(TEXT.as_bytes())));
        assert_eq!(verdict(&killed), 1, "a duplicate that died");
        let mut odd = good();
        odd.requests[0].status = Some(500);
        assert_eq!(verdict(&odd), 1, "a status that nobody expects");
    }

    /// Where no consumer stayed up, a product may be as an older ticket has it, but not one that is
    /// older than the refresh time, and not as no ticket has it.
    #[test]
    fn a_product_may_be_behind_by_the_refresh_time_only() {
        let behind = |behind_us, price: &str| {
            let older = TEXT.replace("1.00", "0.90");
            let sent = [TEXT, &older].map(|text| request(None, Some(202), text));
            let mut rows = [row(ID, TEXT), row(Uuid::from_u128(2), &older)];
            rows[1].received_us -= 1_000;
            let mut facts = facts(sent.to_vec(), rows.to_vec());
            facts.requests[1].id = Some(Uuid::from_u128(2));
            let product = ("Tea".into(), price.into());
            facts.products.insert("T".into(), product);
            facts.behind_us = behind_us;
            verdict(&facts)
        };
        assert_eq!([behind(0, "1.00"), behind(1_000, "0.90")], [0, 0]);
        assert_eq!(
            [
                behind(0, "0.90"),
                behind(999, "0.90"),
                behind(1_000, "0.80")
            ],
            [1, 1, 1]
        );
    }

    /// Two bodies with one key: one is stored, the other is dead, and both were answered 202.
    #[test]
    fn a_stolen_key_leaves_a_dead_ticket() {
        let sent = || {
            vec![
                request(Some("k"), Some(202), TEXT),
                request(Some("k"), Some(202), "other"),
            ]
        };
        let mut facts = facts(sent(), vec![row(ID, TEXT)]);
        assert_eq!(verdict(&facts), 1, "the other body is nowhere");
        facts.dead.push((ID, hash(b"other")));
        assert_eq!(verdict(&facts), 0);
    }
}
