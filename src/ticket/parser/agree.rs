//! The comparison of the parser with the oracle, for every test that has a text to compare them on.

use super::{Ticket, naive, parse};

/// What the parser read, in the naive parser's terms.
pub(super) fn read(input: &str) -> naive::NaiveTicket {
    let mut products = Vec::new();
    let Ticket {
        order_id,
        vat,
        total,
        invalid,
    } = parse(input, &mut products);
    let products = products.iter().map(|it| {
        [
            it.name.to_string(),
            it.product_id.to_string(),
            it.price.to_string(),
        ]
    });
    naive::NaiveTicket {
        order_id: order_id.map(str::to_owned),
        vat: vat.map(|it| it.to_string()),
        total: total.map(|it| it.to_string()),
        invalid: invalid.map(|it| (it.reason, it.line as usize)),
        products: products.collect(),
    }
}

/// Asserts that both parsers read the same.
pub(super) fn agree(input: &str) {
    assert_eq!(read(input), naive::parse(input), "{input:?}");
}
