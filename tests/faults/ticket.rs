//! Tickets to send, each unlike any other, and a small reader of its own for what was stored of them.

use fastrand::Rng;

/// Products that every till sells, at ever changing prices.
const COMMON_PRODUCTS: u64 = 24;

/// Products whose names stay, and whose prices mostly do.
const STEADY_PRODUCTS: u64 = 8;

/// What a ticket is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Valid, lines ending in LF.
    Valid,
    /// Valid, lines ending in CRLF.
    Crlf,
    /// Valid, with so many lines that it has about 60 KB.
    Large,
    /// Text, but no valid ticket.
    Invalid,
}

/// A ticket whose order id is unique, and with it the whole text.
pub(crate) fn ticket(order: &str, shape: Shape, rng: &mut Rng) -> String {
    let lines = if shape == Shape::Large {
        3_000
    } else {
        rng.u64(1..5)
    };
    let products: Vec<_> = (0..lines).map(|_| line(order, rng)).collect();
    let text = match shape {
        // So many names would be too long.
        Shape::Large => {
            let short = products
                .into_iter()
                .map(|(_, id, cents)| (format!("Large {id}"), id, cents));
            render(order, &short.collect::<Vec<_>>(), 0)
        }
        Shape::Invalid => spoil(&render(order, &products, 0), order, rng),
        Shape::Valid | Shape::Crlf => render(order, &products, 0),
    };
    if shape == Shape::Crlf {
        text.replace('\n', "\r\n")
    } else {
        text
    }
}

/// Name, id and cents of a product.
fn line(order: &str, rng: &mut Rng) -> (String, String, i64) {
    if rng.bool() {
        let product = rng.u64(0..STEADY_PRODUCTS);
        let cents = if rng.u8(0..4) == 0 { 250 } else { 200 };
        return (format!("Steady {product}"), format!("s{product}"), cents);
    }
    let product = rng.u64(0..COMMON_PRODUCTS);
    (
        format!("Café {product} of {order}"),
        format!("c{product}"),
        rng.i64(-200..5_000),
    )
}

/// A valid ticket for one product that no other ticket sells.
pub(crate) fn rare(order: &str, product: &str, cents: i64) -> String {
    render(
        order,
        &[(format!("Rare as {order} has it"), product.into(), cents)],
        0,
    )
}

fn render(order: &str, products: &[(String, String, i64)], too_much: i64) -> String {
    let total = products.iter().map(|(_, _, cents)| cents).sum::<i64>() + too_much;
    let mut text = format!(
        "Order: {order}\nVAT: {}\nTotal: {}\n\nproduct,product_id,price\n",
        money(total / 10),
        money(total)
    );
    for (name, id, cents) in products {
        text += &format!("{name},{id},{}\n", money(*cents));
    }
    text
}

fn spoil(text: &str, order: &str, rng: &mut Rng) -> String {
    match rng.u8(0..5) {
        0 => text.replace("Total: ", "Total: 1"),
        1 => text.replace("VAT: ", "VAT: x"),
        2 => text.replace("Order: ", "Bon: "),
        3 => format!("{text}Thé sans prix,of {order}\n"),
        _ => format!("nothing but the number {order}"),
    }
}

fn money(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    let cents = cents.unsigned_abs();
    format!("{sign}{}.{:02}", cents / 100, cents % 100)
}

/// A ticket as far as this reader knows them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Read {
    /// The order id.
    pub order_id: String,
    /// The total, as written.
    pub total: String,
    /// Name, id and price, the latter as written.
    pub products: Vec<(String, String, String)>,
}

/// Reads a ticket of the shapes above; none if it is not valid.
pub(crate) fn read(text: &str) -> Option<Read> {
    let text = text.replace("\r\n", "\n");
    let (head, products) = text.split_once("\n\nproduct,product_id,price\n")?;
    let [order_id, vat, total] = head.split('\n').collect::<Vec<_>>().try_into().ok()?;
    cents(vat.strip_prefix("VAT: ")?)?;
    let total = total.strip_prefix("Total: ")?;
    let products = products
        .lines()
        .map(|line| {
            let [name, id, price] = line.split(',').collect::<Vec<_>>().try_into().ok()?;
            Some((name.to_owned(), id.to_owned(), price.to_owned()))
        })
        .collect::<Option<Vec<_>>>()?;
    let prices: Option<Vec<_>> = products.iter().map(|(_, _, price)| cents(price)).collect();
    (prices?.iter().sum::<i64>() == cents(total)?).then_some(Read {
        order_id: order_id.strip_prefix("Order: ")?.to_owned(),
        total: total.to_owned(),
        products,
    })
}

fn cents(money: &str) -> Option<i64> {
    let (whole, fraction) = money.split_once('.')?;
    let digits: i64 = format!("{}{fraction}", whole.trim_start_matches('-'))
        .parse()
        .ok()?;
    Some(if whole.starts_with('-') {
        -digits
    } else {
        digits
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reader takes every ticket that was rendered as valid, and none that was spoiled.
    #[test]
    fn what_is_rendered_can_be_read() {
        let mut rng = Rng::with_seed(7);
        for n in 0..500 {
            for shape in [Shape::Valid, Shape::Crlf, Shape::Large, Shape::Invalid] {
                let text = ticket(&format!("t-{n}"), shape, &mut rng);
                assert_eq!(read(&text).is_some(), shape != Shape::Invalid, "{text}");
                assert!(text.len() <= 65_536, "{} bytes", text.len());
            }
        }
    }
}
