//! Tickets as rows of PostgreSQL's binary COPY. Pure.
//!
//! The format: <https://www.postgresql.org/docs/current/sql-copy.html>, "Binary
//! Format". Columns must come in the order that COPY names them in, with exactly
//! the tables' types.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rust_decimal::Decimal;
use uuid::Uuid;

use crate::source::Origin;
use crate::ticket::Ticket;

/// Signature, no flags, no header extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// A field count of -1 ends the rows.
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();

/// A length of -1 is null.
const NULL: [u8; 4] = (-1_i32).to_be_bytes();

/// What a row of `tickets` begins with: its number of fields.
const TICKET_FIELDS: [u8; 2] = 8_i16.to_be_bytes();

/// The same, where tickets' origins are known.
const TICKET_FIELDS_WITH_ORIGIN: [u8; 2] = 10_i16.to_be_bytes();

/// The fields `valid` and `invalid_reason` of a valid ticket: one byte, true, and null.
const VALID: [u8; 9] = [0, 0, 0, 1, 1, 0xff, 0xff, 0xff, 0xff];

/// PostgreSQL counts time from 2000-01-01, in µs: this many after Unix' epoch.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// The earliest time that PostgreSQL can hold, 4714-11-24 BC, in µs since Unix' epoch. The latest is
/// later than any that fits here.
pub const RECEIVED_AT_MIN_US: i64 = -210_866_803_200_000_000;

/// The columns of `tickets` that are written, in the order in which they are written here.
pub const TICKET_COLUMNS: &str =
    "ticket_id, order_id, vat, total, valid, invalid_reason, ticket_text, received_at";

/// The columns that follow where tickets' origins are known.
pub const ORIGIN_COLUMNS: &str = "source, issued_at";

/// What makes one ticket's word on a product count more than another's: the
/// later time, then the greater id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Recency {
    /// When the ticket was received, in µs since the Unix epoch.
    pub received_at_us: i64,
    /// Its id.
    pub ticket_id: Uuid,
}

/// A row of `products`: a product as one ticket has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductRow<'a> {
    /// The shop's identifier of the product.
    pub product_id: Cow<'a, str>,
    /// Its name.
    pub name: Cow<'a, str>,
    /// Its price.
    pub price: Decimal,
    /// The ticket.
    pub recency: Recency,
}

/// A ticket that cannot be a row of `tickets`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dead<'a> {
    /// Its id.
    pub ticket_id: Uuid,
    /// When it was received, in µs since the Unix epoch.
    pub received_at_us: i64,
    /// What else is known of it.
    pub origin: Origin<'a>,
    /// Why it cannot be stored.
    pub reason: String,
    /// Its bytes as they came.
    pub body: &'a [u8],
}

impl Dead<'_> {
    /// When it was received; none if PostgreSQL cannot hold that time.
    pub fn received_at(&self) -> Option<SystemTime> {
        storable(self.received_at_us)
    }

    /// When it was issued; none if that is not known, or PostgreSQL cannot hold that time.
    pub fn issued_at(&self) -> Option<SystemTime> {
        storable(self.origin.issued_at_us?)
    }
}

/// A time that PostgreSQL can hold.
fn storable(unix_us: i64) -> Option<SystemTime> {
    if unix_us < RECEIVED_AT_MIN_US {
        return None;
    }
    let since = Duration::from_micros(unix_us.unsigned_abs());
    match unix_us {
        0.. => UNIX_EPOCH.checked_add(since),
        _ => UNIX_EPOCH.checked_sub(since),
    }
}

/// Gathers the rows of one transaction.
#[derive(Debug)]
pub struct Rows<'a> {
    tickets: Vec<u8>,
    has_origins: bool,
    valid: u64,
    invalid: u64,
    dead: Vec<Dead<'a>>,
}

/// The rows of one transaction, ready to send, as often as it takes.
#[derive(Debug)]
pub struct Encoded<'a> {
    /// COPY data for `tickets`.
    pub tickets: Bytes,
    /// Whether the rows have [`ORIGIN_COLUMNS`].
    pub has_origins: bool,
    /// How many of its rows are valid tickets.
    pub valid: u64,
    /// How many of its rows are invalid tickets.
    pub invalid: u64,
    /// What goes to `dead_tickets`.
    pub dead: Vec<Dead<'a>>,
}

impl<'a> Rows<'a> {
    /// No rows yet; `bytes` is about how much the tickets will take. Without `has_origins` no ticket
    /// may have one, and the rows are those of tables of before these columns.
    pub fn new(bytes: usize, has_origins: bool) -> Self {
        let mut tickets = Vec::with_capacity(bytes);
        tickets.extend_from_slice(HEADER);
        Self {
            tickets,
            has_origins,
            valid: 0,
            invalid: 0,
            dead: Vec::new(),
        }
    }

    /// Adds a ticket.
    pub fn ticket(&mut self, of: Recency, origin: Origin<'_>, text: &str, ticket: &Ticket<'_>) {
        let out = &mut self.tickets;
        out.extend_from_slice(match self.has_origins {
            true => &TICKET_FIELDS_WITH_ORIGIN,
            false => &TICKET_FIELDS,
        });
        field(out, of.ticket_id.as_bytes());
        optional(out, ticket.order_id, |out, order_id| {
            field(out, order_id.as_bytes());
        });
        optional(out, ticket.vat, numeric);
        optional(out, ticket.total, numeric);
        match ticket.invalid {
            None => out.extend_from_slice(&VALID),
            Some(invalid) => {
                field(out, &[0]);
                field(out, invalid.to_string().as_bytes());
            }
        }
        field(out, text.as_bytes());
        field(out, &timestamp(of.received_at_us));
        if self.has_origins {
            optional(out, origin.source, |out, source| {
                field(out, source.as_str().as_bytes());
            });
            let storable = |us: &i64| *us >= RECEIVED_AT_MIN_US;
            optional(out, origin.issued_at_us.filter(storable), |out, us| {
                field(out, &timestamp(us));
            });
        }

        match ticket.invalid {
            None => self.valid += 1,
            Some(_) => self.invalid += 1,
        }
    }

    /// Adds a ticket that goes to `dead_tickets`, which must take it whatever it is.
    pub fn dead(&mut self, mut dead: Dead<'a>) {
        dead.reason.retain(|character| character != '\0');
        self.dead.push(dead);
    }

    /// Closes the rows.
    pub fn finish(self) -> Encoded<'a> {
        let mut tickets = self.tickets;
        tickets.extend_from_slice(&TRAILER);
        Encoded {
            tickets: tickets.into(),
            has_origins: self.has_origins,
            valid: self.valid,
            invalid: self.invalid,
            dead: self.dead,
        }
    }
}

fn field(out: &mut Vec<u8>, bytes: &[u8]) {
    // A field is part of a message of at most 2 GiB, so its length fits.
    let length = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

fn optional<T>(out: &mut Vec<u8>, value: Option<T>, write: impl FnOnce(&mut Vec<u8>, T)) {
    match value {
        Some(value) => write(out, value),
        None => out.extend_from_slice(&NULL),
    }
}

/// `timestamptz` in binary. A time that PostgreSQL cannot hold stays one, so that it is refused; its
/// smallest number would mean -infinity.
pub fn timestamp(unix_us: i64) -> [u8; 8] {
    unix_us
        .saturating_sub(POSTGRES_EPOCH_US)
        .max(i64::MIN + 1)
        .to_be_bytes()
}

/// The most base-10000 digits of a decimal: of its 29 decimal digits, the point
/// may part a group so that one more begins.
const NUMERIC_DIGITS_MAX: usize = 9;

/// A field of type `numeric`, its length in four bytes first, then its value as
/// PostgreSQL sends it (`numeric_send`): digit count, weight of the first digit,
/// sign, scale, then digits in base 10000, aligned to the point.
pub fn numeric(out: &mut Vec<u8>, value: Decimal) {
    let scale = value.scale() as usize;
    let padding = (4 - scale % 4) % 4;
    let mantissa = value.mantissa().unsigned_abs() * 10_u128.pow(padding as u32);
    let mut digits = [0; NUMERIC_DIGITS_MAX];
    // 64 bits nearly always suffice, and 128-bit division is a function call.
    let count = match u64::try_from(mantissa) {
        Ok(small) => split(small, &mut digits, |rest| {
            (rest / 10_000, (rest % 10_000) as u16)
        }),
        Err(_) => split(mantissa, &mut digits, |rest| {
            (rest / 10_000, (rest % 10_000) as u16)
        }),
    };
    let weight = count as i16 - ((scale + padding) / 4) as i16 - 1;
    let digits = digits.get(..count).unwrap_or_default();
    let zeros = digits.iter().take_while(|&&digit| digit == 0).count();
    let digits = digits.get(zeros..).unwrap_or_default();
    let negative = value.is_sign_negative() && !digits.is_empty();

    let mut head = [0; 12];
    let weight = if digits.is_empty() { 0 } else { weight };
    let sign = if negative { 0x4000_u16 } else { 0 };
    head[..4].copy_from_slice(&(8 + 2 * digits.len() as i32).to_be_bytes());
    head[4..6].copy_from_slice(&(digits.len() as i16).to_be_bytes());
    head[6..8].copy_from_slice(&weight.to_be_bytes());
    head[8..10].copy_from_slice(&sign.to_be_bytes());
    head[10..].copy_from_slice(&(scale as i16).to_be_bytes());
    out.extend_from_slice(&head);
    for digit in digits.iter().rev() {
        out.extend_from_slice(&digit.to_be_bytes());
    }
}

/// Splits into digits of base 10000, the last one first; returns how many.
fn split<T: PartialEq + Default + Copy>(
    mut rest: T,
    digits: &mut [u16],
    divide: impl Fn(T) -> (T, u16),
) -> usize {
    let mut count = 0;
    for digit in digits {
        if rest == T::default() {
            break;
        }
        (rest, *digit) = divide(rest);
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ticket::parse;

    fn encoded_numeric(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        numeric(&mut out, text.parse().expect("a decimal"));
        out
    }

    fn words(words: &[i16]) -> Vec<u8> {
        let mut out = (words.len() as i32 * 2).to_be_bytes().to_vec();
        words.iter().for_each(|word| out.extend(word.to_be_bytes()));
        out
    }

    #[test]
    fn a_dead_ticket_has_the_time_that_postgres_can_hold() {
        let received_at = |received_at_us| {
            let dead = Dead {
                ticket_id: Uuid::nil(),
                received_at_us,
                origin: Origin::default(),
                reason: String::new(),
                body: b"",
            };
            dead.received_at()
        };
        let second = Duration::from_secs(1);
        assert_eq!(received_at(0), Some(UNIX_EPOCH));
        assert_eq!(received_at(-1_000_000), Some(UNIX_EPOCH - second));
        assert_eq!(received_at(1_000_000), Some(UNIX_EPOCH + second));
        assert!(received_at(RECEIVED_AT_MIN_US).is_some());
        assert!(received_at(i64::MAX).is_some());
        assert_eq!(received_at(RECEIVED_AT_MIN_US - 1), None);
        assert_eq!(received_at(i64::MIN), None);
    }

    #[test]
    fn numerics_are_what_postgres_sends() {
        // As numeric_send answers on PostgreSQL 15.
        let cases: &[(&str, &[i16])] = &[
            ("0", &[0, 0, 0, 0]),
            ("0.00", &[0, 0, 0, 2]),
            ("2", &[1, 0, 0, 0, 2]),
            ("2.00", &[1, 0, 0, 2, 2]),
            ("14.90", &[2, 0, 0, 2, 14, 9000]),
            ("-14.90", &[2, 0, 0x4000, 2, 14, 9000]),
            ("10000", &[1, 1, 0, 0, 1]),
            ("0.0001", &[1, -1, 0, 4, 1]),
            ("0.00001", &[1, -2, 0, 5, 1000]),
            ("123456789.123", &[4, 2, 0, 3, 1, 2345, 6789, 1230]),
        ];
        for (text, expected) in cases {
            assert_eq!(encoded_numeric(text), words(expected), "{text}");
        }
    }

    #[test]
    fn the_longest_decimals_keep_every_digit() {
        for scale in 0..=28_u32 {
            let value = Decimal::from_i128_with_scale(9_999_999_999_999_999_999_999_999_999, scale);
            let mut out = Vec::new();
            numeric(&mut out, value);
            let digits: String = out[12..]
                .chunks(2)
                .map(|d| format!("{:04}", u16::from_be_bytes([d[0], d[1]])))
                .collect();
            assert_eq!(digits.matches('9').count(), 28, "scale {scale}");
        }
    }

    fn rows<'a>(tickets: &[(u128, i64, &'a str)]) -> Rows<'a> {
        let mut rows = Rows::new(1000, false);
        for &(id, received_at_us, text) in tickets {
            let ticket = parse(text, &mut Vec::new());
            let ticket_id = Uuid::from_u128(id);
            let of = Recency {
                received_at_us,
                ticket_id,
            };
            rows.ticket(of, Origin::default(), text, &ticket);
        }
        rows
    }

    const CHEAP: &str = "Order: 1\nVAT: 1\nTotal: 1\n\nproduct,product_id,price\nTea,T,1\n";
    #[test]
    fn the_later_ticket_counts_and_of_two_at_the_same_time_the_greater_id() {
        let recency = |received_at_us, id| Recency {
            received_at_us,
            ticket_id: Uuid::from_u128(id),
        };
        assert!(recency(20, 1) > recency(10, 2));
        assert!(recency(10, 2) > recency(10, 1));
    }

    #[test]
    fn rows_are_counted_by_verdict_and_framed() {
        let encoded = rows(&[(1, 10, CHEAP), (2, 20, "nonsense")]).finish();
        assert_eq!((encoded.valid, encoded.invalid), (1, 1));
        assert!(encoded.tickets.starts_with(HEADER) && encoded.tickets.ends_with(&TRAILER));
    }
}
