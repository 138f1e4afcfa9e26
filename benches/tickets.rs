//! What one ticket costs on its way, without servers: `cargo bench`.
//!
//! Each bench works through many different tickets, because one that is
//! repeated teaches the branch predictor its answers, and asserts what it
//! found. A ticket is said by its number of products.

use std::hint::black_box;
use std::time::{Duration, Instant};

use divan::Bencher;
use divan::counter::BytesCount;
use ticketd::KnownProducts;
use ticketd::copy::{Recency, Rows};
use ticketd::message::{self, GroupVersion, Record};
use ticketd::source::{Origin, SourceRef};
use ticketd::ticket::{parse, text};
use ticketd_testing::oracle;
use uuid::Uuid;

fn main() {
    divan::main();
}

/// How many different tickets a bench works through.
const TICKETS: usize = 512;

/// Products on a ticket: a lunch, a shopping cart, a wholesale order.
const PRODUCTS: [usize; 3] = [2, 20, 200];

/// What tills send, again and again.
const EXAMPLE: &str = include_str!("../tests/tickets/valid/example.txt");

/// The whole way of the example, nothing else: from the delivery's bytes to its rows.
#[divan::bench(sample_size = 4096)]
fn example(bencher: Bencher<'_, '_>) {
    let (mut lines, mut rows) = (Vec::new(), Rows::new(0, false));
    let mut n = 0;
    bencher.bench_local(|| {
        let text = text(black_box(EXAMPLE.as_bytes())).unwrap_or_default();
        let ticket = parse(text, &mut lines);
        assert!(ticket.invalid.is_none() && lines.len() == 2);
        let of = Recency {
            received_at_us: 0,
            ticket_id: Uuid::from_u128(n),
        };
        rows.ticket(of, Origin::default(), text, &ticket);
        lines.clear();
        n += 1;
        if n.is_multiple_of(4096) {
            rows = Rows::new(4096 * 300, false);
        }
    });
}

fn tickets(products: usize) -> Vec<String> {
    (0..TICKETS).map(|n| ticket(n, products)).collect()
}

fn ticket(n: usize, products: usize) -> String {
    let cents = |line: usize| 100 + (n * 7919 + line * 104_729) % 9_900;
    let total: usize = (0..products).map(cents).sum();
    let money = |cents: usize| format!("{}.{:02}", cents / 100, cents % 100);
    let mut text = format!(
        "Order: {}\nVAT: {}\nTotal: {}\n\nproduct,product_id,price\n",
        100_000 + n * 31,
        money(total / 11),
        money(total)
    );
    for line in 0..products {
        let name = match (n + line) % 4 {
            0 => "Formule(s) midi",
            1 => "Café",
            2 => "Eau 50cl",
            _ => "Tarte aux pommes",
        };
        text.push_str(&format!(
            "{name},P{:04},{}\n",
            (n + line * 17) % 2_000,
            money(cents(line))
        ));
    }
    text
}

fn bytes(tickets: &[String]) -> BytesCount {
    BytesCount::new(tickets.iter().map(String::len).sum::<usize>())
}

/// What is told of tickets that a till with a credential has sent.
fn origin(version: GroupVersion) -> Origin<'static> {
    match version {
        GroupVersion::V1 => Origin::default(),
        GroupVersion::V2 => Origin {
            source: SourceRef::parse(b"shop-0042.till-3").ok(),
            issued_at_us: Some(1_795_777_200_000_000),
        },
    }
}

fn group(version: GroupVersion, tickets: &[String]) -> Vec<u8> {
    let mut group = Vec::new();
    for (n, ticket) in tickets.iter().enumerate() {
        let record = Record {
            id: Uuid::from_u128(n as u128),
            received_at_us: n as i64,
            origin: origin(version),
            body: ticket.as_bytes(),
        };
        message::append(version, &mut group, record);
    }
    group
}

/// What http asks of a body.
#[divan::bench(args = PRODUCTS)]
fn is_text(bencher: Bencher<'_, '_>, products: usize) {
    let tickets = tickets(products);
    bencher.counter(bytes(&tickets)).bench_local(|| {
        let good = tickets
            .iter()
            .filter(|ticket| text(black_box(ticket.as_bytes())).is_ok())
            .count();
        assert_eq!(good, TICKETS);
    });
}

#[divan::bench(args = PRODUCTS)]
fn parse_and_validate(bencher: Bencher<'_, '_>, products: usize) {
    let tickets = tickets(products);
    bencher.counter(bytes(&tickets)).bench_local(|| {
        let (mut lines, mut valid, mut found) = (Vec::new(), 0, 0);
        for ticket in &tickets {
            valid += usize::from(parse(black_box(ticket), &mut lines).invalid.is_none());
            found += lines.len();
        }
        assert_eq!((valid, found), (TICKETS, TICKETS * products));
    });
}

#[divan::bench(args = PRODUCTS)]
fn parse_with_the_oracle(bencher: Bencher<'_, '_>, products: usize) {
    let tickets = tickets(products);
    bencher.counter(bytes(&tickets)).bench_local(|| {
        let valid = tickets
            .iter()
            .filter(|ticket| oracle::parse(black_box(ticket)).invalid.is_none())
            .count();
        assert_eq!(valid, TICKETS);
    });
}

/// All that a batch does before it talks to PostgreSQL.
#[divan::bench(args = PRODUCTS)]
fn parse_validate_and_encode(bencher: Bencher<'_, '_>, products: usize) {
    let tickets = tickets(products);
    let expected: usize = tickets.iter().map(String::len).sum();
    bencher.counter(bytes(&tickets)).bench_local(|| {
        let (mut lines, mut rows) = (Vec::new(), Rows::new(expected + TICKETS * 128, false));
        let mut known = KnownProducts::new(Duration::from_secs(60));
        let mut changes = known.gather(Instant::now());
        for (n, body) in tickets.iter().enumerate() {
            let text = text(black_box(body.as_bytes())).unwrap_or_default();
            let ticket = parse(text, &mut lines);
            let recency = Recency {
                received_at_us: n as i64,
                ticket_id: Uuid::from_u128(n as u128),
            };
            rows.ticket(recency, Origin::default(), text, &ticket);
            for line in lines.drain(..) {
                changes.product(recency, line);
            }
        }
        let (rows, changes) = (rows.finish(), changes.finish());
        assert!(!changes.rows.is_empty());
        assert_eq!((rows.valid, rows.invalid), (TICKETS as u64, 0));
        assert!(rows.tickets.len() > expected);
        rows
    });
}

#[divan::bench(args = PRODUCTS)]
fn encode_group(bencher: Bencher<'_, '_>, products: usize) {
    encode(bencher, GroupVersion::V1, products);
}

/// The same of tickets with a source and a time of issue.
#[divan::bench(args = PRODUCTS)]
fn encode_group_v2(bencher: Bencher<'_, '_>, products: usize) {
    encode(bencher, GroupVersion::V2, products);
}

fn encode(bencher: Bencher<'_, '_>, version: GroupVersion, products: usize) {
    let tickets = tickets(products);
    let expected = group(version, &tickets).len();
    bencher.counter(bytes(&tickets)).bench_local(|| {
        let group = group(version, black_box(&tickets));
        assert_eq!(group.len(), expected);
        group
    });
}

#[divan::bench(args = PRODUCTS)]
fn decode_group(bencher: Bencher<'_, '_>, products: usize) {
    decode(bencher, GroupVersion::V1, products);
}

/// The same of tickets with a source and a time of issue.
#[divan::bench(args = PRODUCTS)]
fn decode_group_v2(bencher: Bencher<'_, '_>, products: usize) {
    decode(bencher, GroupVersion::V2, products);
}

fn decode(bencher: Bencher<'_, '_>, version: GroupVersion, products: usize) {
    let tickets = tickets(products);
    let group = group(version, &tickets);
    let overhead = version.overhead_bytes(&origin(version));
    bencher.counter(bytes(&tickets)).bench_local(|| {
        assert_eq!(message::count(version, black_box(&group)), Ok(TICKETS));
        let bytes: usize = message::records(version, &group)
            .map(|record| record.body.len())
            .sum();
        assert_eq!(bytes + TICKETS * overhead, group.len());
    });
}
