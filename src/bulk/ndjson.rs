//! A ticket a line, as JSON: `{"key":…,"issued_at":…,"ticket":…}`.

use memchr::memchr;
use serde_json::{Map, Value};

use super::entry::{Entry, EntryError, EntryProblem, Place};
use super::pieces::PieceBuffer;
use crate::source::{IssuedAtError, KeyError, is_key, time_us};

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The longest way to write a byte of a ticket in JSON, as `\u0001`, and room for all else on its line.
const ESCAPED_BYTES: usize = 6;
const FIELDS_BYTES_MAX: usize = 4096;

/// Takes the pieces of a text, and gives the tickets in it.
pub(crate) struct NdjsonSplitter {
    bytes_max: usize,
    /// From where the next line begins.
    buffer: PieceBuffer,
    given: u64,
    /// Which line the next one is, from 1.
    line: u64,
}

impl NdjsonSplitter {
    /// Gives tickets of at most so many bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            buffer: PieceBuffer::default(),
            given: 0,
            line: 1,
        }
    }

    /// Takes the next piece.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        self.buffer.push(piece);
    }

    /// There is no more.
    pub(crate) fn end(&mut self) {
        self.buffer.end();
    }

    /// The next ticket that is complete, if there is one.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry<'static>>, EntryError> {
        while let Some((line, end)) = self.next_line()? {
            let place = self.place();
            let text = self.buffer.waiting().get(..end).unwrap_or_default();
            let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
            let is_blank = text.trim_ascii().is_empty();
            let entry = (!is_blank).then(|| self.entry(text, place));
            self.buffer.cut_off(line);
            self.line += 1;
            if let Some(entry) = entry {
                self.given += 1;
                return entry.map(Some);
            }
        }
        Ok(None)
    }

    /// Where the line behind the next one begins, and where that one ends.
    fn next_line(&mut self) -> Result<Option<(usize, usize)>, EntryError> {
        let end = memchr(b'\n', self.buffer.unsearched());
        let end = end.map(|at| self.buffer.searched() + at);
        let length = end.unwrap_or(self.buffer.waiting().len());
        let length_max = self.bytes_max.saturating_mul(ESCAPED_BYTES);
        if length > length_max.saturating_add(FIELDS_BYTES_MAX) {
            return Err(self.place().is(EntryProblem::TooLarge));
        }
        Ok(match end {
            Some(end) => Some((end + 1, end)),
            None if self.buffer.has_ended() && length > 0 => Some((length, length)),
            None => {
                self.buffer.search_from(length);
                None
            }
        })
    }

    fn place(&self) -> Place {
        Place {
            number: self.given + 1,
            line: self.line,
            has_lines: false,
        }
    }

    fn entry(&self, line: &[u8], place: Place) -> Result<Entry<'static>, EntryError> {
        let entry = entry(line, place).map_err(|problem| place.is(problem))?;
        if entry.body.len() > self.bytes_max {
            return Err(place.is(EntryProblem::TooLarge));
        }
        Ok(entry)
    }
}

fn entry(line: &[u8], place: Place) -> Result<Entry<'static>, EntryProblem> {
    let Ok(Value::Object(mut fields)) = serde_json::from_slice(line) else {
        return Err(EntryProblem::Malformed("the line is no JSON object"));
    };
    let key = take_text(&mut fields, "key")?;
    if key.as_ref().is_some_and(|key| !is_key(key.as_bytes())) {
        return Err(EntryProblem::BadKey(KeyError::NoKey));
    }
    let issued_at_us = match take_text(&mut fields, "issued_at")? {
        None => None,
        Some(text) => Some(time_us(&text).ok_or(BAD_TIME)?),
    };
    let ticket = take_text(&mut fields, "ticket")?;
    let ticket = ticket.ok_or(EntryProblem::Malformed("the line has no ticket"))?;
    if !fields.is_empty() {
        let others = "the line has other fields than key, issued_at and ticket";
        return Err(EntryProblem::Malformed(others));
    }
    Ok(Entry {
        place,
        key: key.map(|key| key.into_bytes().into()),
        issued_at_us,
        body: ticket.into_bytes().into(),
    })
}

const BAD_TIME: EntryProblem = EntryProblem::BadIssuedAt(IssuedAtError::NoTime);

/// A field that is text, or left out, or null.
fn take_text(fields: &mut Map<String, Value>, name: &str) -> Result<Option<String>, EntryProblem> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(EntryProblem::Malformed(
            "key, issued_at and ticket are text",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Found = (String, Option<String>, Option<i64>, u64);

    /// Body, key, time of issue and line of each ticket, in pieces of this size.
    fn split(text: &str, piece: usize) -> Result<Vec<Found>, EntryError> {
        let mut splitter = NdjsonSplitter::new(20);
        let mut entries = Vec::new();
        let mut take = |splitter: &mut NdjsonSplitter| {
            while let Some(entry) = splitter.next_entry()? {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
                assert_eq!(entry.place.number, entries.len() as u64 + 1);
                let key = entry.key.as_deref().map(text);
                entries.push((text(&entry.body), key, entry.issued_at_us, entry.place.line));
            }
            Ok(())
        };
        for piece in text.as_bytes().chunks(piece) {
            splitter.push(piece);
            take(&mut splitter)?;
        }
        splitter.end();
        take(&mut splitter)?;
        Ok(entries)
    }

    #[test]
    fn each_line_is_a_ticket() {
        let text = concat!(
            "\u{feff}{\"ticket\":\"Order: 1\\n\"}\r\n\n \t\r\n",
            "{\"key\":\"k\",\"issued_at\":\"1970-01-01T00:00:01Z\",\"ticket\":\"é\\u00e9\"}\n",
            "{\"key\":null,\"ticket\":\"\"}"
        );
        let expected = vec![
            ("Order: 1\n".to_owned(), None, None, 1),
            ("éé".to_owned(), Some("k".to_owned()), Some(1_000_000), 4),
            (String::new(), None, None, 5),
        ];
        for piece in [1, 2, 3, 7, 1000] {
            assert_eq!(split(text, piece).as_ref(), Ok(&expected), "{piece}");
        }
    }

    #[test]
    fn anything_else_is_malformed_and_where_it_is_is_said() {
        let large = format!("{{\"ticket\":\"{}\"}}", "x".repeat(21));
        let endless = " ".repeat(5000);
        for (line, problem) in [
            ("x", EntryProblem::Malformed("the line is no JSON object")),
            ("[]", EntryProblem::Malformed("the line is no JSON object")),
            ("{}", EntryProblem::Malformed("the line has no ticket")),
            (
                "{\"ticket\":1}",
                EntryProblem::Malformed("key, issued_at and ticket are text"),
            ),
            (
                "{\"ticket\":\"x\",\"issuedAt\":\"\"}",
                EntryProblem::Malformed("the line has other fields than key, issued_at and ticket"),
            ),
            (
                "{\"ticket\":\"x\",\"key\":\"a b\"}",
                EntryProblem::BadKey(KeyError::NoKey),
            ),
            ("{\"ticket\":\"x\",\"issued_at\":\"1\"}", BAD_TIME),
            (&large, EntryProblem::TooLarge),
            (&endless, EntryProblem::TooLarge),
        ] {
            let text = format!("{{\"ticket\":\"x\"}}\n\n{line}");
            for piece in [1, 1000, 10_000] {
                let error = split(&text, piece).expect_err(line);
                assert_eq!((error.place.number, error.place.line), (2, 3), "{line}");
                assert_eq!(error.problem, problem, "{line}");
            }
        }
    }
}
