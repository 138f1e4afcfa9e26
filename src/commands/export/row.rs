//! The row of a product.

use std::io::{Result, Write};

use crate::config::ExportFormat;
use crate::ticket::Product;

/// The names of its fields.
pub(super) const HEADING: [&str; 9] = [
    "ticket_id",
    "source",
    "order_id",
    "issued_at",
    "received_at",
    "position",
    "name",
    "product_id",
    "price",
];

/// Which of them may hold anything, and are quoted.
const QUOTED: [&str; 4] = ["source", "order_id", "name", "product_id"];

/// Writes it, with a line end.
pub(super) fn write_row(
    out: &mut impl Write,
    format: ExportFormat,
    head: [Option<&str>; 5],
    position: u32,
    product: &Product<'_>,
) -> Result<()> {
    let (position, price) = (position.to_string(), product.price.to_string());
    let [id, source, order_id, issued_at, received_at] = head;
    let fields = [
        id,
        source,
        order_id,
        issued_at,
        received_at,
        Some(&*position),
        Some(&*product.name),
        Some(&*product.product_id),
        Some(&*price),
    ];
    match format {
        ExportFormat::Csv => write_csv(out, fields),
        ExportFormat::Jsonl => write_json(out, fields),
    }
}

/// As PostgreSQL writes it: nothing at all is null, and an empty text has quotes.
fn write_csv(out: &mut impl Write, fields: [Option<&str>; 9]) -> Result<()> {
    for (number, (name, field)) in HEADING.into_iter().zip(fields).enumerate() {
        if number > 0 {
            out.write_all(b",")?;
        }
        match field {
            None => {}
            Some(text) if QUOTED.contains(&name) => {
                write!(out, "\"{}\"", text.replace('"', "\"\""))?;
            }
            Some(text) => out.write_all(text.as_bytes())?,
        }
    }
    out.write_all(b"\n")
}

fn write_json(out: &mut impl Write, fields: [Option<&str>; 9]) -> Result<()> {
    for (number, (name, field)) in HEADING.into_iter().zip(fields).enumerate() {
        let before = if number == 0 { '{' } else { ',' };
        write!(out, "{before}\"{name}\":")?;
        match field {
            // Its place is a number, and money is text.
            Some(position) if name == "position" => out.write_all(position.as_bytes())?,
            field => serde_json::to_writer(&mut *out, &field)?,
        }
    }
    out.write_all(b"}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: ExportFormat) -> String {
        let product = Product {
            name: "Say \"cheese\", #1\n".into(),
            product_id: "=1+1".into(),
            price: "2.50".parse().expect("a price"),
        };
        let head = [Some("id"), None, Some(""), None, Some("then")];
        let mut out = Vec::new();
        write_row(&mut out, format, head, 7, &product).expect("memory");
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn every_text_is_itself_again() {
        assert_eq!(
            written(ExportFormat::Csv),
            "id,,\"\",,then,7,\"Say \"\"cheese\"\", #1\n\",\"=1+1\",2.50\n"
        );
        let json: serde_json::Value =
            serde_json::from_str(&written(ExportFormat::Jsonl)).expect("JSON");
        assert_eq!(json["name"], "Say \"cheese\", #1\n");
        assert_eq!(json["source"], serde_json::Value::Null);
        assert_eq!(json["position"], 7);
        assert_eq!(json["price"], "2.50");
    }
}
