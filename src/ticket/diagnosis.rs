//! Where in an invalid ticket its problem stands, for people. Found again from the verdict, so that
//! reading a ticket costs nothing for it.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde_json::{Value, json};

use super::parser::{BYTE_ORDER_MARK, faulty_field, split_line, trimmed};
use super::{Invalid, Reason};

/// An invalid ticket's problem, and the place of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis<'a> {
    /// The text without its byte order mark.
    text: &'a str,
    /// What the byte order mark takes, in bytes.
    mark_bytes: usize,
    invalid: Invalid,
    /// In that text.
    span: Range<usize>,
}

impl<'a> Diagnosis<'a> {
    /// Finds the place of this problem, which parsing this text has found.
    pub fn new(text: &'a str, invalid: Invalid) -> Self {
        let unmarked = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        Self {
            text: unmarked,
            mark_bytes: text.len() - unmarked.len(),
            invalid,
            span: span(unmarked, invalid),
        }
    }

    /// What is wrong, and on which line.
    pub fn invalid(&self) -> Invalid {
        self.invalid
    }

    /// What is wrong, in bytes of the ticket as it came. Empty where something is missing.
    pub fn span(&self) -> Range<usize> {
        self.span.start + self.mark_bytes..self.span.end + self.mark_bytes
    }

    /// Where that begins in its line, in characters, from 1.
    pub fn column(&self) -> usize {
        let before = self.text.get(..self.span.start).unwrap_or_default();
        let line = before.rsplit('\n').next().unwrap_or_default();
        line.chars().count() + 1
    }

    /// A compiler's message about it, of several lines without a line end after the last. Characters
    /// that would steer a terminal are shown by others.
    pub fn message(&self, name: &str) -> String {
        let reason = self.invalid.reason;
        let annotation = AnnotationKind::Primary.span(self.span.clone());
        let snippet = Snippet::source(self.text).path(name).annotation(annotation);
        let title = Level::ERROR
            .primary_title(reason.explain())
            .id(reason.code());
        let message = Renderer::plain().render(&[title.element(snippet)]);
        // Most are shown by others already, but not those of C1, which some terminals heed.
        message.replace(steers_a_terminal, "\u{fffd}")
    }

    /// As JSON: `start` and `end` are the span.
    pub fn json(&self) -> Value {
        let Invalid { reason, line } = self.invalid;
        let Range { start, end } = self.span();
        json!({
            "valid": false,
            "invalid_reason": self.invalid.to_string(),
            "reason": reason.code(),
            "line": line,
            "column": self.column(),
            "start": start,
            "end": end,
            "detail": reason.explain(),
        })
    }
}

fn steers_a_terminal(character: char) -> bool {
    character.is_control() && character != '\n'
}

fn span(text: &str, invalid: Invalid) -> Range<usize> {
    let (start, line) = line_at(text, invalid.line);
    let within = match invalid.reason {
        Reason::MissingOrder | Reason::BadOrder => value(line, "Order:"),
        Reason::BadVat => value(line, "VAT:"),
        Reason::BadTotal | Reason::TotalMismatch => value(line, "Total:"),
        Reason::BadProductLine => faulty_field(line),
        Reason::MissingBlankLine | Reason::BadProductHeader | Reason::NoProducts => {
            trimmed(line, 0..line.len())
        }
    };
    start + within.start..start + within.end
}

/// The value behind the key, or all of the line where that has another key.
fn value(line: &str, key: &str) -> Range<usize> {
    let start = if line.starts_with(key) { key.len() } else { 0 };
    trimmed(line, start..line.len())
}

/// Where a line begins, and the line without its end; what is behind the end is empty.
fn line_at(text: &str, number: u32) -> (usize, &str) {
    let mut rest = text;
    for _ in 1..number {
        rest = split_line(rest).1;
    }
    (text.len() - rest.len(), split_line(rest).0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ticket::parse;

    /// What is shown of a ticket, and the place of it in characters, from 1.
    fn shown(text: &str) -> (String, String, usize) {
        let invalid = parse(text, &mut Vec::new()).invalid.expect("invalid");
        let diagnosis = Diagnosis::new(text, invalid);
        let shown = text.get(diagnosis.span()).expect("characters").to_owned();
        (invalid.to_string(), shown, diagnosis.column())
    }

    fn with_product(line: &str) -> String {
        format!("Order: 1\nVAT: 2\nTotal: 3\n\nproduct,product_id,price\r\n{line}\r\n")
    }

    #[test]
    fn the_part_that_is_wrong_is_shown() {
        let long = "x".repeat(256);
        for (text, verdict, part, column) in [
            ("Order:  \nVAT: 1", "missing_order:1", "", 9),
            ("order: 7\n", "missing_order:1", "order: 7", 1),
            (&format!("Order: {long}"), "bad_order:1", &long, 8),
            ("Order: 1\r\nVAT:\t3,10 \r\n", "bad_vat:2", "3,10", 6),
            ("Order: 1\nTotal: 1\n", "bad_vat:2", "Total: 1", 1),
            ("\u{feff}Order: 1\nVAT: é\n", "bad_vat:2", "é", 6),
            ("Order: 1\nVAT: 1", "bad_total:3", "", 7),
            ("Order: 1\nVAT: 1\nTotal: x", "bad_total:3", "x", 8),
            (
                "Order: 1\nVAT: 1\nTotal: 1\n x\n",
                "missing_blank_line:4",
                "x",
                2,
            ),
            (&with_product(""), "no_products:6", "", 1),
            (&with_product("a"), "bad_product_line:6", "a", 1),
            (&with_product(" ,b,1"), "bad_product_line:6", "", 2),
            (
                &with_product(&format!("{long},b,1")),
                "bad_product_line:6",
                &long,
                1,
            ),
            (&with_product("é, ,1"), "bad_product_line:6", "", 4),
            (&with_product("a, b, 1 2 "), "bad_product_line:6", "1 2", 7),
            (&with_product("a,b,1,2"), "bad_product_line:6", "1,2", 5),
            (&with_product("\"a,b,1"), "bad_product_line:6", "\"a,b,1", 1),
            (&with_product("a,b,4"), "total_mismatch:3", "3", 8),
        ] {
            let expected = (verdict.to_owned(), part.to_owned(), column);
            assert_eq!(shown(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_message_shows_the_line_and_steers_no_terminal() {
        let text = "Order: 1\nVAT: \u{1b}[31m\u{202e}\u{9b}3\n";
        let invalid = parse(text, &mut Vec::new()).invalid.expect("invalid");
        let diagnosis = Diagnosis::new(text, invalid);
        let message = diagnosis.message("till.txt");
        assert!(message.starts_with("error[bad_vat]: "), "{message}");
        assert!(message.contains("--> till.txt:2:6\n"), "{message}");
        assert!(message.contains("^^^^"), "{message}");
        let steers = |c: char| c == '\u{202e}' || steers_a_terminal(c);
        assert!(!message.contains(steers), "{message:?}");
        let json = diagnosis.json();
        let place = ["line", "column", "start"].map(|name| json[name].as_u64());
        assert_eq!(place, [Some(2), Some(6), Some(14)]);
    }
}
