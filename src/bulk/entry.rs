//! One ticket of a text of many, whichever form that has.

use std::borrow::Cow;
use std::fmt;

use memchr::{memchr, memchr_iter};

use crate::source::{IssuedAtError, KeyError};
use crate::ticket::{TextError, text};

/// One ticket of a text, and what is said of it alone.
pub(crate) struct Entry<'a> {
    /// Where it is.
    pub place: Place,
    /// Its own key.
    pub key: Option<Cow<'a, [u8]>>,
    /// When it was issued, in µs since the Unix epoch.
    pub issued_at_us: Option<i64>,
    /// The ticket.
    pub body: Cow<'a, [u8]>,
}

/// Where in a text a ticket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Which ticket, from 1.
    pub number: u64,
    /// The line on which it begins, from 1.
    pub line: u64,
    /// Whether its lines are lines of the text.
    pub has_lines: bool,
}

/// What is wrong with one ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryError {
    /// Which one.
    pub place: Place,
    /// What.
    pub problem: EntryProblem,
}

/// What may be wrong with one ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryProblem {
    /// The text cannot be cut there.
    Malformed(&'static str),
    /// It is too large.
    TooLarge,
    /// It cannot be stored.
    NotText(TextError),
    /// Its key is none.
    BadKey(KeyError),
    /// Its time of issue is none.
    BadIssuedAt(IssuedAtError),
}

impl Place {
    /// That something is wrong with it.
    pub(crate) fn is(self, problem: EntryProblem) -> EntryError {
        EntryError {
            place: self,
            problem,
        }
    }
}

impl Entry<'_> {
    /// Checks that it can be stored; the error names the line where that ends.
    pub(crate) fn check_text(&self) -> Result<(), EntryError> {
        text(&self.body).map(drop).map_err(|error| {
            let mut place = self.place;
            if place.has_lines {
                let before = self.body.get(..first_bad(&self.body)).unwrap_or_default();
                place.line += memchr_iter(b'\n', before).count() as u64;
            }
            place.is(EntryProblem::NotText(error))
        })
    }
}

/// Where the first byte is for which a body cannot be stored.
fn first_bad(body: &[u8]) -> usize {
    match std::str::from_utf8(body) {
        Err(error) => error.valid_up_to(),
        Ok(_) => memchr(0, body).unwrap_or_default(),
    }
}

impl fmt::Display for EntryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { number, line, .. } = self.place;
        write!(f, "ticket {number}, line {line}: ")?;
        match self.problem {
            EntryProblem::Malformed(what) => f.write_str(what),
            EntryProblem::TooLarge => f.write_str("the ticket is too large"),
            EntryProblem::NotText(error) => write!(f, "{error}"),
            EntryProblem::BadKey(error) => f.write_str(error.detail()),
            EntryProblem::BadIssuedAt(error) => f.write_str(error.detail()),
        }
    }
}
