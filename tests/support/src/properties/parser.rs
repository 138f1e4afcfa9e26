//! The parser: what the oracle says, and never more than the columns hold.

use ticketd::ticket::{
    CHARACTERS_MAX, DECIMAL_DIGITS_MAX, DECIMAL_SCALE_MAX, Diagnosis, Invalid, parse, text,
};

use crate::agree::agree;

/// The line where the first product should stand: a ticket may be said to be wrong there even if it
/// ends before.
const FIRST_PRODUCT_LINE: usize = 6;

/// Both parsers agree on any text, and what is read keeps its bounds.
pub fn parser(body: &[u8]) {
    match text(body) {
        Ok(text) => holds(text),
        // Such a body is refused before it is read, but the parser need not rely on that.
        Err(_) => holds(&String::from_utf8_lossy(body)),
    }
}

fn holds(text: &str) {
    agree(text);
    let mut products = Vec::new();
    let ticket = parse(text, &mut products);
    assert_eq!(ticket.invalid.is_none(), !products.is_empty());
    match ticket.invalid {
        None => assert!(ticket.order_id.is_some() && ticket.vat.is_some()),
        Some(invalid) => {
            let lines = text.split('\n').count().max(FIRST_PRODUCT_LINE);
            assert!((1..=lines).contains(&(invalid.line as usize)), "{invalid}");
            diagnosed(text, invalid);
        }
    }
    ticket.order_id.iter().for_each(|it| has_width(it));
    let header = ticket.vat.iter().chain(&ticket.total);
    for amount in header.chain(products.iter().map(|it| &it.price)) {
        let digits = amount.mantissa().unsigned_abs().to_string();
        assert!(digits.len() <= DECIMAL_DIGITS_MAX as usize, "{amount}");
        assert!(amount.scale() <= DECIMAL_SCALE_MAX, "{amount}");
    }
    for product in &products {
        has_width(&product.name);
        has_width(&product.product_id);
    }
}

fn has_width(value: &str) {
    assert!((1..=CHARACTERS_MAX).contains(&value.chars().count()));
}

/// A problem is shown where it is: on its line, or at the end if there is no such line.
fn diagnosed(text: &str, invalid: Invalid) {
    let diagnosis = Diagnosis::new(text, invalid);
    let span = diagnosis.span();
    let shown = text.get(span.clone()).expect("whole characters");
    assert!(!shown.contains('\n'), "{shown:?}");
    let before = &text[..span.start];
    let line = before.matches('\n').count() + 1;
    let lines = text.matches('\n').count() + 1;
    assert_eq!(line, lines.min(invalid.line as usize), "{invalid}");
    let unmarked = before.strip_prefix('\u{feff}').unwrap_or(before);
    let in_line = unmarked.rsplit('\n').next().unwrap();
    assert_eq!(diagnosis.column(), in_line.chars().count() + 1);
    let message = diagnosis.message("ticket");
    assert!(message.contains(invalid.reason.code()), "{message}");
    assert!(
        !message.contains(|c: char| c.is_control() && c != '\n'),
        "{message:?}"
    );
    assert_eq!(diagnosis.json()["invalid_reason"], invalid.to_string());
}
