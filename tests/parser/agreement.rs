//! Properties of the parser, tried on generated tickets. `PROPTEST_CASES` raises the number of
//! tries.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use ticketd::ticket::text;
use ticketd_testing::agree::{agree, read};
use ticketd_testing::generate::{line_by_line, mutated, piece, rendered};

/// A failing input is printed by the test; a seed file beside the sources would say no more.
fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    /// A valid ticket, however it is written, is read as valid with exactly the values written.
    #[test]
    fn a_valid_ticket_gives_back_its_values(ticket in rendered()) {
        let read = read(&ticket.text);
        prop_assert_eq!(read.invalid, None, "{:?}", ticket.text);
        prop_assert_eq!(read.order_id, Some(ticket.order_id));
        prop_assert_eq!(read.vat, Some(ticket.vat));
        prop_assert_eq!(read.total, Some(ticket.total));
        prop_assert_eq!(read.products, ticket.products);
    }

    #[test]
    fn both_parsers_agree_on_valid_tickets(ticket in rendered()) {
        agree(&ticket.text);
    }

    #[test]
    fn both_parsers_agree_on_mutated_tickets(input in mutated()) {
        agree(&input);
    }

    #[test]
    fn both_parsers_agree_on_tickets_made_line_by_line(input in line_by_line()) {
        agree(&input);
    }

    #[test]
    fn both_parsers_agree_on_random_pieces(pieces in vec(piece(), 0..40)) {
        agree(&pieces.concat());
    }

    /// Bytes of any kind either are no text or are read alike; nothing panics.
    #[test]
    fn both_parsers_agree_on_any_bytes(body in vec(any::<u8>(), 0..200)) {
        if let Ok(input) = text(&body) {
            agree(input);
        }
        agree(&String::from_utf8_lossy(&body));
    }

    /// One changed digit anywhere in the total makes a valid ticket a mismatch, however small the
    /// digit.
    #[test]
    fn a_wrong_total_is_never_valid(ticket in rendered(), at in any::<Index>(), by in 1..10u8) {
        let digits = ticket.total.match_indices(|it: char| it.is_ascii_digit());
        let digits: Vec<usize> = digits.map(|(at, _)| at).collect();
        let at = digits[at.index(digits.len())];
        let mut total = ticket.total.clone().into_bytes();
        total[at] = b'0' + (total[at] - b'0' + by) % 10;
        let total = String::from_utf8(total).unwrap();
        let (head, tail) = ticket.text.split_once("\nTotal:").unwrap();
        let text = format!("{head}\nTotal:{}", tail.replacen(&ticket.total, &total, 1));
        let invalid = read(&text).invalid;
        prop_assert!(invalid.is_some(), "{text:?}");
        agree(&text);
    }
}
