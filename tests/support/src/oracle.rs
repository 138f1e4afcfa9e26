//! The rules of the module `ticket` once more, as plainly as they can be written: the oracle of the
//! property tests.
//!
//! Slow on purpose. It shares nothing with the parser but the reasons: it looks at lines and
//! characters one by one, and adds digit by digit as on paper.

use ticketd::ticket::Reason;

/// What the oracle read, as owned text.
#[derive(Debug, PartialEq, Eq)]
pub struct Reading {
    /// The order id, as far as it was read, like VAT and total.
    pub order_id: Option<String>,
    /// The VAT, as the decimal type shows it.
    pub vat: Option<String>,
    /// The total.
    pub total: Option<String>,
    /// The first rule that is broken, and its line.
    pub invalid: Option<(Reason, usize)>,
    /// Name, product id and price of each product of a valid ticket.
    pub products: Vec<[String; 3]>,
}

/// Reads a ticket.
pub fn parse(text: &str) -> Reading {
    let lines = lines(text);
    let mut at = 0;
    let mut problems = Vec::new();

    let order = keyed(&lines, &mut at, "Order:", &["VAT:", "Total:"]).unwrap_or_default();
    let order_id = has_width(&order).then_some(order.clone());
    if order.is_empty() {
        problems.push((Reason::MissingOrder, 1));
    } else if order_id.is_none() {
        problems.push((Reason::BadOrder, 1));
    }
    let vat = keyed(&lines, &mut at, "VAT:", &["Total:"]).and_then(|value| Number::read(&value));
    if vat.is_none() {
        problems.push((Reason::BadVat, 2));
    }
    let total = keyed(&lines, &mut at, "Total:", &[]).and_then(|value| Number::read(&value));
    if total.is_none() {
        problems.push((Reason::BadTotal, 3));
    }

    let mut products = Vec::new();
    if problems.is_empty() {
        problems.extend(read_products(
            &lines,
            total.as_ref().unwrap(),
            &mut products,
        ));
    }
    let invalid = problems.first().copied();
    if invalid.is_some() {
        products.clear();
    }
    Reading {
        order_id,
        vat: vat.map(|number| number.render()),
        total: total.map(|number| number.render()),
        invalid,
        products,
    }
}

fn lines(text: &str) -> Vec<&str> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines: Vec<&str> = text.split('\n').collect();
    if lines.last() == Some(&"") {
        lines.pop();
    }
    lines
        .iter()
        .map(|line| line.strip_suffix('\r').unwrap_or(line))
        .collect()
}

fn keyed(lines: &[&str], at: &mut usize, key: &str, later_keys: &[&str]) -> Option<String> {
    let line = *lines.get(*at)?;
    if let Some(value) = line.strip_prefix(key) {
        *at += 1;
        return Some(trim(value));
    }
    if trim(line).is_empty() {
        return None;
    }
    for later in later_keys {
        if line.starts_with(later) {
            return None;
        }
    }
    *at += 1;
    None
}

fn read_products(
    lines: &[&str],
    total: &Number,
    products: &mut Vec<[String; 3]>,
) -> Option<(Reason, usize)> {
    if lines.len() < 4 || !trim(lines[3]).is_empty() {
        return Some((Reason::MissingBlankLine, 4));
    }
    if lines.len() < 5 || trim(lines[4]) != "product,product_id,price" {
        return Some((Reason::BadProductHeader, 5));
    }
    let mut prices = Vec::new();
    for (index, line) in lines.iter().enumerate().skip(5) {
        if trim(line).is_empty() {
            continue;
        }
        let Some((name, product_id, price)) = read_product(line) else {
            return Some((Reason::BadProductLine, index + 1));
        };
        products.push([name, product_id, price.render()]);
        prices.push(price);
    }
    if products.is_empty() {
        return Some((Reason::NoProducts, 6));
    }
    if add_up(&prices, total) {
        None
    } else {
        Some((Reason::TotalMismatch, 3))
    }
}

fn read_product(line: &str) -> Option<(String, String, Number)> {
    let fields = fields(line)?;
    let [name, product_id, price] = fields.as_slice() else {
        return None;
    };
    if !has_width(name) || !has_width(product_id) {
        return None;
    }
    Some((
        name.clone(),
        product_id.clone(),
        Number::read(&trim(price))?,
    ))
}

/// Where in a field a character stands.
enum Place {
    Before,
    Plain,
    Quoted,
    QuoteInQuoted,
    AfterQuoted,
}

/// The fields of a line, character by character; `None` where quotes are wrong.
fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut place = Place::Before;
    for character in line.chars().chain([',']) {
        place = match (place, character) {
            (Place::Quoted, '"') => Place::QuoteInQuoted,
            (Place::QuoteInQuoted, '"') => {
                field.push('"');
                Place::Quoted
            }
            (Place::Quoted, _) => {
                field.push(character);
                Place::Quoted
            }
            (place, ',') => {
                let is_plain = matches!(place, Place::Before | Place::Plain);
                fields.push(if is_plain {
                    trim(&field)
                } else {
                    field.clone()
                });
                field.clear();
                Place::Before
            }
            (Place::Before, ' ' | '\t') => Place::Before,
            (Place::Before, '"') => Place::Quoted,
            (Place::Before | Place::Plain, _) => {
                field.push(character);
                Place::Plain
            }
            (Place::QuoteInQuoted | Place::AfterQuoted, ' ' | '\t') => Place::AfterQuoted,
            (Place::QuoteInQuoted | Place::AfterQuoted, _) => return None,
        };
    }
    matches!(place, Place::Before).then_some(fields)
}

fn has_width(value: &str) -> bool {
    (1..=255).contains(&value.chars().count())
}

fn trim(text: &str) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    while matches!(characters.last(), Some(' ' | '\t')) {
        characters.pop();
    }
    while matches!(characters.first(), Some(' ' | '\t')) {
        characters.remove(0);
    }
    characters.into_iter().collect()
}

/// A number as its digits before and after the point.
struct Number {
    is_negative: bool,
    whole: Vec<u8>,
    fraction: Vec<u8>,
}

impl Number {
    fn read(text: &str) -> Option<Self> {
        let (is_negative, unsigned) = match text.strip_prefix('-') {
            Some(unsigned) => (true, unsigned),
            None => (false, text),
        };
        let parts: Vec<&str> = unsigned.split('.').collect();
        if parts.len() > 2 || parts.iter().any(|part| part.is_empty()) {
            return None;
        }
        if !parts
            .concat()
            .chars()
            .all(|character| "0123456789".contains(character))
        {
            return None;
        }
        let digits = |part: &&str| part.bytes().map(|byte| byte - b'0').collect::<Vec<u8>>();
        let whole = parts.first().map(digits).unwrap_or_default();
        let fraction = parts.get(1).map(digits).unwrap_or_default();
        let significant = [whole.clone(), fraction.clone()].concat();
        let significant = significant.iter().skip_while(|&&digit| digit == 0).count();
        if significant > 28 || fraction.len() > 28 {
            return None;
        }
        Some(Self {
            is_negative: is_negative && significant > 0,
            whole,
            fraction,
        })
    }

    /// The number as text, as the decimal type shows it: one zero at most before the point, no
    /// minus zero.
    fn render(&self) -> String {
        let show = |digits: &[u8]| digits.iter().map(u8::to_string).collect::<String>();
        let whole = show(&self.whole);
        let whole = match whole.trim_start_matches('0') {
            "" => "0",
            whole => whole,
        };
        let sign = if self.is_negative { "-" } else { "" };
        let point = if self.fraction.is_empty() { "" } else { "." };
        format!("{sign}{whole}{point}{}", show(&self.fraction))
    }

    /// 40 digits before the point and 28 after it, the lowest first, without the sign.
    fn column(&self) -> Vec<u8> {
        let significant = self.whole.iter().skip_while(|&&digit| digit == 0).count();
        let mut column = vec![0; 28 - self.fraction.len()];
        column.extend(self.fraction.iter().rev());
        column.extend(self.whole.iter().rev().take(significant));
        column.resize(68, 0);
        column
    }
}

/// Whether prices add up to a total. To do without subtraction, what is negative changes sides.
fn add_up(prices: &[Number], total: &Number) -> bool {
    let mut left = vec![0; 68];
    let mut right = vec![0; 68];
    for price in prices {
        add(
            if price.is_negative {
                &mut right
            } else {
                &mut left
            },
            &price.column(),
        );
    }
    add(
        if total.is_negative {
            &mut left
        } else {
            &mut right
        },
        &total.column(),
    );
    left == right
}

/// Adds as on paper, from the lowest digit, with a carry.
fn add(sum: &mut [u8], column: &[u8]) {
    let mut carry = 0;
    for (digit, added) in sum.iter_mut().zip(column) {
        let both = *digit + added + carry;
        *digit = both % 10;
        carry = both / 10;
    }
}

/// Cuts a text of many tickets: the line on which each begins, and its bytes; and at the end, if it
/// is none, the line that stands before the first ticket.
pub fn split(text: &[u8]) -> (Vec<(u64, Vec<u8>)>, Option<u64>) {
    let mut tickets: Vec<(u64, Vec<u8>)> = Vec::new();
    for (number, line) in (1..).zip(text.split_inclusive(|&byte| byte == b'\n')) {
        let after_mark = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        if after_mark.starts_with(b"Order:") {
            tickets.push((number, line.to_vec()));
        } else if let Some((_, ticket)) = tickets.last_mut() {
            ticket.extend(line);
        } else {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.iter().any(|byte| !b" \t".contains(byte)) {
                return (tickets, Some(number));
            }
        }
    }
    (tickets, None)
}
