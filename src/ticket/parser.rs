//! Reads a ticket: text in, [`Ticket`] and [`Product`]s out, borrowed from the text where possible.
//!
//! The rules stand in [`crate::ticket`]. This is the hot path of the consumer, called once a ticket
//! at flush.
//!
//! # Advice for changing this
//!
//! - The oracle in `tests/support/` says the same in the plainest way. Change the rule there first,
//!   see `tests/parser/` fail, then change it here. Never make one call the other.
//! - A ticket of ordinary lines must not allocate: values are slices of the text, and the vector of
//!   products is the caller's, kept from ticket to ticket. Only a doubled quote costs a `String`.
//! - Lines are not counted while all goes well. Up to the products the reason alone tells the line,
//!   because the first problem counts and each line has its place; a bad product line counts the
//!   line ends behind it.
//! - Each search stops at the byte that ends what is looked at (`\n`, `,`, `"`) and none starts
//!   over, so a hostile ticket costs no more than its length. All three are ASCII, so cuts always
//!   fall between characters.
//! - Measured and no faster: searching commas and line ends together, decimals in one word first.
//! - Sums must never go through the decimal type's own addition, which rounds beyond 96 bits.

use std::borrow::Cow;
use std::ops::Range;

use memchr::{memchr, memchr_iter};
use rust_decimal::Decimal;

use crate::ticket::{CHARACTERS_MAX, Invalid, Product, Reason, Ticket};

use super::decimal::{Sum, decimal};

pub(super) const BYTE_ORDER_MARK: char = '\u{feff}';
const PRODUCT_HEADER: &str = "product,product_id,price";

/// Reads one ticket and decides whether it is valid.
///
/// `products` is emptied first, and is left empty if the ticket is invalid: nothing of it may reach
/// the products' table.
pub fn parse<'a>(text: &'a str, products: &mut Vec<Product<'a>>) -> Ticket<'a> {
    products.clear();
    let mut lines = Lines {
        rest: text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text),
    };
    let mut ticket = read_header(&mut lines);
    if let (None, Some(total)) = (ticket.invalid, ticket.total) {
        ticket.invalid = read_products(text, lines, total, products).err();
    }
    if ticket.invalid.is_some() {
        products.clear();
    }
    ticket
}

/// Reads the three lines with keys; the first problem among them, if any, becomes the ticket's.
fn read_header<'a>(lines: &mut Lines<'a>) -> Ticket<'a> {
    let order = lines
        .value("Order:", &["VAT:", "Total:"])
        .unwrap_or_default();
    let order_id = is_width_ok(order).then_some(order);
    let vat = lines.value("VAT:", &["Total:"]).and_then(decimal);
    let total = lines.value("Total:", &[]).and_then(decimal);
    let invalid = match (order_id, vat, total) {
        (None, ..) if order.is_empty() => Some(Reason::MissingOrder.at(1)),
        (None, ..) => Some(Reason::BadOrder.at(1)),
        (_, None, _) => Some(Reason::BadVat.at(2)),
        (_, _, None) => Some(Reason::BadTotal.at(3)),
        _ => None,
    };
    Ticket {
        order_id,
        vat,
        total,
        invalid,
    }
}

/// Reads all that follows a faultless header, up to the first problem.
fn read_products<'a>(
    text: &'a str,
    mut lines: Lines<'a>,
    total: Decimal,
    products: &mut Vec<Product<'a>>,
) -> Result<(), Invalid> {
    if lines.is_at_end() || !is_blank(lines.next()) {
        return Err(Reason::MissingBlankLine.at(4));
    }
    if trim(lines.next()) != PRODUCT_HEADER {
        return Err(Reason::BadProductHeader.at(5));
    }
    let mut sum = Sum::default();
    while !lines.is_at_end() {
        let line_start = text.len() - lines.rest.len();
        let line = lines.next();
        if is_blank(line) {
            continue;
        }
        let Some(product) = read_product(line) else {
            return Err(Reason::BadProductLine.at(line_number(text, line_start)));
        };
        sum.add(product.price);
        products.push(product);
    }
    if products.is_empty() {
        return Err(Reason::NoProducts.at(6));
    }
    if !sum.equals(total) {
        return Err(Reason::TotalMismatch.at(3));
    }
    Ok(())
}

/// Reads one product line, or `None` if it is not one.
fn read_product(line: &str) -> Option<Product<'_>> {
    let (name, rest) = split_field(line)?;
    let (product_id, rest) = split_field(rest)?;
    let price = read_price(rest)?;
    (is_width_ok(&name) && is_width_ok(&product_id)).then_some(Product {
        name,
        product_id,
        price,
    })
}

/// Where in a line that is no product the first problem is, in bytes: a field, or the whole line where
/// that has not three of them. For people, and off the hot path.
#[cold]
pub(super) fn faulty_field(line: &str) -> Range<usize> {
    let mut rest = line;
    for _ in 0..2 {
        let start = line.len() - rest.len();
        let Some((field, after)) = split_field(rest) else {
            return trimmed(line, 0..line.len());
        };
        if !is_width_ok(&field) {
            return trimmed(line, start..line.len() - after.len() - 1);
        }
        rest = after;
    }
    trimmed(line, line.len() - rest.len()..line.len())
}

/// A part of a text without the blanks around it.
pub(super) fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let part = text.get(range.clone()).unwrap_or_default();
    let start = range.start + (part.len() - trim_start(part).len());
    start..start + trim(part).len()
}

/// Takes a field and the comma after it off the front of a line.
fn split_field(line: &str) -> Option<(Cow<'_, str>, &str)> {
    let line = trim_start(line);
    if let Some(inner) = line.strip_prefix('"') {
        let (field, rest) = split_quoted(inner)?;
        return Some((field, trim_start(rest).strip_prefix(',')?));
    }
    let comma = memchr(b',', line.as_bytes())?;
    let (field, rest) = (line.get(..comma)?, line.get(comma + 1..)?);
    Some((Cow::Borrowed(trim_end(field)), rest))
}

/// Takes a quoted field, whose opening quote is already gone, and its closing quote off the front
/// of a line.
fn split_quoted(inner: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut quotes = memchr_iter(b'"', inner.as_bytes());
    let mut is_doubled = false;
    loop {
        let quote = quotes.next()?;
        let rest = inner.get(quote + 1..)?;
        if !rest.starts_with('"') {
            let field = inner.get(..quote)?;
            let field = if is_doubled {
                field.replace("\"\"", "\"").into()
            } else {
                field.into()
            };
            return Some((field, rest));
        }
        quotes.next();
        is_doubled = true;
    }
}

/// Reads the last field of a line; a stray comma makes it no decimal.
fn read_price(field: &str) -> Option<Decimal> {
    let field = trim(field);
    let Some(inner) = field.strip_prefix('"') else {
        return decimal(field);
    };
    let (price, rest) = split_quoted(inner)?;
    if rest.is_empty() {
        decimal(trim(&price))
    } else {
        None
    }
}

/// The number, from 1, of the line that starts at this byte.
#[cold]
fn line_number(text: &str, line_start: usize) -> u32 {
    let lines_before =
        memchr_iter(b'\n', text.as_bytes().get(..line_start).unwrap_or_default()).count();
    u32::try_from(lines_before + 1).unwrap_or(u32::MAX)
}

/// Whether a value has 1 to 255 characters; most are so short that counting bytes is enough.
fn is_width_ok(value: &str) -> bool {
    !value.is_empty() && (value.len() <= CHARACTERS_MAX || value.chars().count() <= CHARACTERS_MAX)
}

fn is_blank(line: &str) -> bool {
    trim_start(line).is_empty()
}

fn trim(text: &str) -> &str {
    trim_end(trim_start(text))
}

/// Cuts the blanks off the front; byte by byte, which beats decoding characters on so few.
#[inline]
fn trim_start(mut text: &str) -> &str {
    while let [b' ' | b'\t', ..] = text.as_bytes() {
        text = text.get(1..).unwrap_or_default();
    }
    text
}

#[inline]
fn trim_end(mut text: &str) -> &str {
    while let [rest @ .., b' ' | b'\t'] = text.as_bytes() {
        text = text.get(..rest.len()).unwrap_or_default();
    }
    text
}

/// What is left of the text, taken line by line.
struct Lines<'a> {
    rest: &'a str,
}

impl<'a> Lines<'a> {
    fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next line without its end; at the end of the text, empty lines for ever.
    fn next(&mut self) -> &'a str {
        let (line, rest) = split_line(self.rest);
        self.rest = rest;
        line
    }

    /// The value of the line that should stand next, if it does.
    #[inline]
    fn value(&mut self, key: &str, later_keys: &[&str]) -> Option<&'a str> {
        let (line, rest) = split_line(self.rest);
        let Some(value) = line.strip_prefix(key) else {
            self.skip_stand_in(later_keys);
            return None;
        };
        self.rest = rest;
        Some(trim(value))
    }

    /// Skips the line that stands where another should.
    ///
    /// One that is blank or has a later key stays where it is, so that one missing line does not
    /// cost the values after it.
    #[cold]
    fn skip_stand_in(&mut self, later_keys: &[&str]) {
        let (line, rest) = split_line(self.rest);
        if !is_blank(line) && !later_keys.iter().any(|key| line.starts_with(key)) {
            self.rest = rest;
        }
    }
}

/// Cuts a text behind its first line end, and the line end off the line.
pub(super) fn split_line(text: &str) -> (&str, &str) {
    let (line, rest) = match memchr(b'\n', text.as_bytes()) {
        Some(end) => (
            text.get(..end).unwrap_or(text),
            text.get(end + 1..).unwrap_or_default(),
        ),
        None => (text, ""),
    };
    (line.strip_suffix('\r').unwrap_or(line), rest)
}
