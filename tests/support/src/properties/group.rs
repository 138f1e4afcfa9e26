//! Groups: any bytes are cut into records or refused, and tickets come out as they were put in.

use std::ops::Range;

use ticketd::message::{Malformed, RECORD_HEAD_BYTES, RECORDS_MAX, append, count, records};

use super::{deliver, tickets};

/// Decoding any payload keeps to its bytes, and encoding what was decoded gives them back; tickets
/// that are published are delivered as they were.
pub fn group(input: &[u8]) {
    decodes(input);
    comes_back(input);
}

fn decodes(payload: &[u8]) {
    let (bodies, end) = bodies(payload);
    let mut again = Vec::new();
    let mut found = 0;
    for (record, body) in records(payload).zip(&bodies) {
        // The very bytes, neither a copy nor another record's.
        assert_eq!(
            record.body.as_ptr_range(),
            payload[body.clone()].as_ptr_range()
        );
        append(&mut again, record);
        found += 1;
    }
    assert_eq!(
        (found, records(payload).count()),
        (bodies.len(), bodies.len())
    );
    assert_eq!(again, payload[..end]);
    let empty = bodies.iter().position(Range::is_empty);
    let expected = if let Some(at) = empty.filter(|&at| at <= RECORDS_MAX) {
        let offset = bodies[at].start - RECORD_HEAD_BYTES;
        Err(Malformed::Empty { offset })
    } else if found > RECORDS_MAX {
        Err(Malformed::TooMany)
    } else if end == payload.len() && found > 0 {
        Ok(found)
    } else {
        Err(Malformed::Cut { offset: end })
    };
    assert_eq!(count(payload), expected);
}

/// Where the bodies of a payload's records lie, and where the last record ends.
fn bodies(payload: &[u8]) -> (Vec<Range<usize>>, usize) {
    let (mut bodies, mut end) = (Vec::new(), 0);
    while payload.len() - end >= RECORD_HEAD_BYTES {
        let start = end + RECORD_HEAD_BYTES;
        let length = payload[start - 4..start]
            .iter()
            .fold(0, |length, &byte| length * 256 + usize::from(byte));
        if length > payload.len() - start {
            break;
        }
        end = start + length;
        bodies.push(start..end);
    }
    (bodies, end)
}

fn comes_back(input: &[u8]) {
    let sent = tickets(input);
    let delivered = deliver(&sent);
    assert_eq!(delivered.tickets, sent.len());
    let expected: Vec<_> = sent.into_iter().map(|ticket| (ticket, None)).collect();
    let received: Vec<_> = delivered.records().collect();
    assert_eq!(received, expected);
}
