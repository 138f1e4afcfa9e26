//! The AMQP message: one ticket as it came, or a group of them.
//!
//! A group is a run of records, nothing before or after them:
//!
//! ```text
//!  0               16              24          28
//!  +---------------+---------------+-----------+------------------
//!  | ticket id     | received at   | length    | body: `length` bytes
//!  | UUID, 16 bytes| i64 µs, Unix  | u32       |
//!  +---------------+---------------+-----------+------------------
//! ```
//!
//! Numbers are big endian. Every byte of the payload belongs to a record, there are between one and
//! 65,536 of them, and no body is empty, as no ticket is that was ever accepted; else the whole
//! group is malformed.

use std::fmt;

use uuid::Uuid;

/// The content type of a message that is one ticket, as it came.
pub const TICKET: &str = "text/plain";

/// The content type of a message that is a group of tickets.
pub const GROUP: &str = "application/x-ticket-group";

/// The header of a single ticket's message that says when it was received: µs since the Unix epoch,
/// because AMQP's own timestamp has only seconds.
pub const RECEIVED_AT: &str = "x-received-at-us";

/// What a record has before its body, in bytes.
pub const RECORD_HEAD_BYTES: usize = 16 + 8 + 4;

/// One ticket of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The ticket's id, unique for good.
    pub id: Uuid,
    /// When it was received, in µs since the Unix epoch.
    pub received_at_us: i64,
    /// The ticket as it came.
    pub body: &'a [u8],
}

/// Appends a record to a group. The body must be shorter than 4 GiB, which `BODY_MAX` sees to.
pub fn append(group: &mut Vec<u8>, record: Record<'_>) {
    let length = u32::try_from(record.body.len()).unwrap_or(u32::MAX);
    group.extend_from_slice(record.id.as_bytes());
    group.extend_from_slice(&record.received_at_us.to_be_bytes());
    group.extend_from_slice(&length.to_be_bytes());
    group.extend_from_slice(record.body);
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
pub fn count(group: &[u8]) -> Result<usize, Malformed> {
    let mut records = records(group);
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

/// The records of a group, up to the first that is cut short.
pub fn records(group: &[u8]) -> Records<'_> {
    Records { rest: group }
}

/// Iterates over the records of a group.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let (id, rest) = self.rest.split_first_chunk::<16>()?;
        let (received_at, rest) = rest.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (body, rest) = rest.split_at_checked(length)?;
        self.rest = rest;
        Some(Record {
            id: Uuid::from_bytes(*id),
            received_at_us: i64::from_be_bytes(*received_at),
            body,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn group(records: &[(u128, i64, Vec<u8>)]) -> Vec<u8> {
        let mut payload = Vec::new();
        for (id, received_at_us, body) in records {
            let id = Uuid::from_u128(*id);
            append(
                &mut payload,
                Record {
                    id,
                    received_at_us: *received_at_us,
                    body,
                },
            );
        }
        payload
    }

    fn some_records() -> impl Strategy<Value = Vec<(u128, i64, Vec<u8>)>> {
        prop::collection::vec(
            (
                any::<u128>(),
                any::<i64>(),
                prop::collection::vec(any::<u8>(), 1..80),
            ),
            1..20,
        )
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let payload = group(&[(1, -2, b"abc".to_vec())]);
        let mut expected = [0; 15].to_vec();
        expected.push(1);
        expected.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 3]);
        expected.extend(b"abc");
        assert_eq!(payload, expected);
    }

    #[test]
    fn nothing_is_not_a_group() {
        assert_eq!(count(b""), Err(Malformed::Cut { offset: 0 }));
    }

    #[test]
    fn a_group_with_an_empty_ticket_is_none() {
        let (one, empty) = ((1, 2, b"abc".to_vec()), (3, 4, vec![]));
        let payload = group(&[one.clone(), empty, one]);
        let offset = RECORD_HEAD_BYTES + 3;
        assert_eq!(count(&payload), Err(Malformed::Empty { offset }));
        assert_eq!(records(&payload).count(), 3);
    }

    #[test]
    fn a_group_has_a_maximum_of_tickets() {
        let record = group(&[(1, 2, b"x".to_vec())]);
        assert_eq!(count(&record.repeat(RECORDS_MAX)), Ok(RECORDS_MAX));
        let payload = record.repeat(RECORDS_MAX + 1);
        assert_eq!(count(&payload), Err(Malformed::TooMany));
    }

    proptest! {
        #[test]
        fn a_group_decodes_to_what_was_appended(input in some_records()) {
            let payload = group(&input);
            prop_assert_eq!(count(&payload), Ok(input.len()));
            let decoded: Vec<_> = records(&payload)
                .map(|r| (r.id.as_u128(), r.received_at_us, r.body.to_vec()))
                .collect();
            prop_assert_eq!(decoded, input);
        }

        #[test]
        fn a_group_cut_inside_a_record_is_malformed_there(input in some_records(), cut in any::<prop::sample::Index>()) {
            let payload = group(&input);
            let cut = cut.index(payload.len());
            let mut ends = vec![0];
            for (_, _, body) in &input {
                ends.push(ends[ends.len() - 1] + RECORD_HEAD_BYTES + body.len());
            }
            let whole = ends.iter().rposition(|&end| end <= cut).expect("0 is an end");
            let expected = if ends[whole] == cut && whole > 0 { Ok(whole) } else { Err(Malformed::Cut { offset: ends[whole] }) };
            prop_assert_eq!(count(&payload[..cut]), expected);
        }

        #[test]
        fn any_bytes_are_counted_or_rejected(payload in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(n) = count(&payload) {
                prop_assert_eq!(records(&payload).count(), n);
            }
        }
    }
}
