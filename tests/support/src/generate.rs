//! Tickets by chance: valid ones in every way in which they may be written, and ones that are nearly
//! so.

use std::fmt::Write;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// A ticket that must be valid, as it is written and as it must be read.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// The ticket as written.
    pub text: String,
    /// Its order id, as every value below as it must be read.
    pub order_id: String,
    /// Its VAT.
    pub vat: String,
    /// Its total.
    pub total: String,
    /// Name, product id and price of each product.
    pub products: Vec<[String; 3]>,
}

/// Money in units of 10^-scale, and that scale.
fn money() -> impl Strategy<Value = (i128, u32)> {
    let ordinary = (-20_000i128..200_000).prop_map(|units| (units, 2));
    let wide = (-(10i128.pow(28) - 1)..10i128.pow(28), 0u32..=28);
    let digits = (0u32..28, 0u32..=28).prop_map(|(digits, scale)| (10i128.pow(digits), scale));
    prop_oneof![6 => ordinary, 1 => wide, 1 => digits, 1 => (Just(0), 0u32..=28)]
}

/// Money written out, without help from the parser's decimal type.
fn render_money(units: i128, scale: u32) -> String {
    let one = 10u128.pow(scale);
    let (whole, fraction) = (units.unsigned_abs() / one, units.unsigned_abs() % one);
    let sign = if units < 0 { "-" } else { "" };
    match scale {
        0 => format!("{sign}{whole}"),
        _ => format!("{sign}{whole}.{fraction:0width$}", width = scale as usize),
    }
}

fn blanks() -> impl Strategy<Value = String> {
    prop_oneof![4 => Just(String::new()), 1 => "[ \t]{1,3}"]
}

fn line_end() -> impl Strategy<Value = &'static str> {
    select(vec!["\n", "\r\n"])
}

/// A value of 1 to 255 characters that no trimming changes; `\PC` leaves out control characters.
fn value() -> impl Strategy<Value = String> {
    let characters = prop_oneof![
        4 => "[a-zA-Z0-9]{1,12}",
        2 => "\\PC{1,20}",
        1 => "[\",\r é]{1,6}",
        1 => "[é€\u{1f600}\u{feff}x]{250,255}",
    ];
    let trimmed = characters.prop_map(|it| it.trim_matches([' ', '\t']).to_owned());
    trimmed.prop_filter("a value needs a character", |it| !it.is_empty())
}

/// A field as written: plain if it may be, quoted if it must be or was asked for.
fn render_field(value: &str, is_quoted: bool) -> String {
    let is_trimmed = value.trim_matches([' ', '\t']) == value;
    if is_quoted || value.contains(',') || value.starts_with('"') || !is_trimmed {
        format!("\"{}\"", value.replace('"', "\"\""))
    } else {
        value.to_owned()
    }
}

/// A product line: blanks, fields, and blank lines after it.
fn product() -> impl Strategy<Value = (String, [String; 3], (i128, u32))> {
    let field = || {
        (
            value(),
            any::<bool>(),
            blanks(),
            blanks(),
            blanks(),
            blanks(),
        )
    };
    let blank_lines = vec((blanks(), line_end()), 0..2);
    let fields = (field(), field(), money(), any::<bool>(), blanks(), blanks());
    (fields, line_end(), blank_lines).prop_map(|(fields, line_end, blank_lines)| {
        let (name, product_id, (units, scale), is_quoted, before, after) = fields;
        let price = render_money(units, scale);
        let mut read = [String::new(), String::new(), price.clone()];
        let mut line = String::new();
        for (read, (value, is_quoted, left, right, inner_left, inner_right)) in
            read.iter_mut().zip([name, product_id])
        {
            // Blanks inside quotes belong to the value, as long as it stays within 255 characters.
            let padded = format!("{inner_left}{value}{inner_right}");
            *read = if is_quoted && padded.chars().count() <= 255 {
                padded
            } else {
                value
            };
            write!(line, "{left}{}{right},", render_field(read, is_quoted)).unwrap();
        }
        let price = if is_quoted {
            format!("\"{after}{price}{before}\"")
        } else {
            price
        };
        write!(line, "{before}{price}{after}{line_end}").unwrap();
        for (blanks, line_end) in blank_lines {
            write!(line, "{blanks}{line_end}").unwrap();
        }
        (line, read, (units, scale))
    })
}

/// The exact sum of some money, if it can be written as one decimal.
fn add_up(prices: &[(i128, u32)]) -> Option<(i128, u32)> {
    let scale = prices.iter().map(|&(_, scale)| scale).max()?;
    let mut sum = 0i128;
    for &(units, its_scale) in prices {
        sum = sum.checked_add(units.checked_mul(10i128.pow(scale - its_scale))?)?;
    }
    (sum.unsigned_abs() < 10u128.pow(28)).then_some((sum, scale))
}

/// A valid ticket in any of the ways in which it may be written.
pub fn rendered() -> impl Strategy<Value = Rendered> {
    let header = (value(), money(), vec(blanks(), 8), vec(line_end(), 5));
    (any::<bool>(), header, vec(product(), 1..6), any::<bool>()).prop_filter_map(
        "the total must be a decimal, and a CR at the end of the id would belong to the line end",
        |(has_mark, (order_id, vat, blanks, line_ends), products, is_cut)| {
            if order_id.ends_with('\r') {
                return None;
            }
            let prices: Vec<_> = products.iter().map(|(_, _, price)| *price).collect();
            let (total, scale) = add_up(&prices)?;
            let (vat, total) = (render_money(vat.0, vat.1), render_money(total, scale));
            let mut text = String::from(if has_mark { "\u{feff}" } else { "" });
            let [b0, b1, b2, b3, b4, b5, b6, b7] = blanks.try_into().ok()?;
            let [e0, e1, e2, e3, e4] = line_ends.try_into().ok()?;
            write!(text, "Order:{b0}{order_id}{b1}{e0}VAT:{b2}{vat}{b3}{e1}").ok()?;
            write!(text, "Total:{b4}{total}{b5}{e2}{b6}{e3}").ok()?;
            write!(text, "{b7}product,product_id,price{b1}{e4}").ok()?;
            text.extend(products.iter().map(|(line, ..)| line.as_str()));
            if is_cut {
                text.truncate(text.trim_end_matches(['\r', '\n']).len());
            }
            let products = products.into_iter().map(|(_, read, _)| read).collect();
            Some(Rendered {
                text,
                order_id,
                vat,
                total,
                products,
            })
        },
    )
}

/// Pieces that tickets are made of, and pieces that have no business there.
pub fn piece() -> impl Strategy<Value = String> {
    let known = select(vec![
        "Order:",
        "VAT:",
        "Total:",
        "product,product_id,price",
        "\n",
        "\n",
        "\r\n",
        "\r",
        " ",
        "\t",
        ",",
        ",",
        "\"",
        "\"\"",
        "-",
        ".",
        "0",
        "1",
        "2.00",
        "-1.5",
        "+",
        "e3",
        "\0",
        "\u{feff}",
        "\u{a0}",
        "é",
        "order:",
        "Total :",
        "a,b,1\n",
        "\"a\"\"b\",\"c,d\",\" 1 \"\n",
        "Order: 1\nVAT: 1\nTotal: 1\n\n",
        "9999999999999999999999999999",
        "0.0000000000000000000000000001",
        "0000000000000000000000000000000",
    ]);
    prop_oneof![8 => known.prop_map(str::to_owned), 1 => any::<char>().prop_map(String::from)]
}

/// A valid ticket with a few pieces put in, taken out or doubled, or cut short.
pub fn mutated() -> impl Strategy<Value = String> {
    let edit = (0..4u8, any::<Index>(), 0..12usize, piece());
    (rendered(), vec(edit, 1..4)).prop_map(|(ticket, edits)| {
        let mut text: Vec<char> = ticket.text.chars().collect();
        for (kind, at, length, piece) in edits {
            let start = at.index(text.len() + 1);
            let end = text.len().min(start + length);
            match kind {
                0 => drop(text.splice(start..start, piece.chars())),
                1 => drop(text.drain(start..end)),
                2 => drop(text.splice(end..end, text[start..end].to_vec())),
                _ => text.truncate(end),
            }
        }
        text.into_iter().collect()
    })
}

/// A ticket line by line, each near to what should stand there; lines may be missing.
pub fn line_by_line() -> impl Strategy<Value = String> {
    let amount = prop_oneof![
        3 => money().prop_map(|(units, scale)| render_money(units, scale)),
        1 => "[0-9.+e -]{0,6}",
        1 => "-?0{0,3}[1-9][0-9]{26,29}(\\.[0-9]{1,29})?",
        1 => "-?0{0,30}\\.0{26,29}[0-9]?",
    ];
    let keyed = (
        select(vec!["Order:", "VAT:", "Total:", "Total", ""]),
        blanks(),
        amount,
    );
    let keyed = keyed
        .prop_map(|(key, blanks, amount)| format!("{key}{blanks}{amount}"))
        .boxed();
    let field = prop_oneof!["[ \"a,]{0,5}", "[ab\"é]{254,257}", "-?[0-2](\\.[05]{1,2})?"];
    let line = prop_oneof![
        2 => vec(field, 1..5).prop_map(|fields| fields.join(",")),
        1 => keyed.clone(),
        1 => blanks(),
        1 => Just("product,product_id,price".to_owned()),
    ];
    let keep = |line: &str| prop_oneof![9 => Just(vec![line.to_owned()]), 1 => Just(vec![])];
    let header = (
        keep("Order: 7"),
        vec(keyed, 0..3),
        keep(""),
        keep("product,product_id,price"),
    );
    let good = (keep("VAT: 1"), keep("Total: 0.00"));
    let lines = (header, good, vec(line, 0..5), any::<bool>());
    let lines = lines.prop_map(
        |((order, keyed, blank, header), (vat, total), products, is_good)| {
            let values = if is_good {
                [vat, total].concat()
            } else {
                keyed
            };
            [order, values, blank, header, products].concat()
        },
    );
    (lines, vec(line_end(), 16)).prop_map(|(lines, ends)| {
        lines
            .iter()
            .zip(ends.iter().cycle())
            .fold(String::new(), |text, (line, end)| text + line + end)
    })
}
