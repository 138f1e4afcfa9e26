//! The AMQP message: one ticket as it came, or a group of them.
//!
//! A group is a run of records, nothing before or after them. There are two versions. In version 1,
//! `application/x-ticket-group`, a record is:
//!
//! ```text
//!  0               16              24          28
//!  +---------------+---------------+-----------+------------------
//!  | ticket id     | received at   | length    | body: `length` bytes
//!  | UUID, 16 bytes| i64 µs, Unix  | u32       |
//!  +---------------+---------------+-----------+------------------
//! ```
//!
//! Version 2, `application/x-ticket-group; version=2`, also holds a ticket's [`Origin`]:
//!
//! ```text
//!  0               16              24        25              33          37          37 + n
//!  +---------------+---------------+---------+---------------+-----------+-----------+------------------
//!  | ticket id     | received at   | 128 + n | issued at     | length    | source:   | body: `length` bytes
//!  | UUID, 16 bytes| i64 µs, Unix  | u8      | i64 µs, Unix  | u32       | n bytes   |
//!  +---------------+---------------+---------+---------------+-----------+-----------+------------------
//! ```
//!
//! `n` is at most 64, and 0 without a source; the smallest of all times stands for none. The byte
//! before the time of issue has its highest bit set, so whoever reads version 2 as version 1 finds a
//! body of 2 GiB or more in the first record, and cannot take what senders wrote for records.
//!
//! Numbers are big endian. Every byte of the payload belongs to a record, there are between one and
//! 65,536 of them, and no body is empty, as no ticket is that was ever accepted; else the whole
//! group is malformed.
//!
//! A group is of version 2 only if it has to be, and a ticket that is alone is published as it came,
//! with headers. Both versions are read for ever.

mod traceparent;

pub use traceparent::Traceparent;

use std::fmt;

use uuid::Uuid;

use crate::source::{Origin, SourceRef};

/// The content type of a message that is one ticket, as it came.
pub const TICKET: &str = "text/plain";

/// The content type of a message that is a group of tickets, of version 1. A parameter tells others.
pub const GROUP: &str = "application/x-ticket-group";

/// The content type of a message that is a group of tickets, of version 2.
pub const GROUP_V2: &str = "application/x-ticket-group; version=2";

/// The header of a single ticket's message that says when it was received: µs since the Unix epoch,
/// because AMQP's own timestamp has only seconds.
pub const RECEIVED_AT: &str = "x-received-at-us";

/// The header of a single ticket's message that says when it was issued, likewise.
pub const ISSUED_AT: &str = "x-issued-at-us";

/// The header of a single ticket's message that names its source.
pub const SOURCE: &str = "x-source";

/// The header of a single ticket's message that says to which trace its request belongs.
pub const TRACEPARENT: &str = "traceparent";

/// What a record has before its body in version 1, in bytes.
pub const RECORD_HEAD_BYTES: usize = 16 + 8 + 4;

/// What a record has before its source in version 2, in bytes.
pub const RECORD_HEAD_BYTES_V2: usize = 16 + 8 + 1 + 8 + 4;

/// Set in the byte that tells the length of a source.
const SOURCE_BIT: u8 = 0x80;

/// Stands for no time of issue.
const NOT_ISSUED_US: i64 = i64::MIN;

/// A version of the form of a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupVersion {
    /// What every version of ticketd reads.
    #[default]
    V1,
    /// With the origin of each ticket.
    V2,
}

/// One ticket of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The ticket's id, unique for good.
    pub id: Uuid,
    /// When it was received, in µs since the Unix epoch.
    pub received_at_us: i64,
    /// What else is known of it.
    pub origin: Origin<'a>,
    /// The ticket as it came.
    pub body: &'a [u8],
}

impl GroupVersion {
    /// The version of a message of this content type; none if it is not that of a group, or of a
    /// version that is not known.
    pub fn of(content_type: &str) -> Option<Self> {
        let mut parts = content_type.split(';').map(str::trim);
        if !parts.next()?.eq_ignore_ascii_case(GROUP) {
            return None;
        }
        let version = parts.find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim().eq_ignore_ascii_case("version").then_some(value)
        });
        match version.map(|version| version.trim().trim_matches('"')) {
            None | Some("1") => Some(Self::V1),
            Some("2") => Some(Self::V2),
            Some(_) => None,
        }
    }

    /// The first version that can hold this.
    pub fn needed_for(origin: &Origin<'_>) -> Self {
        if origin.is_known() {
            Self::V2
        } else {
            Self::V1
        }
    }

    /// Its content type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::V1 => GROUP,
            Self::V2 => GROUP_V2,
        }
    }

    /// How much a record has around its body, in bytes.
    pub fn overhead_bytes(self, origin: &Origin<'_>) -> usize {
        match self {
            Self::V1 => RECORD_HEAD_BYTES,
            Self::V2 => RECORD_HEAD_BYTES_V2 + source_of(origin).len(),
        }
    }
}

fn source_of<'a>(origin: &Origin<'a>) -> &'a str {
    origin.source.map_or("", SourceRef::as_str)
}

/// Appends a record to a group of this version, in which version 1 has no room for its origin. The
/// body must be shorter than 4 GiB, which `BODY_MAX` sees to.
pub fn append(version: GroupVersion, group: &mut Vec<u8>, record: Record<'_>) {
    group.reserve(version.overhead_bytes(&record.origin) + record.body.len());
    match version {
        GroupVersion::V1 => group.extend_from_slice(&head(&record)),
        GroupVersion::V2 => {
            let source = source_of(&record.origin).as_bytes();
            group.extend_from_slice(&head_v2(&record, source.len()));
            group.extend_from_slice(source);
        }
    }
    group.extend_from_slice(record.body);
}

fn head(record: &Record<'_>) -> [u8; RECORD_HEAD_BYTES] {
    let mut head = [0; RECORD_HEAD_BYTES];
    head[..16].copy_from_slice(record.id.as_bytes());
    head[16..24].copy_from_slice(&record.received_at_us.to_be_bytes());
    head[24..].copy_from_slice(&body_length(record));
    head
}

fn head_v2(record: &Record<'_>, source_bytes: usize) -> [u8; RECORD_HEAD_BYTES_V2] {
    let issued_at_us = record.origin.issued_at_us.unwrap_or(NOT_ISSUED_US);
    let mut head = [0; RECORD_HEAD_BYTES_V2];
    head[..16].copy_from_slice(record.id.as_bytes());
    head[16..24].copy_from_slice(&record.received_at_us.to_be_bytes());
    // A source is short.
    head[24] = SOURCE_BIT | source_bytes as u8;
    head[25..33].copy_from_slice(&issued_at_us.to_be_bytes());
    head[33..].copy_from_slice(&body_length(record));
    head
}

fn body_length(record: &Record<'_>) -> [u8; 4] {
    let length = u32::try_from(record.body.len()).unwrap_or(u32::MAX);
    length.to_be_bytes()
}

/// A group of version 1 as one of version 2.
pub fn upgraded(group: &[u8], tickets: usize) -> Vec<u8> {
    let more = RECORD_HEAD_BYTES_V2 - RECORD_HEAD_BYTES;
    let mut upgraded = Vec::with_capacity(group.len() + tickets * more);
    for record in records(GroupVersion::V1, group) {
        append(GroupVersion::V2, &mut upgraded, record);
    }
    upgraded
}

/// The maximum of records in a group: four times what `PUBLISH_GROUP_MAX` may be. Others could make
/// several hundred thousand of one message of a few megabytes.
pub const RECORDS_MAX: usize = 65_536;

/// Why a payload is not a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// It cannot be cut into records.
    Cut {
        /// Where the record begins that is not one, in bytes.
        offset: usize,
    },
    /// One of its tickets is empty.
    Empty {
        /// Where its record begins, in bytes.
        offset: usize,
    },
    /// It has more than [`RECORDS_MAX`] records.
    TooMany,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut { offset } => write!(f, "malformed group at byte {offset}"),
            Self::Empty { offset } => {
                write!(f, "malformed group: an empty ticket at byte {offset}")
            }
            Self::TooMany => write!(f, "malformed group: more than {RECORDS_MAX} tickets"),
        }
    }
}

impl std::error::Error for Malformed {}

/// Counts the records of a group, and so checks that it is one.
pub fn count(version: GroupVersion, group: &[u8]) -> Result<usize, Malformed> {
    let mut records = records(version, group);
    let mut count = 0;
    loop {
        let offset = group.len() - records.rest.len();
        match records.next() {
            Some(record) if record.body.is_empty() => return Err(Malformed::Empty { offset }),
            Some(_) if count == RECORDS_MAX => return Err(Malformed::TooMany),
            Some(_) => count += 1,
            None if count == 0 || !records.rest.is_empty() => {
                return Err(Malformed::Cut { offset });
            }
            None => return Ok(count),
        }
    }
}

/// The records of a group, up to the first that is none.
pub fn records(version: GroupVersion, group: &[u8]) -> Records<'_> {
    Records {
        version,
        rest: group,
    }
}

/// Iterates over the records of a group.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    version: GroupVersion,
    rest: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let (id, rest) = self.rest.split_first_chunk::<16>()?;
        let (received_at, rest) = rest.split_first_chunk::<8>()?;
        let (origin, body, rest) = match self.version {
            GroupVersion::V1 => {
                let (length, rest) = length(rest)?;
                let (body, rest) = rest.split_at_checked(length)?;
                (Origin::default(), body, rest)
            }
            GroupVersion::V2 => origin_and_body(rest)?,
        };
        self.rest = rest;
        Some(Record {
            id: Uuid::from_bytes(*id),
            received_at_us: i64::from_be_bytes(*received_at),
            origin,
            body,
        })
    }
}

/// What stands behind the time of receipt in version 2, and what is left.
fn origin_and_body(rest: &[u8]) -> Option<(Origin<'_>, &[u8], &[u8])> {
    let (&source_bytes, rest) = rest.split_first()?;
    let (issued_at, rest) = rest.split_first_chunk::<8>()?;
    let (length, rest) = length(rest)?;
    let source_bytes = source_bytes.checked_sub(SOURCE_BIT)?;
    let (source, rest) = rest.split_at_checked(usize::from(source_bytes))?;
    let (body, rest) = rest.split_at_checked(length)?;
    let source = match source {
        [] => None,
        name => Some(SourceRef::parse(name).ok()?),
    };
    let issued_at_us = i64::from_be_bytes(*issued_at);
    let origin = Origin {
        source,
        issued_at_us: (issued_at_us != NOT_ISSUED_US).then_some(issued_at_us),
    };
    Some((origin, body, rest))
}

fn length(rest: &[u8]) -> Option<(usize, &[u8])> {
    let (length, rest) = rest.split_first_chunk::<4>()?;
    Some((usize::try_from(u32::from_be_bytes(*length)).ok()?, rest))
}

#[cfg(test)]
mod tests;
