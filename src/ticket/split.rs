//! Cuts a text of many tickets into tickets.
//!
//! A ticket begins at the first byte of a line that starts with `Order:`, before which a byte order
//! mark may stand, and ends where the next one begins: every byte from the first `Order:` on belongs
//! to exactly one ticket. Lines are those of [`crate::ticket`]: they end in LF, so a CR alone ends
//! none. A quoted field ends on its line, so no quote reaches over a line end, and a product whose
//! name begins with `Order:` is written in quotes, or with a blank before it. Blank lines before the
//! first ticket are passed over; anything else there is an error.

use std::fmt;

use memchr::{memchr, memchr_iter};

const ORDER: &[u8] = b"Order:";
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Takes the pieces of a text, wherever they are cut, and gives the tickets in it. It holds the
/// ticket that is not complete yet, and what came with its end.
#[derive(Debug)]
pub struct TicketSplitter {
    bytes_max: usize,
    buffer: Vec<u8>,
    /// Where in the buffer the next ticket begins.
    start: usize,
    /// Where in the buffer the search for its end goes on.
    searched: usize,
    /// The first ticket has begun.
    has_begun: bool,
    /// There is no more.
    has_ended: bool,
    /// The tickets that were given.
    given: u64,
    /// The line on which the next one begins.
    line: u64,
}

/// One ticket of many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitTicket<'a> {
    /// Which one it is, from 1.
    pub number: u64,
    /// The line of the whole text on which it begins, from 1.
    pub line: u64,
    /// The ticket, with all line ends behind it.
    pub body: &'a [u8],
}

/// Why a text cannot be cut into tickets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SplitError {
    /// Something stands before the first ticket.
    NoOrder {
        /// On this line, from 1.
        line: u64,
    },
    /// A ticket is larger than allowed.
    TooLarge {
        /// Which one, from 1.
        number: u64,
        /// The line on which it begins, from 1.
        line: u64,
    },
}

impl fmt::Display for SplitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoOrder { line } => write!(
                f,
                "line {line} stands before the first ticket, which begins with Order:"
            ),
            Self::TooLarge { number, line } => {
                write!(f, "ticket {number}, from line {line} on, is too large")
            }
        }
    }
}

impl std::error::Error for SplitError {}

/// What a line is, as far as is known.
enum Line {
    /// A ticket begins with it.
    Order,
    /// Another one.
    Other,
    /// Too little of it has come.
    Unknown,
}

impl TicketSplitter {
    /// Gives tickets of at most so many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            buffer: Vec::new(),
            start: 0,
            searched: 0,
            has_begun: false,
            has_ended: false,
            given: 0,
            line: 1,
        }
    }

    /// Takes the next piece of the text. The tickets that are complete should be taken first, as
    /// they would be held as well.
    pub fn push(&mut self, piece: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.searched -= self.start;
            self.start = 0;
        }
        self.buffer.extend_from_slice(piece);
    }

    /// There is no more: what is left is the last ticket.
    pub fn end(&mut self) {
        self.has_ended = true;
    }

    /// The next ticket that is complete, if there is one. None after the end: there is no other.
    ///
    /// # Errors
    ///
    /// If this is no text of tickets. No other ticket is given after that.
    pub fn next_ticket(&mut self) -> Result<Option<SplitTicket<'_>>, SplitError> {
        if !self.has_begun {
            self.pass_blank_lines()?;
        }
        if !self.has_begun {
            return Ok(None);
        }
        let end = self.find_end();
        // What may turn out to be the next ticket's beginning is not counted.
        let known = (self.searched + 1).min(self.buffer.len());
        let bytes = end.unwrap_or(known) - self.start;
        if bytes > self.bytes_max {
            let (number, line) = (self.given + 1, self.line);
            return Err(SplitError::TooLarge { number, line });
        }
        match end {
            Some(end) => Ok(Some(self.give(end))),
            None if self.has_ended && bytes > 0 => Ok(Some(self.give(self.buffer.len()))),
            None => Ok(None),
        }
    }

    /// Goes to the first ticket, as far as it has come.
    fn pass_blank_lines(&mut self) -> Result<(), SplitError> {
        loop {
            let rest = self.buffer.get(self.start..).unwrap_or_default();
            match line_at(rest, self.has_ended) {
                Line::Order => {
                    self.has_begun = true;
                    self.searched = self.start;
                    return Ok(());
                }
                Line::Unknown => return Ok(()),
                Line::Other => {}
            }
            let end = memchr(b'\n', rest);
            let line = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
            // One that never ends is not held for ever.
            if !is_blank(line) || line.len() > self.bytes_max {
                return Err(SplitError::NoOrder { line: self.line });
            }
            let Some(end) = end else { return Ok(()) };
            self.start += end + 1;
            self.searched = self.start;
            self.line += 1;
        }
    }

    /// Where the ticket that has begun ends: in front of the next one, if that is there.
    fn find_end(&mut self) -> Option<usize> {
        let from = self.searched;
        for at in memchr_iter(b'\n', self.buffer.get(from..).unwrap_or_default()) {
            let next = from + at + 1;
            match line_at(self.buffer.get(next..).unwrap_or_default(), self.has_ended) {
                Line::Order => {
                    self.searched = next;
                    return Some(next);
                }
                Line::Unknown => {
                    self.searched = next - 1;
                    return None;
                }
                Line::Other => {}
            }
        }
        self.searched = self.buffer.len();
        None
    }

    fn give(&mut self, end: usize) -> SplitTicket<'_> {
        let body = self.buffer.get(self.start..end).unwrap_or_default();
        let line = self.line;
        self.start = end;
        self.searched = self.searched.max(end);
        self.given += 1;
        self.line += memchr_iter(b'\n', body).count() as u64;
        SplitTicket {
            number: self.given,
            line,
            body,
        }
    }
}

/// What the line is that begins here.
fn line_at(rest: &[u8], is_all: bool) -> Line {
    let after_mark = rest.strip_prefix(BYTE_ORDER_MARK);
    if after_mark.unwrap_or(rest).starts_with(ORDER) {
        return Line::Order;
    }
    let may_become = ORDER.starts_with(after_mark.unwrap_or(rest))
        || (after_mark.is_none() && BYTE_ORDER_MARK.starts_with(rest));
    if may_become && !is_all {
        Line::Unknown
    } else {
        Line::Other
    }
}

fn is_blank(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    line.iter().all(|byte| matches!(byte, b' ' | b'\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tickets of a text, each with the line on which it begins, cut into pieces of this size.
    fn split(text: &[u8], piece: usize) -> Result<Vec<(u64, String)>, SplitError> {
        let mut splitter = TicketSplitter::new(40);
        let mut tickets = Vec::new();
        let mut take = |splitter: &mut TicketSplitter| {
            while let Some(ticket) = splitter.next_ticket()? {
                assert_eq!(ticket.number, tickets.len() as u64 + 1);
                let body = String::from_utf8(ticket.body.to_vec()).expect("text");
                tickets.push((ticket.line, body));
            }
            Ok(())
        };
        for piece in text.chunks(piece) {
            splitter.push(piece);
            take(&mut splitter)?;
        }
        splitter.end();
        take(&mut splitter)?;
        Ok(tickets)
    }

    /// The same, which must not hang on where it is cut.
    fn splits(text: &str) -> Result<Vec<(u64, String)>, SplitError> {
        let whole = split(text.as_bytes(), usize::MAX);
        for piece in [1, 2, 3, 7] {
            assert_eq!(split(text.as_bytes(), piece), whole, "{text:?} by {piece}");
        }
        whole
    }

    #[track_caller]
    fn is_split(text: &str, expected: &[(u64, &str)]) {
        let expected = expected.iter().map(|(line, text)| (*line, (*text).into()));
        assert_eq!(splits(text), Ok(expected.collect()), "{text:?}");
    }

    #[test]
    fn a_ticket_begins_with_order_at_the_start_of_a_line() {
        is_split("Order: 1", &[(1, "Order: 1")]);
        is_split("Order:", &[(1, "Order:")]);
        let two = [(1, "Order: 1\nVAT: 2\n"), (3, "Order: 2\n")];
        is_split("Order: 1\nVAT: 2\nOrder: 2\n", &two);
        let crlf = [(1, "Order: 1\r\n\r\n"), (3, "Order: 2")];
        is_split("Order: 1\r\n\r\nOrder: 2", &crlf);
        for other in [
            "order:", " Order:", "\"Order:", "Order", "xOrder:", "\rOrder:",
        ] {
            let text = format!("Order: 1\n{other} 2\n");
            is_split(&text, &[(1, &text)]);
        }
    }

    #[test]
    fn a_carriage_return_alone_ends_no_line() {
        let text = "Order: 1\rOrder: 2\r";
        is_split(text, &[(1, text)]);
    }

    #[test]
    fn each_ticket_may_have_a_byte_order_mark() {
        let expected = [(2, "\u{feff}Order: 1\n"), (3, "\u{feff}Order: 2")];
        is_split("\n\u{feff}Order: 1\n\u{feff}Order: 2", &expected);
        let text = "Order: 1\n\u{feff}\u{feff}Order: 2\n\u{feff}";
        is_split(text, &[(1, text)]);
    }

    #[test]
    fn only_blank_lines_may_stand_before_the_first_ticket() {
        is_split("", &[]);
        is_split(" \n\t\r\n", &[]);
        is_split("\n \t\n\r\nOrder: 1", &[(4, "Order: 1")]);
        for (text, line) in [
            ("VAT: 1\nOrder: 1", 1),
            ("\n\n Order: 1\n", 3),
            ("Orde", 1),
            ("\u{feff}", 1),
            ("\u{feff}\u{feff}Order: 1", 1),
            ("\rOrder: 1", 1),
            ("\0", 1),
        ] {
            assert_eq!(splits(text), Err(SplitError::NoOrder { line }), "{text:?}");
        }
        let endless = " ".repeat(41);
        assert_eq!(splits(&endless), Err(SplitError::NoOrder { line: 1 }));
    }

    #[test]
    fn the_largest_ticket_is_exact() {
        let largest = format!("Order: {}\n", "x".repeat(32));
        let text = [largest.as_str(), "Order: 2"].concat();
        is_split(&text, &[(1, &largest), (2, "Order: 2")]);
        is_split(&largest, &[(1, &largest)]);
        let text = ["Order: 1\n", &largest.replacen(": ", ": x", 1)].concat();
        let error = SplitError::TooLarge { number: 2, line: 2 };
        assert_eq!(splits(&text), Err(error));
    }
}
