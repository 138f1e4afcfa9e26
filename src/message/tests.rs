use super::*;
use crate::source::SOURCE_BYTES_MAX;
use GroupVersion::{V1, V2};
use proptest::prelude::*;

/// A record whose parts are owned.
type Parts = (u128, i64, Option<String>, Option<i64>, Vec<u8>);

fn record(parts: &Parts) -> Record<'_> {
    let (id, received_at_us, source, issued_at_us, body) = parts;
    let source = source
        .as_ref()
        .map(|name| SourceRef::parse(name.as_bytes()));
    Record {
        id: Uuid::from_u128(*id),
        received_at_us: *received_at_us,
        origin: Origin {
            source: source.map(|source| source.expect("a source")),
            issued_at_us: *issued_at_us,
        },
        body,
    }
}

fn plain(id: u128, received_at_us: i64, body: &[u8]) -> Parts {
    (id, received_at_us, None, None, body.to_vec())
}

fn group(version: GroupVersion, records: &[Parts]) -> Vec<u8> {
    let mut payload = Vec::new();
    for parts in records {
        append(version, &mut payload, record(parts));
    }
    payload
}

/// Records of a version.
fn some_records(version: GroupVersion) -> impl Strategy<Value = Vec<Parts>> {
    let source = prop::option::of("[a-z0-9._-]{1,64}");
    // Near 1970 its first bytes are those of a short length.
    let issued_at_us = prop_oneof![i64::MIN + 1..=i64::MAX, 0..1_i64 << 44];
    let issued_at_us = prop::option::of(issued_at_us);
    let body = prop::collection::vec(any::<u8>(), 1..80);
    let parts = (any::<u128>(), any::<i64>(), source, issued_at_us, body);
    let parts = parts.prop_map(move |parts| match version {
        V1 => (parts.0, parts.1, None, None, parts.4),
        V2 => parts,
    });
    prop::collection::vec(parts, 1..20)
}

fn any_group() -> impl Strategy<Value = (GroupVersion, Vec<Parts>)> {
    prop_oneof![Just(V1), Just(V2)].prop_flat_map(|version| (Just(version), some_records(version)))
}

#[test]
fn the_layout_of_version_1_is_the_documented_one() {
    let payload = group(V1, &[plain(1, -2, b"abc")]);
    let mut expected = [0; 15].to_vec();
    expected.push(1);
    expected.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 3]);
    expected.extend(b"abc");
    assert_eq!(payload, expected);
}

#[test]
fn the_layout_of_version_2_is_the_documented_one() {
    let known = (1, -2, Some("shop-1".to_owned()), Some(3), b"abc".to_vec());
    let payload = group(V2, &[known, plain(1, -2, b"d")]);
    let head = [[0; 15].as_slice(), &[1], &[0xff; 7], &[0xfe]].concat();
    let first = [128 + 6, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 3];
    let second = [128, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let expected = [&head[..], &first, b"shop-1abc", &head, &second, b"d"].concat();
    assert_eq!(payload, expected);
}

#[test]
fn a_version_is_told_by_its_content_type() {
    for version in [V1, V2] {
        assert_eq!(GroupVersion::of(version.content_type()), Some(version));
    }
    let first = [
        "Application/X-Ticket-Group",
        "application/x-ticket-group;version=1",
    ];
    let first = first
        .into_iter()
        .chain(["application/x-ticket-group; charset=binary"]);
    assert!(
        first
            .into_iter()
            .all(|name| GroupVersion::of(name) == Some(V1))
    );
    let second = "application/x-ticket-group ; a=b; Version = \"2\"";
    assert_eq!(GroupVersion::of(second), Some(V2));
    for name in [
        "text/plain",
        "",
        "application/x-ticket-group; version=3",
        "version=2",
    ] {
        assert_eq!(GroupVersion::of(name), None, "{name}");
    }
}

#[test]
fn nothing_is_not_a_group() {
    for version in [V1, V2] {
        assert_eq!(count(version, b""), Err(Malformed::Cut { offset: 0 }));
    }
}

#[test]
fn a_group_with_an_empty_ticket_is_none() {
    let (one, empty) = (plain(1, 2, b"abc"), plain(3, 4, b""));
    let records_of = |version| group(version, &[one.clone(), empty.clone(), one.clone()]);
    for (version, head) in [(V1, RECORD_HEAD_BYTES), (V2, RECORD_HEAD_BYTES_V2)] {
        let payload = records_of(version);
        let offset = head + 3;
        assert_eq!(count(version, &payload), Err(Malformed::Empty { offset }));
        assert_eq!(records(version, &payload).count(), 3);
    }
}

#[test]
fn a_group_has_a_maximum_of_tickets() {
    for version in [V1, V2] {
        let record = group(version, &[plain(1, 2, b"x")]);
        let most = record.repeat(RECORDS_MAX);
        assert_eq!(count(version, &most), Ok(RECORDS_MAX));
        let payload = record.repeat(RECORDS_MAX + 1);
        assert_eq!(count(version, &payload), Err(Malformed::TooMany));
    }
}

#[test]
fn what_is_no_source_makes_a_group_malformed() {
    let good = plain(1, 2, b"abc");
    let longest = "s".repeat(SOURCE_BYTES_MAX);
    let known = (1, 2, Some(longest), Some(3), vec![b'x'; 200]);
    let payload = group(V2, &[good.clone(), known]);
    let second = RECORD_HEAD_BYTES_V2 + 3;
    assert_eq!(count(V2, &payload), Ok(2));
    let changed = |at: usize, byte: u8| {
        let mut payload = payload.clone();
        payload[second + at] = byte;
        count(V2, &payload)
    };
    let malformed = Err(Malformed::Cut { offset: second });
    assert_eq!(changed(24, 128 + 65), malformed, "too long");
    assert_eq!(changed(24, 127), malformed, "without the highest bit");
    for byte in [b'S', b' ', 0, 0xff] {
        assert_eq!(changed(RECORD_HEAD_BYTES_V2, byte), malformed);
    }
}

proptest! {
    #[test]
    fn a_group_decodes_to_what_was_appended((version, input) in any_group()) {
        let payload = group(version, &input);
        prop_assert_eq!(count(version, &payload), Ok(input.len()));
        let decoded: Vec<_> = records(version, &payload).collect();
        let expected: Vec<_> = input.iter().map(record).collect();
        prop_assert_eq!(&decoded, &expected);
        let bytes: usize = decoded.iter().map(|r| version.overhead_bytes(&r.origin) + r.body.len()).sum();
        prop_assert_eq!(bytes, payload.len());
    }

    #[test]
    fn an_upgraded_group_has_the_same_records(input in some_records(V1)) {
        let payload = upgraded(&group(V1, &input), input.len());
        prop_assert_eq!(payload, group(V2, &input));
    }

    /// What a consumer finds that knows only version 1: nothing, whatever the senders wrote.
    #[test]
    fn version_2_cannot_be_taken_for_version_1(input in some_records(V2)) {
        let payload = group(V2, &input);
        prop_assert_eq!(records(V1, &payload).count(), 0);
        prop_assert_eq!(count(V1, &payload), Err(Malformed::Cut { offset: 0 }));
    }

    #[test]
    fn a_group_cut_inside_a_record_is_malformed_there((version, input) in any_group(), cut in any::<prop::sample::Index>()) {
        let payload = group(version, &input);
        let cut = cut.index(payload.len());
        let mut ends = vec![0];
        for parts in &input {
            let record = record(parts);
            ends.push(ends[ends.len() - 1] + version.overhead_bytes(&record.origin) + record.body.len());
        }
        let whole = ends.iter().rposition(|&end| end <= cut).expect("0 is an end");
        let expected = if ends[whole] == cut && whole > 0 { Ok(whole) } else { Err(Malformed::Cut { offset: ends[whole] }) };
        prop_assert_eq!(count(version, &payload[..cut]), expected);
    }

    #[test]
    fn any_bytes_are_counted_or_rejected(version in prop_oneof![Just(V1), Just(V2)], payload in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(n) = count(version, &payload) {
            prop_assert_eq!(records(version, &payload).count(), n);
        }
    }

    /// The same, of bytes that are nearly a group.
    #[test]
    fn changed_groups_are_counted_or_rejected((version, input) in any_group(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut payload = group(version, &input);
        let at = at.index(payload.len());
        payload[at] = byte;
        if let Ok(n) = count(version, &payload) {
            prop_assert_eq!(records(version, &payload).count(), n);
        }
    }
}
