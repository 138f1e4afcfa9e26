//! What a valid ticket is: the rules, the limits, the reasons for refusal, and the types that carry
//! a read ticket.
//!
//! The parser applies these rules and nothing else does; `http` uses [`text`] alone, because a body
//! that is not text can never be stored, while an invalid ticket can and is.
//!
//! # Lines
//!
//! A byte order mark at the start is ignored. A line ends in LF or CRLF: one CR before the LF, or
//! at the very end of the text, belongs to the line end; any other CR is an ordinary character.
//! Blanks are space and tab, and a line of nothing but blanks is blank. What follows the last line
//! end is a line only if it holds something.
//!
//! 1. `Order:` and the id, 1 to 255 characters.
//! 2. `VAT:` and a decimal.
//! 3. `Total:` and a decimal.
//! 4. A blank line.
//! 5. `product,product_id,price`; blanks around it are tolerated.
//! 6. One product a line, at least one; blank lines between and after them are skipped.
//!
//! Keys are case-sensitive and start their line; blanks around a value are trimmed, and none is
//! needed after the colon. Characters are Unicode scalar values, as PostgreSQL counts them.
//!
//! # Products
//!
//! A product line is exactly three fields between commas: a name and a product id of 1 to 255
//! characters, and a decimal price. Blanks around a field are trimmed. A field whose first
//! non-blank character is `"` is quoted as in RFC 4180: it may hold commas, `""` stands for one
//! quote, its blanks are kept, and only blanks may follow its closing quote. It ends on the line it
//! began. A quote anywhere else is an ordinary character, since tills print `40" screen`. Blanks
//! around a price do not count inside its quotes either.
//!
//! # Decimals
//!
//! `-?digits[.digits]`, in ASCII: no plus sign, no bare point, no exponent, no separators. At most
//! 28 digits after the leading zeros, and at most 28 of them after the point. The scale is kept as
//! written, so `2.00` stays `2.00`; minus zero is zero.
//!
//! # Verdict
//!
//! A ticket is valid if it follows all of this and its prices add up to its total exactly. The
//! first problem found, from the top, is the reason for refusal. An invalid ticket still keeps
//! whichever of order id, VAT and total were read. For that, where a header line is missing, a line
//! that is blank or carries the key of a later header is left for the next one to look at; any
//! other line counts as standing in its place.

mod decimal;
mod diagnosis;
mod parser;
mod split;

pub use diagnosis::Diagnosis;
pub use parser::parse;
pub use split::{SplitError, SplitTicket, TicketSplitter};

use std::borrow::Cow;
use std::fmt;

use memchr::memchr;
use rust_decimal::Decimal;

/// The most characters of an order id, a product's name or a product id: the width of their
/// columns.
pub const CHARACTERS_MAX: usize = 255;

/// The most digits of a decimal, leading zeros aside: as many as always fit into 96 bits.
pub const DECIMAL_DIGITS_MAX: u32 = 28;

/// The most digits of a decimal after its point: the largest scale of the decimal type.
pub const DECIMAL_SCALE_MAX: u32 = 28;

const _: () = assert!(DECIMAL_SCALE_MAX <= Decimal::MAX_SCALE);
const _: () = assert!(10u128.pow(DECIMAL_DIGITS_MAX) <= 1 << 96);

/// A ticket as read: what it says of itself, and why it is invalid if it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket<'a> {
    /// The till's own number for the ticket.
    pub order_id: Option<&'a str>,
    /// The value added tax.
    pub vat: Option<Decimal>,
    /// What was paid.
    pub total: Option<Decimal>,
    /// Why the ticket is invalid; a ticket without a reason is valid, and then all of the above are
    /// there.
    pub invalid: Option<Invalid>,
}

/// One product line of a valid ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product<'a> {
    /// The name printed on the receipt; owned only where doubled quotes had to be undone.
    pub name: Cow<'a, str>,
    /// The shop's identifier of the product; owned only where doubled quotes had to be undone.
    pub product_id: Cow<'a, str>,
    /// The price of the line; negative on a discount.
    pub price: Decimal,
}

/// Why a ticket is invalid and where; shown as `bad_vat:2`, which is what the database holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// What is wrong.
    pub reason: Reason,
    /// The line, from 1; if the text ends too early, the one where the missing line would stand.
    pub line: u32,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.reason.code(), self.line)
    }
}

/// What can be wrong with a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There is no `Order:` line, or it is empty.
    MissingOrder,
    /// The order id is too long.
    BadOrder,
    /// There is no `VAT:` line, or its value is not a decimal.
    BadVat,
    /// There is no `Total:` line, or its value is not a decimal.
    BadTotal,
    /// The line after the total is not blank.
    MissingBlankLine,
    /// The products have no heading.
    BadProductHeader,
    /// No product follows the heading.
    NoProducts,
    /// A product line is not a name, a product id and a price.
    BadProductLine,
    /// The prices do not add up to the total.
    TotalMismatch,
}

impl Reason {
    /// Every reason, in the order in which a ticket is examined.
    pub const ALL: [Self; 9] = [
        Self::MissingOrder,
        Self::BadOrder,
        Self::BadVat,
        Self::BadTotal,
        Self::MissingBlankLine,
        Self::BadProductHeader,
        Self::NoProducts,
        Self::BadProductLine,
        Self::TotalMismatch,
    ];

    /// The verdict that this is wrong on that line.
    #[must_use]
    pub const fn at(self, line: u32) -> Invalid {
        Invalid { reason: self, line }
    }

    /// The short name under which the reason is stored; it never changes, since queries rely on it.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::MissingOrder => "missing_order",
            Self::BadOrder => "bad_order",
            Self::BadVat => "bad_vat",
            Self::BadTotal => "bad_total",
            Self::MissingBlankLine => "missing_blank_line",
            Self::BadProductHeader => "bad_product_header",
            Self::NoProducts => "no_products",
            Self::BadProductLine => "bad_product_line",
            Self::TotalMismatch => "total_mismatch",
        }
    }

    /// What is wrong and what would be right, in a sentence for whoever looks at the ticket.
    #[must_use]
    pub const fn explain(self) -> &'static str {
        match self {
            Self::MissingOrder => "The first line must be `Order:` followed by the order's id.",
            Self::BadOrder => "The order's id must have at most 255 characters.",
            Self::BadVat => "The second line must be `VAT:` followed by a decimal such as 3.10.",
            Self::BadTotal => {
                "The third line must be `Total:` followed by a decimal such as 16.90."
            }
            Self::MissingBlankLine => "The line after the total must be blank.",
            Self::BadProductHeader => {
                "The line after the blank one must be `product,product_id,price`."
            }
            Self::NoProducts => "At least one product line must follow the products' heading.",
            Self::BadProductLine => {
                "A product line must be a name and a product id of 1 to 255 characters and a \
                 decimal price, separated by commas; a name with a comma in it needs quotes."
            }
            Self::TotalMismatch => "The prices of the products must add up to the total exactly.",
        }
    }
}

/// Why a body is not text that can be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextError {
    /// There is nothing in it.
    Empty,
    /// It is not valid UTF-8.
    NotUtf8,
    /// It holds a NUL, which PostgreSQL's text cannot.
    HoldsNul,
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the ticket is empty",
            Self::NotUtf8 => "the ticket is not valid UTF-8",
            Self::HoldsNul => "the ticket holds a NUL character",
        })
    }
}

impl std::error::Error for TextError {}

/// The text of a body, if PostgreSQL can store it: valid UTF-8, not empty, without NUL.
///
/// # Errors
///
/// The first of the three that does not hold, in the order of [`TextError`].
pub fn text(body: &[u8]) -> Result<&str, TextError> {
    if body.is_empty() {
        return Err(TextError::Empty);
    }
    let text = std::str::from_utf8(body).map_err(|_| TextError::NotUtf8)?;
    match memchr(0, body) {
        None => Ok(text),
        Some(_) => Err(TextError::HoldsNul),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes are a promise to whoever queries the table: each is pinned, distinct and in snake
    /// case.
    #[test]
    fn every_reason_has_its_own_code_and_sentence() {
        let codes = Reason::ALL.map(Reason::code);
        let pinned = "missing_order bad_order bad_vat bad_total missing_blank_line \
                      bad_product_header no_products bad_product_line total_mismatch";
        assert_eq!(codes.join(" "), pinned);
        for reason in Reason::ALL {
            assert!(reason.explain().ends_with('.'), "{reason:?}");
        }
    }

    #[test]
    fn an_invalid_verdict_is_shown_as_it_is_stored() {
        let invalid = Reason::BadVat.at(2);
        assert_eq!(invalid.to_string(), "bad_vat:2");
    }

    #[test]
    fn text_is_what_the_database_can_store() {
        assert_eq!(text(b""), Err(TextError::Empty));
        assert_eq!(text(b"\n"), Ok("\n"));
        assert_eq!(text("Café".as_bytes()), Ok("Café"));
        assert_eq!(text(b"Caf\xe9"), Err(TextError::NotUtf8));
        assert_eq!(
            text(b"\xed\xa0\x80"),
            Err(TextError::NotUtf8),
            "a lone surrogate"
        );
        assert_eq!(
            text(b"\xc0\x80"),
            Err(TextError::NotUtf8),
            "an overlong NUL"
        );
        assert_eq!(text(b"a\0b"), Err(TextError::HoldsNul));
        assert_eq!(text(b"\0"), Err(TextError::HoldsNul));
        assert_eq!(
            text(b"\xff\xfe\0"),
            Err(TextError::NotUtf8),
            "the first that does not hold"
        );
    }
}
