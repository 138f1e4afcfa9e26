//! The comparison of the parser with the oracle, for every test that has a text to compare them on.

use ticketd::ticket::{Ticket, parse};

use crate::oracle;

/// What the parser read, in the oracle's terms.
pub fn read(input: &str) -> oracle::Reading {
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
    oracle::Reading {
        order_id: order_id.map(str::to_owned),
        vat: vat.map(|it| it.to_string()),
        total: total.map(|it| it.to_string()),
        invalid: invalid.map(|it| (it.reason, it.line as usize)),
        products: products.collect(),
    }
}

/// Asserts that both parsers read the same.
pub fn agree(input: &str) {
    assert_eq!(read(input), oracle::parse(input), "{input:?}");
}
