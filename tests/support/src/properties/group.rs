//! Groups: any bytes are cut into records or refused, and tickets come out as they were put in.

use std::ops::Range;

use ticketd::message::{GroupVersion, Malformed, RECORDS_MAX, append, count, records};

use super::{deliver, tickets};

/// Decoding any payload keeps to its bytes, and encoding what was decoded gives them back; tickets
/// that are published are delivered as they were.
pub fn group(input: &[u8]) {
    decodes(GroupVersion::V1, input);
    decodes(GroupVersion::V2, input);
    comes_back(input);
}

/// Where a record begins, and where its body lies.
struct Found {
    start: usize,
    body: Range<usize>,
}

fn decodes(version: GroupVersion, payload: &[u8]) {
    let (found, end) = found(version, payload);
    let mut again = Vec::new();
    for (record, found) in records(version, payload).zip(&found) {
        // The very bytes, neither a copy nor another record's.
        assert_eq!(
            record.body.as_ptr_range(),
            payload[found.body.clone()].as_ptr_range()
        );
        append(version, &mut again, record);
    }
    assert_eq!(records(version, payload).count(), found.len());
    assert_eq!(again, payload[..end]);
    let empty = found.iter().position(|found| found.body.is_empty());
    let expected = if let Some(at) = empty.filter(|&at| at <= RECORDS_MAX) {
        let offset = found[at].start;
        Err(Malformed::Empty { offset })
    } else if found.len() > RECORDS_MAX {
        Err(Malformed::TooMany)
    } else if end == payload.len() && !found.is_empty() {
        Ok(found.len())
    } else {
        Err(Malformed::Cut { offset: end })
    };
    assert_eq!(count(version, payload), expected);
}

/// A payload's records, and where the last one ends.
fn found(version: GroupVersion, payload: &[u8]) -> (Vec<Found>, usize) {
    let (mut found, mut end) = (Vec::new(), 0);
    while let Some(body) = body(version, payload, end) {
        found.push(Found {
            start: end,
            body: body.clone(),
        });
        end = body.end;
    }
    (found, end)
}

/// Where the body of the record that begins there lies, if one does.
fn body(version: GroupVersion, payload: &[u8], start: usize) -> Option<Range<usize>> {
    let number = |at: usize| {
        let bytes = payload.get(at..at + 4)?;
        Some(
            bytes
                .iter()
                .fold(0, |sum, &byte| sum * 256 + usize::from(byte)),
        )
    };
    let (begin, length) = match version {
        GroupVersion::V1 => (start + 28, number(start + 24)?),
        GroupVersion::V2 => {
            let source = usize::from(*payload.get(start + 24)?).checked_sub(128)?;
            let length = number(start + 33)?;
            let name = payload.get(start + 37..start + 37 + source)?;
            let known = b"abcdefghijklmnopqrstuvwxyz0123456789._-";
            if source > 64 || !name.iter().all(|byte| known.contains(byte)) {
                return None;
            }
            (start + 37 + source, length)
        }
    };
    (length <= payload.len() - begin).then(|| begin..begin + length)
}

fn comes_back(input: &[u8]) {
    let sent = tickets(input);
    let delivered = deliver(&sent);
    assert_eq!(delivered.tickets, sent.len());
    let expected: Vec<_> = sent.into_iter().map(|ticket| (ticket, None)).collect();
    let received: Vec<_> = delivered.records().collect();
    assert_eq!(received, expected);
}
