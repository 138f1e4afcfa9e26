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
use ticketd::message::{self, Record};
use ticketd::ticket::parse;
use ticketd::ticket::text;
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
    let (mut lines, mut rows) = (Vec::new(), Rows::new(0));
    let mut n = 0;
    bencher.bench_local(|| {
        let text = text(black_box(EXAMPLE.as_bytes())).unwrap_or_default();
        let ticket = parse(text, &mut lines);
        assert!(ticket.invalid.is_none() && lines.len() == 2);
        rows.ticket(Uuid::from_u128(n), 0, text, &ticket);
        lines.clear();
        n += 1;
        if n.is_multiple_of(4096) {
            rows = Rows::new(4096 * 300);
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

fn group(tickets: &[String]) -> Vec<u8> {
    let mut group = Vec::new();
    for (n, ticket) in tickets.iter().enumerate() {
        let (id, received_at_us) = (Uuid::from_u128(n as u128), n as i64);
        message::append(
            &mut group,
            Record {
                id,
                received_at_us,
                body: ticket.as_bytes(),
            },
        );
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
        let (mut lines, mut rows) = (Vec::new(), Rows::new(expected + TICKETS * 128));
        let mut known = KnownProducts::new(Duration::from_secs(60));
        let mut changes = known.gather(Instant::now());
        for (n, body) in tickets.iter().enumerate() {
            let text = text(black_box(body.as_bytes())).unwrap_or_default();
            let ticket = parse(text, &mut lines);
            let recency = Recency {
                received_at_us: n as i64,
                ticket_id: Uuid::from_u128(n as u128),
            };
            rows.ticket(recency.ticket_id, recency.received_at_us, text, &ticket);
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
    let tickets = tickets(products);
    let expected = group(&tickets).len();
    bencher.counter(bytes(&tickets)).bench_local(|| {
        let group = group(black_box(&tickets));
        assert_eq!(group.len(), expected);
        group
    });
}

#[divan::bench(args = PRODUCTS)]
fn decode_group(bencher: Bencher<'_, '_>, products: usize) {
    let tickets = tickets(products);
    let group = group(&tickets);
    bencher.counter(bytes(&tickets)).bench_local(|| {
        assert_eq!(message::count(black_box(&group)), Ok(TICKETS));
        let bytes: usize = message::records(&group)
            .map(|record| record.body.len())
            .sum();
        assert_eq!(bytes + TICKETS * message::RECORD_HEAD_BYTES, group.len());
    });
}
