//! The properties that `make fuzz` attacks, on the inputs that it left and on generated tickets;
//! neither needs servers or libFuzzer. `PROPTEST_CASES` raises the number of tries.

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use ticketd::message::{self, GroupVersion, Record};
use ticketd::source::{Origin, SourceRef};
use ticketd_testing::generate::{line_by_line, mutated, piece, rendered};
use ticketd_testing::properties::{SEPARATOR, group, parser, row, split};
use uuid::Uuid;

/// The usual 256 are few for what can differ from ticket to ticket.
const CASES_MIN: u32 = 1000;

fn config() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig {
        cases: usual.cases.max(CASES_MIN),
        // A failing input is printed by the test.
        failure_persistence: None,
        ..usual
    }
}

/// Calls a property on each file of a folder; the name of one that fails is printed last.
fn replay(folder: &str, property: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files = 0;
    for file in fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        eprintln!("{}", path.display());
        property(&fs::read(&path).unwrap());
        files += 1;
    }
    assert!(files > 0, "nothing in {}", folder.display());
}

fn replay_all(corpus: &str, property: fn(&[u8])) {
    // libFuzzer tries nothing at all first, and so keeps no file of it.
    property(b"");
    replay(&format!("fuzz/corpus/{corpus}"), property);
    replay("tests/tickets/valid", property);
    replay("tests/tickets/invalid", property);
}

#[test]
fn the_parser_holds_on_the_corpus() {
    replay_all("parser", parser);
}

#[test]
fn groups_hold_on_the_corpus() {
    replay_all("group", group);
}

#[test]
fn rows_hold_on_the_corpus() {
    replay_all("row", row);
}

#[test]
fn splitting_holds_on_the_corpus() {
    replay_all("split", split);
}

/// What may be sent as many tickets: bodies one behind the other, and what looks like the beginning
/// of one.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    const EDGES: [&str; 13] = [
        "",
        "\n",
        "\r\n",
        "\r",
        "\u{feff}",
        "Order:",
        "\nOrder:",
        "\rOrder:",
        "\n\u{feff}Order: 1",
        "\nOrde",
        " \t\n",
        "\n\"Order: 1\",a,1\n",
        "\n\u{feff}",
    ];
    let edge = select(&EDGES[..]).prop_map(|edge| edge.as_bytes().to_vec());
    vec(prop_oneof![3 => edge, 1 => body()], 0..12).prop_map(|parts| parts.concat())
}

/// What may be sent as a ticket: good, nearly good, or nothing of the kind.
fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => rendered().prop_map(|ticket| ticket.text.into_bytes()),
        2 => mutated().prop_map(String::into_bytes),
        2 => line_by_line().prop_map(String::into_bytes),
        1 => vec(piece(), 0..40).prop_map(|pieces| pieces.concat().into_bytes()),
        1 => vec(any::<u8>(), 0..200),
    ]
}

/// A group's payload in which a byte or two are not what they were.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let source = prop_oneof![Just(String::new()), "[a-z0-9._-]{1,64}"];
    let issued_at_us = proptest::option::of(any::<i64>());
    let record = (
        any::<u128>(),
        any::<i64>(),
        source,
        issued_at_us,
        vec(any::<u8>(), 0..40),
    );
    let version = prop_oneof![Just(GroupVersion::V1), Just(GroupVersion::V2)];
    let changes = vec((any::<Index>(), any::<u8>()), 0..3);
    (version, vec(record, 1..8), changes).prop_map(|(version, records, changes)| {
        let mut payload = Vec::new();
        for (id, received_at_us, source, issued_at_us, body) in &records {
            let record = Record {
                id: Uuid::from_u128(*id),
                received_at_us: *received_at_us,
                origin: Origin {
                    source: SourceRef::parse(source.as_bytes()).ok(),
                    issued_at_us: *issued_at_us,
                },
                body,
            };
            message::append(version, &mut payload, record);
        }
        for (at, byte) in changes {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        payload
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_parser_holds_on_what_is_sent(body in body()) {
        parser(&body);
    }

    #[test]
    fn groups_hold_on_what_is_delivered(payload in payload()) {
        group(&payload);
    }

    #[test]
    fn rows_hold_on_what_is_sent(bodies in vec(body(), 1..6)) {
        row(&bodies.join(&SEPARATOR));
    }

    #[test]
    fn splitting_holds_on_what_is_sent(bodies in bodies()) {
        split(&bodies);
    }
}
