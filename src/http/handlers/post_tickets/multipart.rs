//! A ticket a part of `multipart/mixed` (RFC 2046 section 5.1), strictly: lines of the framing end in
//! CRLF, and the last boundary has to be there, so that a body that was cut off is noticed.

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use memchr::{memchr_iter, memmem};

use crate::bulk::{Entry, EntryError, EntryProblem, PieceBuffer, Place};
use crate::coding::Coding;
use crate::http::encoding::coding_of;
use crate::http::idempotency::key;
use crate::http::issued_at::issued_at_us;

/// The largest head of a part, and the longest line with a boundary, in bytes.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// The longest boundary (RFC 2046 section 5.1.1).
const BOUNDARY_BYTES_MAX: usize = 70;

const LINE_END: &[u8] = b"\r\n";

/// Takes the pieces of a body, and gives the tickets in it.
pub(super) struct MultipartSplitter {
    bytes_max: usize,
    /// What parts two parts: a line end, two hyphens and the boundary.
    delimiter: Vec<u8>,
    /// From where the part begins, or whatever stands there.
    buffer: PieceBuffer,
    within: Within,
    given: u64,
    /// The line on which the buffer begins, from 1.
    line: u64,
}

/// What the buffer begins with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    /// What stands before the first part, which is ignored.
    Preamble,
    /// A part.
    Part,
    /// What stands behind the last part, likewise.
    Epilogue,
}

/// A boundary that was found.
struct Boundary {
    /// Where its delimiter begins.
    start: usize,
    /// Where what comes after it begins.
    end: usize,
    is_last: bool,
}

/// What stands where a delimiter was found.
enum Delimiter {
    Boundary { bytes: usize, is_last: bool },
    Content,
    Unknown,
}

impl MultipartSplitter {
    /// Gives tickets of at most so many bytes, between these boundaries; none if that is no boundary.
    pub(super) fn new(boundary: &str, bytes_max: usize) -> Option<Self> {
        let is_boundary = (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len())
            && boundary.bytes().all(|byte| (b' '..=b'~').contains(&byte))
            && !boundary.ends_with(' ');
        is_boundary.then(|| Self {
            bytes_max,
            delimiter: [b"\r\n--", boundary.as_bytes()].concat(),
            // So that the first boundary needs no line before it.
            buffer: PieceBuffer::with(LINE_END),
            within: Within::Preamble,
            given: 0,
            line: 0,
        })
    }

    /// Takes the next piece.
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.buffer.push(piece);
    }

    /// There is no more.
    pub(super) fn end(&mut self) {
        self.buffer.end();
    }

    /// The next ticket that is complete, if there is one.
    pub(super) fn next_entry(&mut self) -> Result<Option<Entry<'_>>, EntryError> {
        loop {
            let Some(boundary) = self.next_boundary() else {
                return self.wait_for_more().map(|()| None);
            };
            let (within, line) = (self.within, self.line);
            self.cut_off(boundary.end);
            self.within = if boundary.is_last {
                Within::Epilogue
            } else {
                Within::Part
            };
            if within == Within::Part {
                self.given += 1;
                let place = place(self.given, line);
                let part = self.buffer.last(boundary.end).get(..boundary.start);
                let part = part.unwrap_or_default();
                return part_entry(part, place, self.bytes_max).map(Some);
            }
        }
    }

    fn cut_off(&mut self, bytes: usize) {
        self.buffer.cut_off(bytes);
        self.line += memchr_iter(b'\n', self.buffer.last(bytes)).count() as u64;
    }

    fn next_boundary(&mut self) -> Option<Boundary> {
        if self.within == Within::Epilogue {
            return None;
        }
        loop {
            let (waiting, searched) = (self.buffer.waiting(), self.buffer.searched());
            let Some(at) = memmem::find(self.buffer.unsearched(), &self.delimiter) else {
                // It may be there but for its end.
                let kept = waiting.len().saturating_sub(self.delimiter.len() - 1);
                self.buffer.search_from(searched.max(kept));
                return None;
            };
            let start = searched + at;
            let end = start + self.delimiter.len();
            let after = waiting.get(end..).unwrap_or_default();
            match delimiter_at(after, self.buffer.has_ended()) {
                Delimiter::Boundary { bytes, is_last } => {
                    return Some(Boundary {
                        start,
                        end: end + bytes,
                        is_last,
                    });
                }
                Delimiter::Content => self.buffer.search_from(start + 1),
                Delimiter::Unknown => {
                    self.buffer.search_from(start);
                    return None;
                }
            }
        }
    }

    /// Drops what nobody needs, and fails if more cannot help.
    fn wait_for_more(&mut self) -> Result<(), EntryError> {
        if self.within != Within::Part {
            self.cut_off(self.buffer.searched());
        }
        if self.within == Within::Epilogue {
            self.buffer.cut_off(self.buffer.waiting().len());
            return Ok(());
        }
        let place = place(self.given + 1, self.line);
        let bytes_max = match self.within {
            Within::Part => self.bytes_max + HEAD_BYTES_MAX,
            Within::Preamble | Within::Epilogue => HEAD_BYTES_MAX,
        };
        if self.buffer.searched() > bytes_max || self.buffer.unsearched().len() > HEAD_BYTES_MAX {
            return Err(place.is(EntryProblem::TooLarge));
        }
        if self.buffer.has_ended() {
            let cut_off = "the last boundary is missing";
            return Err(place.is(EntryProblem::Malformed(cut_off)));
        }
        Ok(())
    }
}

fn place(number: u64, line: u64) -> Place {
    Place {
        number,
        line,
        has_lines: true,
    }
}

/// What follows a delimiter: hyphens and the end of all, or blanks and a line end; else it was content.
fn delimiter_at(rest: &[u8], is_all: bool) -> Delimiter {
    if rest.starts_with(b"--") {
        return Delimiter::Boundary {
            bytes: 2,
            is_last: true,
        };
    }
    let is_blank = |byte: &&u8| matches!(byte, b' ' | b'\t');
    let blanks = rest.iter().take_while(is_blank).count();
    let after = rest.get(blanks..).unwrap_or_default();
    if after.starts_with(LINE_END) {
        let bytes = blanks + LINE_END.len();
        let is_last = false;
        return Delimiter::Boundary { bytes, is_last };
    }
    let may_become = matches!(after, b"" | b"\r") || rest == b"-";
    if may_become && !is_all {
        Delimiter::Unknown
    } else {
        Delimiter::Content
    }
}

/// The ticket of a part: its head, a blank line, and its body.
fn part_entry(part: &[u8], place: Place, bytes_max: usize) -> Result<Entry<'_>, EntryError> {
    let malformed = |what| place.is(EntryProblem::Malformed(what));
    let (head, body) = match part.strip_prefix(LINE_END) {
        Some(body) => (&b""[..], body),
        None => {
            let end = memmem::find(part, b"\r\n\r\n");
            let end = end.filter(|end| *end <= HEAD_BYTES_MAX);
            let cut = end.and_then(|end| Some((part.get(..end)?, part.get(end + 4..)?)));
            cut.ok_or(malformed("the part has no blank line behind its head"))?
        }
    };
    if body.len() > bytes_max {
        return Err(place.is(EntryProblem::TooLarge));
    }
    let headers = headers(head).ok_or(malformed("the head of the part is malformed"))?;
    let is_plain = coding_of(&headers).is_ok_and(Coding::is_plain);
    if !is_plain || is_transfer_encoded(&headers) {
        return Err(malformed("the part is encoded"));
    }
    let key = key(&headers).map_err(|error| place.is(EntryProblem::BadKey(error)))?;
    let issued_at = issued_at_us(&headers);
    let issued_at_us = issued_at.map_err(|error| place.is(EntryProblem::BadIssuedAt(error)))?;
    let head_lines = memchr_iter(b'\n', head).count() as u64 + if head.is_empty() { 1 } else { 2 };
    Ok(Entry {
        place: Place {
            line: place.line + head_lines,
            ..place
        },
        key: key.map(|key| key.to_vec().into()),
        issued_at_us,
        body: body.into(),
    })
}

/// The headers of a part; none if one is not `name: value`.
fn headers(head: &[u8]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    let mut rest = head;
    while !rest.is_empty() {
        let end = memmem::find(rest, LINE_END);
        let line = rest.get(..end.unwrap_or(rest.len()))?;
        rest = end
            .and_then(|end| rest.get(end + LINE_END.len()..))
            .unwrap_or_default();
        let colon = memchr::memchr(b':', line)?;
        let name = HeaderName::from_bytes(line.get(..colon)?).ok()?;
        let value = HeaderValue::from_bytes(line.get(colon + 1..)?.trim_ascii()).ok()?;
        headers.try_append(name, value).ok()?;
    }
    Some(headers)
}

fn is_transfer_encoded(headers: &HeaderMap) -> bool {
    let encodings = headers.get_all("content-transfer-encoding");
    let is_plain = |value: &HeaderValue| {
        let plain = ["7bit", "8bit", "binary"];
        plain
            .iter()
            .any(|name| value.as_bytes().eq_ignore_ascii_case(name.as_bytes()))
    };
    !encodings.iter().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Found = (String, Option<String>, Option<i64>, u64);

    /// Body, key, time of issue and line of each ticket, in pieces of this size.
    fn split(text: &str, piece: usize) -> Result<Vec<Found>, EntryError> {
        let mut splitter = MultipartSplitter::new("b", 20).expect("a boundary");
        let mut entries = Vec::new();
        let mut take = |splitter: &mut MultipartSplitter| {
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

    const PIECES: [usize; 5] = [1, 2, 3, 7, 10_000];

    #[test]
    fn each_part_is_a_ticket() {
        let text = concat!(
            "ignored\r\n--b\r\n\r\nOrder: 1\n\r\n--bc\r\n\r\n--b \t\r\n",
            "Idempotency-Key: k\r\nTicket-Issued-At: 1970-01-01T00:00:01Z\r\n",
            "Content-Type: text/plain\r\n\r\n\r\n--b\r\nwebhook-id:w\r\n\r\n--\r\n--b--\r\n--b\r\nignored"
        );
        let found = |body: &str, key: Option<&str>, issued_at, line| {
            (body.to_owned(), key.map(str::to_owned), issued_at, line)
        };
        let expected = vec![
            found("Order: 1\n\r\n--bc\r\n", None, None, 4),
            found("", Some("k"), Some(1_000_000), 13),
            found("--", Some("w"), None, 17),
        ];
        for piece in PIECES {
            assert_eq!(split(text, piece).as_ref(), Ok(&expected), "{piece}");
        }
        assert_eq!(split("--b--", 1), Ok(Vec::new()));
    }

    #[test]
    fn anything_else_is_malformed() {
        let cut_off = "the last boundary is missing";
        let encoded = "the part is encoded";
        let long = format!("--b\r\n\r\n{}", "x".repeat(9000));
        let large = format!("--b\r\n\r\n{}\r\n--b--", "x".repeat(21));
        let endless = format!("--b{}", " ".repeat(9000));
        for (text, problem) in [
            ("", EntryProblem::Malformed(cut_off)),
            ("--b\r\n\r\nx", EntryProblem::Malformed(cut_off)),
            ("--b\r\n\r\nx\r\n--b", EntryProblem::Malformed(cut_off)),
            ("--b\n\nx\n--b--", EntryProblem::Malformed(cut_off)),
            (
                "--b\r\nx\r\n--b--",
                EntryProblem::Malformed("the part has no blank line behind its head"),
            ),
            (
                "--b\r\nx\r\n\r\n\r\n--b--",
                EntryProblem::Malformed("the head of the part is malformed"),
            ),
            (
                "--b\r\na: 1\r\n b\r\n\r\n\r\n--b--",
                EntryProblem::Malformed("the head of the part is malformed"),
            ),
            (
                "--b\r\nContent-Transfer-Encoding: base64\r\n\r\n\r\n--b--",
                EntryProblem::Malformed(encoded),
            ),
            (
                "--b\r\nContent-Encoding: gzip\r\n\r\n\r\n--b--",
                EntryProblem::Malformed(encoded),
            ),
            (&long, EntryProblem::TooLarge),
            (&large, EntryProblem::TooLarge),
            (&endless, EntryProblem::TooLarge),
        ] {
            for piece in PIECES {
                let error = split(text, piece).expect_err(text);
                assert_eq!(
                    (error.place.number, error.problem),
                    (1, problem),
                    "{text:?} by {piece}"
                );
            }
        }
        for boundary in ["", "ends ", "é", "\n", &"b".repeat(71)] {
            assert!(
                MultipartSplitter::new(boundary, 1).is_none(),
                "{boundary:?}"
            );
        }
    }
}
