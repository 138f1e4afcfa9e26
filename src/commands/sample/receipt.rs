//! One made-up ticket, as a till writes it: right, or wrong in a way that tills are.

use std::fmt::Write;

use super::catalogue::Article;

/// A name with a comma, without the quotes that it needs, and its price in cents.
const UNQUOTED: (&str, i64) = ("Lait demi-écrémé, 1 L,CRE-001", 118);

/// What was bought.
#[derive(Debug, Clone)]
pub(super) struct Receipt {
    /// The till's number of it.
    pub order: u64,
    /// Each with one line.
    pub articles: Vec<Article>,
    /// Off the price, in cents.
    pub discount: i64,
    /// What the till does wrong.
    pub fault: Option<Fault>,
}

/// What a till does wrong. The first line is right with all of them, so that many tickets in one text
/// can be told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The VAT has a decimal comma.
    CommaInVat,
    /// The total has its currency.
    CurrencyInTotal,
    /// The blank line is missing.
    NoBlankLine,
    /// The heading is in French.
    OtherHeading,
    /// Nothing was bought.
    NoProducts,
    /// A name with a comma has no quotes.
    UnquotedName,
    /// The total is a cent off.
    WrongTotal,
}

impl Fault {
    /// Every fault.
    pub(super) const ALL: [Self; 7] = [
        Self::CommaInVat,
        Self::CurrencyInTotal,
        Self::NoBlankLine,
        Self::OtherHeading,
        Self::NoProducts,
        Self::UnquotedName,
        Self::WrongTotal,
    ];
}

impl Receipt {
    /// The ticket.
    pub(super) fn text(&self) -> String {
        let is = |fault| self.fault == Some(fault);
        let vat = decimal(self.vat());
        let vat = match is(Fault::CommaInVat) {
            true => vat.replace('.', ","),
            false => vat,
        };
        let total = decimal(self.total() + i64::from(is(Fault::WrongTotal)));
        let currency = if is(Fault::CurrencyInTotal) {
            " EUR"
        } else {
            ""
        };
        let blank = if is(Fault::NoBlankLine) { "" } else { "\n" };
        let heading = match is(Fault::OtherHeading) {
            true => "produit,référence,prix",
            false => "product,product_id,price",
        };
        let products = if is(Fault::NoProducts) {
            String::new()
        } else {
            self.products()
        };
        format!(
            "Order: {}\nVAT: {vat}\nTotal: {total}{currency}\n{blank}{heading}\n{products}",
            self.order
        )
    }

    fn products(&self) -> String {
        let mut lines = String::new();
        for article in &self.articles {
            let price = decimal(article.cents);
            // Writing to a string cannot fail.
            let _written = writeln!(lines, "{},{},{price}", quoted(article.name), article.id);
        }
        if self.fault == Some(Fault::UnquotedName) {
            let (product, cents) = UNQUOTED;
            let _written = writeln!(lines, "{product},{}", decimal(cents));
        }
        if self.discount > 0 {
            let _written = writeln!(lines, "Remise fidélité,REM-001,{}", decimal(-self.discount));
        }
        lines
    }

    /// In cents.
    fn total(&self) -> i64 {
        let articles: i64 = self.articles.iter().map(|article| article.cents).sum();
        articles - self.discount
    }

    /// In cents, rounded for each article. A discount leaves it less than it could be.
    fn vat(&self) -> i64 {
        let vat =
            |article: &Article| (article.cents * article.vat * 2 / (1000 + article.vat) + 1) / 2;
        let vat: i64 = self.articles.iter().map(vat).sum();
        vat - self.discount * vat / (self.total() + self.discount).max(1)
    }
}

/// As RFC 4180 has it, where it is needed.
fn quoted(name: &str) -> String {
    if name.contains(['"', ',']) {
        format!("\"{}\"", name.replace('"', "\"\""))
    } else {
        name.to_owned()
    }
}

fn decimal(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    let cents = cents.unsigned_abs();
    format!("{sign}{}.{:02}", cents / 100, cents % 100)
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::CATALOGUE;
    use super::*;
    use crate::ticket::{Reason, parse};
    use rust_decimal::Decimal;

    fn all(fault: Option<Fault>) -> Receipt {
        Receipt {
            order: 4711,
            articles: CATALOGUE.to_vec(),
            discount: 150,
            fault,
        }
    }

    #[test]
    fn the_whole_catalogue_is_a_valid_ticket() {
        let text = all(None).text();
        let mut products = Vec::new();
        let ticket = parse(&text, &mut products);
        assert_eq!(ticket.invalid, None, "{text}");
        assert_eq!(products.len(), CATALOGUE.len() + 1);
        for (product, article) in products.iter().zip(&CATALOGUE) {
            assert_eq!(product.name, article.name);
        }
        let (vat, total) = (ticket.vat.expect("VAT"), ticket.total.expect("a total"));
        // More than that the highest rate does not allow.
        assert!(
            vat + vat + vat + vat + vat + vat < total,
            "{vat} of {total}"
        );
        assert!(vat + vat > Decimal::ONE, "{vat}");
    }

    #[test]
    fn each_fault_is_found() {
        for (fault, reason) in Fault::ALL.into_iter().zip([
            Reason::BadVat,
            Reason::BadTotal,
            Reason::MissingBlankLine,
            Reason::BadProductHeader,
            Reason::NoProducts,
            Reason::BadProductLine,
            Reason::TotalMismatch,
        ]) {
            let text = all(Some(fault)).text();
            let invalid = parse(&text, &mut Vec::new()).invalid.expect("a reason");
            assert_eq!(invalid.reason, reason, "{text}");
        }
    }

    #[test]
    fn amounts_are_decimals() {
        for (cents, text) in [(0, "0.00"), (5, "0.05"), (1690, "16.90"), (-150, "-1.50")] {
            assert_eq!(decimal(cents), text);
        }
    }
}
