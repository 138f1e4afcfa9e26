//! Bodies all the way to their rows: published, delivered, read and written as COPY data, and read
//! back from there.

use std::collections::BTreeMap;
use std::str::from_utf8;

use ticketd::copy::{ProductRow, Recency};
use ticketd::message::Record;
use ticketd::source::Origin;
use ticketd::ticket::text;
use ticketd::{DeliveredMessage, rows_of};

use super::copy::{self, Row};
use super::{deliver, tickets};
use crate::oracle::{self, Reading};

/// Microseconds from 1970 to 2000, where PostgreSQL's time begins.
const EPOCH_US: i128 = 946_684_800_000_000;

/// The first microsecond of PostgreSQL's calendar, 4714-11-24 BC, before 1970.
const EARLIEST_US: i64 = -210_866_803_200_000_000;

/// Why a ticket of before that is dead.
const TOO_EARLY: &str = "its time of receipt is before 4714 BC, which PostgreSQL cannot hold";

/// What must become of tickets that are stored together, in the order of their ids.
#[derive(Default)]
struct Expected<'a> {
    /// Those that become rows, as the oracle reads them.
    read: Vec<(Record<'a>, Reading)>,
    /// Those that cannot, and why.
    dead: Vec<(Record<'a>, &'static str)>,
}

/// Every column is what was sent, whether tickets share a message or each has its own, and what
/// cannot be a row is kept with its bytes and the reason.
pub fn row(input: &[u8]) {
    let sent = tickets(input);
    let together = [deliver(&sent)];
    let apart: Vec<_> = sent.chunks(1).map(deliver).collect();
    let expected = Expected::of(sent);
    expected.holds(&together);
    expected.holds(&apart);
}

impl<'a> Expected<'a> {
    fn of(mut sent: Vec<Record<'a>>) -> Self {
        sent.sort_by_key(|ticket| ticket.id);
        let mut expected = Self::default();
        for ticket in sent {
            match readable(ticket.body) {
                _ if ticket.received_at_us < EARLIEST_US => {
                    expected.dead.push((ticket, TOO_EARLY));
                }
                Ok(text) => expected.read.push((ticket, oracle::parse(text))),
                Err(why) => expected.dead.push((ticket, why)),
            }
        }
        expected
    }

    /// These messages become that.
    fn holds(&self, messages: &[DeliveredMessage]) {
        let (encoded, products) = rows_of(messages, std::time::Instant::now());
        let dead = encoded.dead.iter();
        let dead = dead.map(|it| (it.ticket_id, it.origin, it.body, it.reason.as_str()));
        let expected = self.dead.iter();
        let expected = expected.map(|(it, why)| (it.id, it.origin, it.body, *why));
        assert!(dead.eq(expected), "{:?}", encoded.dead);

        let rows = copy::rows(&encoded.tickets);
        assert_eq!(rows.len(), self.read.len());
        for (row, (sent, ticket)) in rows.iter().zip(&self.read) {
            is_ticket(row, sent, ticket);
        }
        let read = self.read.iter();
        let valid = read.filter(|(_, it)| it.invalid.is_none()).count();
        let counts = (encoded.valid, encoded.invalid);
        assert_eq!(counts, (valid as u64, (rows.len() - valid) as u64));

        are_products(&products, &self.read);
    }
}

/// The text of a body, or why it cannot be a row; ticketd's own check must say the same.
fn readable(body: &[u8]) -> Result<&str, &'static str> {
    let readable = match from_utf8(body) {
        Ok("") => Err("the ticket is empty"),
        Err(_) => Err("the ticket is not valid UTF-8"),
        Ok(text) if text.contains('\0') => Err("the ticket holds a NUL character"),
        Ok(text) => Ok(text),
    };
    let said = text(body).map_err(|why| why.to_string());
    assert_eq!(said, readable.map_err(str::to_owned));
    readable
}

fn is_ticket(row: &Row<'_>, sent: &Record<'_>, ticket: &Reading) {
    let &[
        id,
        order_id,
        vat,
        total,
        valid,
        reason,
        ticket_text,
        received_at,
        ref origin @ ..,
    ] = row.as_slice()
    else {
        panic!("{} columns", row.len());
    };
    is_origin(origin, &sent.origin);
    assert_eq!(id, Some(sent.id.as_bytes().as_slice()));
    assert_eq!(order_id, ticket.order_id.as_deref().map(str::as_bytes));
    assert_eq!(vat.map(copy::numeric), ticket.vat);
    assert_eq!(total.map(copy::numeric), ticket.total);
    assert_eq!(valid, Some([u8::from(ticket.invalid.is_none())].as_slice()));
    let expected = ticket.invalid;
    let expected = expected.map(|(reason, line)| format!("{}:{line}", reason.code()));
    assert_eq!(reason, expected.as_deref().map(str::as_bytes));
    assert_eq!(ticket_text, Some(sent.body));
    assert_eq!(received_at, Some(time(sent.received_at_us).as_slice()));
}

/// Source and time of issue; rows of tickets that all have neither may leave both out.
fn is_origin(row: &[Option<&[u8]>], sent: &Origin<'_>) {
    let source = sent.source.map(|source| source.as_str().as_bytes());
    let issued_at_us = sent.issued_at_us.filter(|us| *us >= EARLIEST_US);
    let issued_at = issued_at_us.map(time);
    match row {
        [] => assert_eq!(*sent, Origin::default()),
        &[its_source, its_time] => {
            assert_eq!(its_source, source);
            assert_eq!(its_time, issued_at.as_ref().map(<[u8; 8]>::as_slice));
        }
        more => panic!("{} more columns", more.len()),
    }
}

/// A time as PostgreSQL counts it; the smallest number is its -infinity, and no time.
fn time(unix_us: i64) -> [u8; 8] {
    let least = i128::from(i64::MIN) + 1;
    let time = (i128::from(unix_us) - EPOCH_US).max(least);
    i64::try_from(time).unwrap().to_be_bytes()
}

/// One row for each product of the valid tickets, as the newest has it: by time, then by id, then
/// by its line.
fn are_products(rows: &[ProductRow<'_>], read: &[(Record<'_>, Reading)]) {
    let mut newest = BTreeMap::new();
    for (sent, ticket) in read {
        for (line, [name, product_id, price]) in ticket.products.iter().enumerate() {
            let age = (sent.received_at_us, sent.id, line);
            let known = newest
                .entry(product_id.as_str())
                .or_insert((age, name, price));
            if age > known.0 {
                *known = (age, name, price);
            }
        }
    }
    assert_eq!(rows.len(), newest.len());
    for row in rows {
        let ((received_at_us, ticket_id, _), its_name, its_price) =
            newest.remove(&*row.product_id).expect("one row a product");
        assert_eq!(row.name, its_name.as_str());
        assert_eq!(row.price.to_string(), *its_price);
        let recency = Recency {
            received_at_us,
            ticket_id,
        };
        assert_eq!(row.recency, recency);
    }
}
