//! What is known of the rows of `products`, so that only what may change one is written. Pure, no
//! clock of its own.
//!
//! Most tickets sell products at the name and price that their rows already have. Writing those
//! rows with every batch leaves a dead version each time, which nothing can remove while an old
//! snapshot is held (a dump, a report, a stale replication slot), and which every later write has
//! to walk past.
//!
//! A row is written when it is not known, when its name or price changes, or when it was last
//! confirmed longer ago than the refresh time, by the clock or by the times of its tickets. What is
//! known is not always what is stored: a lost connection leaves every row unconfirmed, since the
//! next one may lead to another server and its last COMMIT may have failed or not. The newest
//! ticket of each product is known all the same, and written when the product comes again, so that
//! an older ticket that arrives late never replaces it.

use std::borrow::Cow;
use std::collections::hash_map::Entry as MapEntry;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use rust_decimal::Decimal;
use slab::Slab;
use uuid::Uuid;

use crate::store::{ProductRow, Recency};
use crate::ticket::Product;

/// Maximum of products that are remembered; about 25 MB with texts of the usual lengths.
const PRODUCTS_MAX: usize = 131_072;

/// Maximum of bytes that their ids and names may take together: 512 for each product, and a bound
/// where all of them are of the longest.
const TEXT_BYTES_MAX: usize = PRODUCTS_MAX * 512;

/// A row is refreshed up to one eighth of the refresh time early, by its hash, so that what was
/// first sold together is not refreshed all at once.
const JITTER: i64 = 8;

/// Remembers the rows of `products` as far as they are known.
pub struct KnownProducts {
    refresh_us: i64,
    products_max: usize,
    text_bytes_max: usize,
    hasher: RandomState,
    entries: Slab<Entry>,
    /// The keys of `entries`, by product id.
    keys: HashTable<usize>,
    text_bytes: usize,
    /// Where the next entry that makes room is looked for.
    hand: usize,
    /// Counts lost connections.
    connection: u64,
    /// The products that open transactions write, and how many of these.
    writing: HashMap<Box<str>, u32, RandomState>,
    /// What was forgotten while its row was older than the newest ticket seen.
    owed: HashMap<Box<str>, ProductRow<'static>, RandomState>,
}

/// A product as its row has it.
struct Entry {
    /// The product id, then the name.
    text: Box<str>,
    id_bytes: usize,
    price: Decimal,
    /// The ticket that the row was written for.
    row: Recency,
    /// The newest ticket seen; it has the same name and price.
    newest: Recency,
    confirmed: Instant,
    /// The connection that confirmed it; none if a newer row was met.
    connection: Option<u64>,
    /// It was seen since the hand passed.
    seen: bool,
}

/// The rows of `products` that one transaction writes, at most one a product. [`KnownProducts`]
/// must be given its outcome.
#[derive(Debug)]
pub struct Changes<'a> {
    /// The rows.
    pub rows: Vec<ProductRow<'a>>,
}

/// Gathers the changes of one transaction.
pub struct Gathering<'a, 'k> {
    known: &'k mut KnownProducts,
    now: Instant,
    rows: HashMap<Cow<'a, str>, ProductRow<'a>, RandomState>,
}

impl KnownProducts {
    /// Nothing is known. A row is written again once it was confirmed longer than `refresh` ago;
    /// zero: with every batch.
    pub fn new(refresh: Duration) -> Self {
        Self::bounded(refresh, PRODUCTS_MAX, TEXT_BYTES_MAX)
    }

    fn bounded(refresh: Duration, products_max: usize, text_bytes_max: usize) -> Self {
        Self {
            refresh_us: micros(refresh),
            products_max,
            text_bytes_max,
            hasher: RandomState::default(),
            entries: Slab::new(),
            keys: HashTable::new(),
            text_bytes: 0,
            hand: 0,
            connection: 0,
            writing: HashMap::default(),
            owed: HashMap::default(),
        }
    }

    /// Begins to gather what a transaction has to write.
    pub fn gather<'a>(&mut self, now: Instant) -> Gathering<'a, '_> {
        Gathering {
            known: self,
            now,
            rows: HashMap::default(),
        }
    }

    /// The transaction was committed, and these products' rows are as it wrote them. The other rows
    /// are of newer tickets, from elsewhere.
    pub fn committed(&mut self, changes: &Changes<'_>, written: &HashSet<String>, now: Instant) {
        self.failed(changes);
        for row in &changes.rows {
            let owed = self.owed.get(&*row.product_id);
            if owed.is_some_and(|owed| owed.recency <= row.recency) {
                self.owed.remove(&*row.product_id);
            }
            if written.contains(&*row.product_id) {
                self.confirm(row, now);
            } else if let Some(entry) = self.entry(&row.product_id) {
                entry.connection = None;
            }
        }
    }

    /// The transaction failed. If its outcome is not known, the connection must be reported lost as
    /// well.
    pub fn failed(&mut self, changes: &Changes<'_>) {
        for row in &changes.rows {
            if let Some(transactions) = self.writing.get_mut(&*row.product_id) {
                *transactions -= 1;
                if *transactions == 0 {
                    self.writing.remove(&*row.product_id);
                }
            }
        }
    }

    /// These tickets turn out not to be stored: what they said of products does not count. Newer
    /// tickets than a row's that were seen besides are forgotten with them, until the row is
    /// confirmed anew.
    pub fn dismiss(&mut self, tickets: &HashSet<Uuid>) {
        for (_, entry) in &mut self.entries {
            if tickets.contains(&entry.newest.ticket_id) {
                entry.newest = entry.row;
            }
        }
    }

    /// A connection was lost: every row is to be confirmed anew.
    pub fn disconnected(&mut self) {
        self.connection += 1;
    }

    fn confirm(&mut self, row: &ProductRow<'_>, now: Instant) {
        let confirmed = Entry::new(row, now, Some(self.connection));
        match self.entry(&row.product_id) {
            Some(known) if known.row > row.recency => {}
            Some(known) => {
                let newest = known.newest.max(row.recency);
                let (before, after) = (known.text.len(), confirmed.text.len());
                *known = Entry {
                    newest,
                    ..confirmed
                };
                self.text_bytes = self.text_bytes - before + after;
            }
            None => self.insert(confirmed),
        }
    }

    fn entry(&mut self, product_id: &str) -> Option<&mut Entry> {
        let hash = self.hasher.hash_one(product_id);
        let key = find(&self.keys, &self.entries, hash, product_id)?;
        self.entries.get_mut(key)
    }

    fn insert(&mut self, entry: Entry) {
        self.text_bytes += entry.text.len();
        while self.entries.len() >= self.products_max || self.text_bytes > self.text_bytes_max {
            let Some(key) = self.least_recently_seen() else {
                break;
            };
            self.forget(key);
        }
        let hash = self.hasher.hash_one(entry.product_id());
        let key = self.entries.insert(entry);
        let (hasher, entries) = (&self.hasher, &self.entries);
        self.keys.insert_unique(hash, key, |&key| {
            hasher.hash_one(entries.get(key).map_or("", Entry::product_id))
        });
    }

    /// An entry that was not seen lately, by the clock algorithm; none if there is no entry.
    fn least_recently_seen(&mut self) -> Option<usize> {
        for _ in 0..2 * self.entries.capacity() {
            self.hand = (self.hand + 1) % self.entries.capacity();
            match self.entries.get_mut(self.hand) {
                Some(entry) if entry.seen => entry.seen = false,
                Some(_) => return Some(self.hand),
                None => {}
            }
        }
        None
    }

    fn forget(&mut self, key: usize) {
        let entry = self.entries.remove(key);
        let hash = self.hasher.hash_one(entry.product_id());
        if let Ok(occupied) = self.keys.find_entry(hash, |&other| other == key) {
            occupied.remove();
        }
        self.text_bytes -= entry.text.len();
        if entry.newest > entry.row || entry.connection != Some(self.connection) {
            self.owed.insert(entry.product_id().into(), entry.to_row());
        }
    }
}

impl<'a> Gathering<'a, '_> {
    /// Adds a product of a valid ticket. Of one ticket's lines the last one counts.
    pub fn product(&mut self, recency: Recency, product: Product<'a>) {
        let known = &mut *self.known;
        let hash = known.hasher.hash_one(&*product.product_id);
        let key = find(&known.keys, &known.entries, hash, &product.product_id);
        if let Some(entry) = key.and_then(|key| known.entries.get_mut(key)) {
            entry.seen = true;
            let confirmed = entry.connection == Some(known.connection);
            if recency < entry.newest {
                if !confirmed {
                    let newest = entry.to_row();
                    self.stage(newest);
                }
                return;
            }
            let writing =
                !known.writing.is_empty() && known.writing.contains_key(&*product.product_id);
            if !writing && entry.has(&product) {
                entry.newest = recency;
                let refresh_us = jittered(known.refresh_us, hash);
                let fresh = confirmed && entry.is_fresh(recency, self.now, refresh_us);
                if fresh && (self.rows.is_empty() || !self.rows.contains_key(&product.product_id)) {
                    return;
                }
            }
        }
        self.stage(ProductRow {
            product_id: product.product_id,
            name: product.name,
            price: product.price,
            recency,
        });
    }

    fn stage(&mut self, row: ProductRow<'a>) {
        match self.rows.entry(row.product_id.clone()) {
            MapEntry::Vacant(entry) => {
                entry.insert(row);
            }
            MapEntry::Occupied(mut entry) => {
                if entry.get().recency <= row.recency {
                    entry.insert(row);
                }
            }
        }
    }

    /// What has to be written.
    pub fn finish(mut self) -> Changes<'a> {
        let owed: Vec<_> = self.known.owed.values().cloned().collect();
        owed.into_iter().for_each(|row| self.stage(row));
        for product_id in self.rows.keys() {
            *self.known.writing.entry((**product_id).into()).or_default() += 1;
        }
        Changes {
            rows: self.rows.into_values().collect(),
        }
    }
}

impl Entry {
    fn new(row: &ProductRow<'_>, confirmed: Instant, connection: Option<u64>) -> Self {
        Self {
            text: [&*row.product_id, &*row.name].concat().into(),
            id_bytes: row.product_id.len(),
            price: row.price,
            row: row.recency,
            newest: row.recency,
            confirmed,
            connection,
            seen: true,
        }
    }

    fn product_id(&self) -> &str {
        self.text.get(..self.id_bytes).unwrap_or_default()
    }

    fn name(&self) -> &str {
        self.text.get(self.id_bytes..).unwrap_or_default()
    }

    /// Prices are compared as written: 2 and 2.00 are different texts of one value.
    fn has(&self, product: &Product<'_>) -> bool {
        (self.price, self.price.scale()) == (product.price, product.price.scale())
            && self.name() == product.name
    }

    /// A ticket that has the product as its row has it need not be written.
    fn is_fresh(&self, recency: Recency, now: Instant, refresh_us: i64) -> bool {
        let newer_us = recency
            .received_at_us
            .saturating_sub(self.row.received_at_us);
        newer_us < refresh_us && micros(now.saturating_duration_since(self.confirmed)) < refresh_us
    }

    /// The row as its newest ticket would write it.
    fn to_row(&self) -> ProductRow<'static> {
        ProductRow {
            product_id: self.product_id().to_owned().into(),
            name: self.name().to_owned().into(),
            price: self.price,
            recency: self.newest,
        }
    }
}

fn find(
    keys: &HashTable<usize>,
    entries: &Slab<Entry>,
    hash: u64,
    product_id: &str,
) -> Option<usize> {
    let is_it = |&key: &usize| {
        let entry = entries.get(key);
        entry.is_some_and(|entry| entry.product_id() == product_id)
    };
    keys.find(hash, is_it).copied()
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// The refresh time less up to one eighth.
fn jittered(refresh_us: i64, hash: u64) -> i64 {
    let share = i64::try_from(hash % 1024).unwrap_or(0);
    refresh_us - refresh_us / JITTER / 1024 * share
}

#[cfg(test)]
mod tests;
