//! Whatever transactions do, the table has each product as its newest ticket has it.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const REFRESH: Duration = Duration::from_secs(60);
const SECOND: i64 = 1_000_000;

/// One product line of a ticket: the product, its price, and the second it was received in.
type Line = (u8, u8, i64);

/// The table, and the rule by which the merge writes to it.
#[derive(Default)]
struct Table(BTreeMap<String, ProductRow<'static>>);

impl Table {
    fn merge(&mut self, rows: &[ProductRow<'_>]) -> HashSet<String> {
        let mut written = HashSet::new();
        for row in rows {
            let known = self.0.get(&*row.product_id);
            if known.is_none_or(|known| known.recency < row.recency) {
                written.insert(row.product_id.clone().into_owned());
                self.0
                    .insert(row.product_id.clone().into_owned(), owned(row));
            }
        }
        written
    }

    fn price(&self, product: u8) -> Option<u32> {
        let row = self.0.get(&id(product))?;
        row.price.to_string().parse().ok()
    }

    fn second(&self, product: u8) -> i64 {
        self.0[&id(product)].recency.received_at_us / SECOND
    }
}

fn owned(row: &ProductRow<'_>) -> ProductRow<'static> {
    ProductRow {
        product_id: row.product_id.clone().into_owned().into(),
        name: row.name.clone().into_owned().into(),
        price: row.price,
        recency: row.recency,
    }
}

fn id(product: u8) -> String {
    format!("p{product}")
}

/// Later seconds have later ids, as tickets do.
fn recency((_, price, second): Line) -> Recency {
    Recency {
        received_at_us: second * SECOND,
        ticket_id: Uuid::from_u128(1000 * second.unsigned_abs() as u128 + u128::from(price)),
    }
}

fn gathered(known: &mut KnownProducts, lines: &[Line], now: Instant) -> Changes<'static> {
    let mut changes = known.gather(now);
    for &line in lines {
        let product = Product {
            name: "a name".into(),
            product_id: id(line.0).into(),
            price: Decimal::from(line.1),
        };
        changes.product(recency(line), product);
    }
    changes.finish()
}

/// Stores a batch; returns how many rows it wrote.
fn store(known: &mut KnownProducts, table: &mut Table, lines: &[Line], now: Instant) -> usize {
    let changes = gathered(known, lines, now);
    let written = table.merge(&changes.rows);
    known.committed(&changes, &written, now);
    changes.rows.len()
}

#[test]
fn a_row_is_written_when_it_changes_and_not_while_it_stays_the_same() {
    let (mut known, mut table, now) = (
        KnownProducts::new(REFRESH),
        Table::default(),
        Instant::now(),
    );
    assert_eq!(store(&mut known, &mut table, &[(1, 5, 0)], now), 1);
    assert_eq!(
        store(&mut known, &mut table, &[(1, 5, 1), (1, 5, 2)], now),
        0
    );
    assert_eq!(store(&mut known, &mut table, &[(1, 6, 3)], now), 1);
    assert_eq!(table.price(1), Some(6));
}

#[test]
fn two_and_two_point_zero_are_different_prices() {
    let (mut known, now) = (KnownProducts::new(REFRESH), Instant::now());
    let mut rows = |price: &str, second| {
        let mut changes = known.gather(now);
        let product = Product {
            name: "a name".into(),
            product_id: "p".into(),
            price: price.parse().unwrap(),
        };
        changes.product(recency((1, 0, second)), product);
        let changes = changes.finish();
        known.committed(&changes, &HashSet::from(["p".to_owned()]), now);
        changes.rows.len()
    };
    assert_eq!([rows("2", 0), rows("2", 1), rows("2.00", 2)], [1, 0, 1]);
}

#[test]
fn a_row_is_confirmed_anew_by_the_clock_and_by_the_time_of_its_tickets() {
    let (mut known, mut table, now) = (
        KnownProducts::new(REFRESH),
        Table::default(),
        Instant::now(),
    );
    store(&mut known, &mut table, &[(1, 5, 0)], now);
    let early = now + REFRESH * 7 / 8 - Duration::from_millis(1);
    assert_eq!(store(&mut known, &mut table, &[(1, 5, 1)], early), 0);
    assert_eq!(
        store(&mut known, &mut table, &[(1, 5, 2)], now + REFRESH),
        1
    );
    assert_eq!(
        store(&mut known, &mut table, &[(1, 5, 62)], now + REFRESH),
        1
    );
    assert_eq!(table.second(1), 62);
}

#[test]
fn without_a_refresh_time_every_batch_writes_its_products() {
    let (mut known, mut table) = (KnownProducts::new(Duration::ZERO), Table::default());
    for second in 0..3 {
        let lines = [(1, 5, second), (2, 5, second)];
        assert_eq!(store(&mut known, &mut table, &lines, Instant::now()), 2);
    }
}

#[test]
fn an_older_ticket_changes_nothing_not_even_after_a_lost_connection() {
    let (mut known, mut table, now) = (
        KnownProducts::new(REFRESH),
        Table::default(),
        Instant::now(),
    );
    store(&mut known, &mut table, &[(1, 5, 0)], now);
    store(&mut known, &mut table, &[(1, 5, 30)], now);
    assert_eq!(store(&mut known, &mut table, &[(1, 6, 20)], now), 0);
    known.disconnected();
    assert_eq!(store(&mut known, &mut table, &[(1, 6, 20)], now), 1);
    assert_eq!((table.price(1), table.second(1)), (Some(5), 30));
}

#[test]
fn a_newer_row_of_another_consumer_is_not_taken_for_ours() {
    let (mut known, mut table, now) = (
        KnownProducts::new(REFRESH),
        Table::default(),
        Instant::now(),
    );
    let (mut other, later) = (KnownProducts::new(REFRESH), [(1, 6, 20)]);
    store(&mut other, &mut table, &later, now);
    store(&mut known, &mut table, &[(1, 5, 10)], now);
    assert_eq!(store(&mut known, &mut table, &[(1, 5, 30)], now), 1);
    assert_eq!(table.price(1), Some(5));
}

#[test]
fn a_ticket_that_is_not_stored_keeps_no_other_from_its_products() {
    let (mut known, mut table, now) = (
        KnownProducts::new(REFRESH),
        Table::default(),
        Instant::now(),
    );
    store(&mut known, &mut table, &[(1, 5, 0)], now);
    let refused = (1, 5, 30);
    let changes = gathered(&mut known, &[refused], now);
    known.failed(&changes);
    known.dismiss(&HashSet::from([recency(refused).ticket_id]));
    store(&mut known, &mut table, &[(1, 6, 20)], now);
    assert_eq!(table.price(1), Some(6));
}

#[test]
fn a_row_that_turns_out_to_be_newer_is_known_no_more() {
    let (mut known, mut table, now) = (
        KnownProducts::new(REFRESH),
        Table::default(),
        Instant::now(),
    );
    store(&mut known, &mut table, &[(1, 5, 0)], now);
    let mut other = KnownProducts::new(REFRESH);
    store(&mut other, &mut table, &[(1, 6, 20)], now);
    assert_eq!(store(&mut known, &mut table, &[(1, 7, 10)], now), 1);
    assert_eq!(store(&mut known, &mut table, &[(1, 5, 30)], now), 1);
    assert_eq!(table.price(1), Some(5));
}

#[test]
fn what_makes_room_is_still_not_replaced_by_an_older_ticket() {
    let mut known = KnownProducts::bounded(REFRESH, 2, TEXT_BYTES_MAX);
    let (mut table, now) = (Table::default(), Instant::now());
    store(&mut known, &mut table, &[(1, 5, 0)], now);
    store(&mut known, &mut table, &[(1, 5, 30)], now);
    store(
        &mut known,
        &mut table,
        &[(2, 5, 31), (3, 5, 31), (4, 5, 31)],
        now,
    );
    store(&mut known, &mut table, &[(1, 6, 20)], now);
    assert_eq!(table.price(1), Some(5));
}

#[test]
fn memory_is_bounded_in_products_and_in_bytes() {
    let now = Instant::now();
    let lines: Vec<Line> = (0..=255).map(|product| (product, 1, 0)).collect();
    for (products_max, text_bytes_max, expected) in
        [(255, 10_000, 255), (256, 10_000, 256), (257, 10_000, 256)]
    {
        let mut known = KnownProducts::bounded(REFRESH, products_max, text_bytes_max);
        store(&mut known, &mut Table::default(), &lines, now);
        assert_eq!(
            (known.entries.len(), known.keys.len()),
            (expected, expected)
        );
    }
    let bytes: usize = lines
        .iter()
        .map(|line| id(line.0).len() + "a name".len())
        .sum();
    for (text_bytes_max, expected) in [(bytes, 256), (bytes - 1, 255)] {
        let mut known = KnownProducts::bounded(REFRESH, 1000, text_bytes_max);
        store(&mut known, &mut Table::default(), &lines, now);
        assert_eq!(known.entries.len(), expected);
        let held: usize = known
            .entries
            .iter()
            .map(|(_, entry)| entry.text.len())
            .sum();
        assert_eq!(known.text_bytes, held);
    }
}

#[test]
fn the_largest_catalogue_that_is_promised_fits() {
    const { assert!(PRODUCTS_MAX >= 100_000 && TEXT_BYTES_MAX >= 100_000 * 510) };
}

/// What happens to an open transaction.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Commit,
    RollBack,
    /// Its connection is lost, before or after the server committed.
    Lost(bool),
}

/// A writer begins a transaction with these lines, or ends the one it is in.
type Step = (usize, Vec<Line>, Fate);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let line = (0..4_u8, 1..3_u8, 0..200_i64);
    let fate = prop_oneof![
        4 => Just(Fate::Commit),
        1 => Just(Fate::RollBack),
        1 => any::<bool>().prop_map(Fate::Lost),
    ];
    prop::collection::vec((0..3_usize, prop::collection::vec(line, 1..4), fate), 1..60)
}

/// Three writers that share what is known, each with the lines it has to store.
struct Writers {
    known: KnownProducts,
    table: Table,
    under_way: [Option<(Vec<Line>, Changes<'static>)>; 3],
    to_repeat: [Vec<Line>; 3],
    all: BTreeSet<Line>,
    now: Instant,
}

impl Writers {
    fn step(&mut self, (writer, lines, fate): Step) {
        self.now += Duration::from_secs(1);
        match self.under_way[writer].take() {
            None => {
                let mut lines = lines;
                // No ticket is sent twice, and one that failed is repeated before another is taken.
                lines.retain(|line| self.all.insert(*line));
                if !self.to_repeat[writer].is_empty() {
                    lines.append(&mut self.to_repeat[writer]);
                }
                let changes = gathered(&mut self.known, &lines, self.now);
                self.under_way[writer] = Some((lines, changes));
            }
            Some((lines, changes)) => self.end(writer, lines, &changes, fate),
        }
    }

    fn end(&mut self, writer: usize, lines: Vec<Line>, changes: &Changes<'_>, fate: Fate) {
        match fate {
            Fate::Commit => {
                let written = self.table.merge(&changes.rows);
                self.known.committed(changes, &written, self.now);
            }
            Fate::RollBack | Fate::Lost(false) => {
                self.known.failed(changes);
                self.to_repeat[writer] = lines;
            }
            Fate::Lost(true) => {
                // Its tickets turn out to be stored, and are not written again.
                self.table.merge(&changes.rows);
                self.known.failed(changes);
            }
        }
        if matches!(fate, Fate::Lost(_)) {
            self.known.disconnected();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_table_has_each_product_as_its_newest_ticket_has_it(
        steps in steps(),
        products_max in 1..5_usize,
        refresh in prop_oneof![Just(0_u64), 1..300_u64],
    ) {
        let mut writers = Writers {
            known: KnownProducts::bounded(Duration::from_secs(refresh), products_max, TEXT_BYTES_MAX),
            table: Table::default(),
            under_way: Default::default(),
            to_repeat: Default::default(),
            all: BTreeSet::new(),
            now: Instant::now(),
        };
        for step in steps {
            writers.step(step);
        }
        while writers.under_way.iter().any(Option::is_some) || writers.to_repeat.iter().any(|lines| !lines.is_empty()) {
            for writer in 0..3 {
                if writers.under_way[writer].is_some() || !writers.to_repeat[writer].is_empty() {
                    writers.step((writer, Vec::new(), Fate::Commit));
                }
            }
        }
        for product in 0..4 {
            let newest = writers.all.iter().filter(|line| line.0 == product).max_by_key(|line| recency(**line));
            let Some(&newest) = newest else { continue };
            prop_assert_eq!(writers.table.price(product), Some(u32::from(newest.1)), "{:?}", newest);
            let behind = newest.2 - writers.table.second(product);
            prop_assert!(behind == 0 || behind < i64::try_from(refresh).unwrap(), "{} s behind", behind);
        }
    }
}
