//! The table of cases: what each rule accepts and refuses, one line a case.
//! The tables are kept from rustfmt, which would spread a case over five lines.

use std::borrow::Cow;
use std::fs;
use std::path::Path;

use rust_decimal::Decimal;
use ticketd::ticket::{Product, Reason, Ticket, parse};
use ticketd_testing::agree::agree;

const EXAMPLE: &str = include_str!("../tickets/valid/example.txt");
const EXAMPLE_CRLF: &str = include_str!("../tickets/valid/example-crlf.txt");

/// `valid`, or what the database would hold as the reason; the oracle must agree.
fn verdict(text: &str) -> String {
    agree(text);
    let ticket = parse(text, &mut Vec::new());
    ticket
        .invalid
        .map_or_else(|| "valid".to_owned(), |invalid| invalid.to_string())
}

/// The example with one thing changed.
fn with(from: &str, to: &str) -> String {
    assert!(EXAMPLE.contains(from), "{from}");
    EXAMPLE.replacen(from, to, 1)
}

/// A ticket of these product lines.
fn of(total: &str, lines: &str) -> String {
    format!("Order: 1\nVAT: 0\nTotal: {total}\n\nproduct,product_id,price\n{lines}")
}

/// A field, in both places where it may stand, as it is read.
fn field(written: &str) -> Option<String> {
    let text = of("2", &format!("{written},b,1\na,{written},1\n"));
    agree(&text);
    let mut products = Vec::new();
    parse(&text, &mut products);
    let [first, second] = products.as_slice() else {
        return None;
    };
    assert_eq!(first.name, second.product_id, "{written}");
    Some(first.name.clone().into_owned())
}

/// An amount, in all three places where it may stand, as it is read.
fn amount(written: &str) -> Option<String> {
    let text =
        of(written, &format!("a,b,{written}\n")).replace("VAT: 0", &format!("VAT: {written}"));
    agree(&text);
    let mut products = Vec::new();
    let ticket = parse(&text, &mut products);
    assert_eq!(ticket.vat, ticket.total, "{written}");
    assert_eq!(
        ticket.vat,
        products.first().map(|product| product.price),
        "{written}"
    );
    ticket.vat.map(|vat| vat.to_string())
}

#[test]
fn the_example_is_read_as_written() {
    for text in [EXAMPLE, EXAMPLE_CRLF] {
        let mut products = Vec::new();
        let ticket = parse(text, &mut products);
        let money = |units| Some(Decimal::new(units, 2));
        let expected = Ticket {
            order_id: Some("123456"),
            vat: money(310),
            total: money(1690),
            invalid: None,
        };
        assert_eq!(ticket, expected);
        let product = |name, product_id, price| Product {
            name: Cow::Borrowed(name),
            product_id: Cow::Borrowed(product_id),
            price,
        };
        let menu = product("Formule(s) midi", "aZde", Decimal::new(1490, 2));
        assert_eq!(
            products,
            [menu, product("Café", "IZ8z", Decimal::new(2, 0))]
        );
    }
}

#[test]
fn lines_may_end_and_be_spaced_in_these_ways() {
    #[rustfmt::skip]
    let cases = [
        ("LF", EXAMPLE.to_owned(), "valid"),
        ("CRLF", EXAMPLE_CRLF.to_owned(), "valid"),
        ("both", with("Order: 123456\n", "Order: 123456\r\n"), "valid"),
        ("CR CRLF", with("VAT: 3.10\n", "VAT: 3.10\r\r\n"), "bad_vat:2"),
        ("CR alone", EXAMPLE.replace('\n', "\r"), "bad_vat:2"),
        ("no newline at the end", EXAMPLE.trim_end().to_owned(), "valid"),
        ("CR at the end", EXAMPLE_CRLF.trim_end().to_owned() + "\r", "valid"),
        ("two CRs at the end", EXAMPLE_CRLF.trim_end().to_owned() + "\r\r", "bad_product_line:7"),
        ("BOM", format!("\u{feff}{EXAMPLE}"), "valid"),
        ("two BOMs", format!("\u{feff}\u{feff}{EXAMPLE}"), "missing_order:1"),
        ("BOM later", with("VAT", "\u{feff}VAT"), "bad_vat:2"),
        ("blank lines at the end", EXAMPLE.to_owned() + "\n \t\r\n\n\r", "valid"),
        ("blank line before products", with("Formule", "\nFormule"), "valid"),
        ("blank line between products", with("Café", " \t\r\nCafé"), "valid"),
        ("blanks on the blank line", with("\n\n", "\n\t \n"), "valid"),
        ("no-break space on the blank line", with("\n\n", "\n\u{a0}\n"), "missing_blank_line:4"),
        ("two blank lines", with("\n\n", "\n\n\n"), "bad_product_header:5"),
        ("blank line at the start", format!("\n{EXAMPLE}"), "missing_order:1"),
        ("blanks around values", with("123456", "\t 123456 \t").replace("3.10", "3.10 "), "valid"),
        ("blanks around the header", with("product,", " \tproduct,").replace("price\n", "price \n"), "valid"),
        ("no blank after the keys", EXAMPLE.replace(": ", ":"), "valid"),
        ("blank before a key", with("VAT", " VAT"), "bad_vat:2"),
        ("blank before a colon", with("VAT:", "VAT :"), "bad_vat:2"),
        ("key in capitals", with("Total", "TOTAL"), "bad_total:3"),
    ];
    for (name, text, expected) in cases {
        assert_eq!(verdict(&text), expected, "{name}");
    }
}

#[test]
fn each_reason_has_its_cases() {
    let id = |length| with("123456", &"é".repeat(length));
    #[rustfmt::skip]
    let cases = [
        ("empty", String::new(), "missing_order:1"),
        ("one byte", "O".to_owned(), "missing_order:1"),
        ("one line end", "\n".to_owned(), "missing_order:1"),
        ("only a BOM", "\u{feff}".to_owned(), "missing_order:1"),
        ("no order", with("Order: 123456\n", ""), "missing_order:1"),
        ("empty id", with(" 123456", " "), "missing_order:1"),
        ("order further down", EXAMPLE.lines().rev().collect::<Vec<_>>().join("\n"), "missing_order:1"),
        ("id of 255 characters", id(255), "valid"),
        ("id of 256 characters", id(256), "bad_order:1"),
        ("no VAT", with("VAT: 3.10\n", ""), "bad_vat:2"),
        ("empty VAT", with(" 3.10", ""), "bad_vat:2"),
        ("text ends before VAT", "Order: 1\n".to_owned(), "bad_vat:2"),
        ("two orders", with("VAT: 3.10", "Order: 2"), "bad_vat:2"),
        ("no total", with("Total: 16.90\n", ""), "bad_total:3"),
        ("text ends before the total", "Order: 1\nVAT: 1".to_owned(), "bad_total:3"),
        ("VAT and total swapped", with("VAT: 3.10\nTotal: 16.90", "Total: 16.90\nVAT: 3.10"), "bad_vat:2"),
        ("no blank line", with("\n\n", "\n"), "missing_blank_line:4"),
        ("text ends before the blank line", "Order: 1\nVAT: 1\nTotal: 1\n".to_owned(), "missing_blank_line:4"),
        ("text ends at the blank line", "Order: 1\nVAT: 1\nTotal: 1\n\n".to_owned(), "bad_product_header:5"),
        ("blanks in the header", with(",product_id", ", product_id"), "bad_product_header:5"),
        ("header in capitals", with("product,", "Product,"), "bad_product_header:5"),
        ("no header", with("product,product_id,price\n", ""), "bad_product_header:5"),
        ("no products", of("0", ""), "no_products:6"),
        ("only blank lines", of("0", "\n \n\r\n"), "no_products:6"),
        ("a line of one field", with("Café,IZ8z,2", "Café"), "bad_product_line:7"),
        ("a line of four fields", with("Café,IZ8z,2", "Café,IZ8z,2,0"), "bad_product_line:7"),
        ("a comma too many", with("Café,IZ8z,2", "Café,IZ8z,2,"), "bad_product_line:7"),
        ("a bad line after blank ones", with("Café", "\r\n\nCafé,"), "bad_product_line:9"),
        ("a bad line before a bad one", of("0", "a,b\na\n"), "bad_product_line:6"),
        ("no name", of("1", ",b,1"), "bad_product_line:6"),
        ("no product id", of("1", "a,,1"), "bad_product_line:6"),
        ("name of 256 characters", of("1", &format!("{},b,1", "é".repeat(256))), "bad_product_line:6"),
        ("product id of 256 characters", of("1", &format!("a,{},1", "é".repeat(256))), "bad_product_line:6"),
        ("wrong total", with("16.90", "16.91"), "total_mismatch:3"),
        ("wrong price", with(",2\n", ",2.01\n"), "total_mismatch:3"),
        ("two products alike", of("4", "Café,c,2\nCafé,c,2\n"), "valid"),
        ("a discount", of("1.5", "Café,c,2\nDiscount,d,-0.50\n"), "valid"),
        ("less than nothing", of("-2", "Refund,r,-2.00\n"), "valid"),
        ("2 against 2.00", of("2.00", "Café,c,2\n"), "valid"),
        ("tenths", of("0.3", "a,b,0.1\na,b,0.2\n"), "valid"),
    ];
    for (name, text, expected) in cases {
        assert_eq!(verdict(&text), expected, "{name}");
    }
}

#[test]
fn amounts_are_decimals_and_nothing_else() {
    let digits =
        |whole: usize, fraction: usize| format!("{}.{}", "9".repeat(whole), "9".repeat(fraction));
    #[rustfmt::skip]
    let cases = [
        ("2", "2".to_owned()),
        ("2.00", "2.00".to_owned()),
        ("-2.50", "-2.50".to_owned()),
        ("002.50", "2.50".to_owned()),
        ("0", "0".to_owned()),
        ("-0", "0".to_owned()),
        ("-0.00", "0.00".to_owned()),
        ("000", "0".to_owned()),
        (&"9".repeat(28), "9".repeat(28)),
        (&format!("-{}", "9".repeat(28)), format!("-{}", "9".repeat(28))),
        (&digits(1, 27), digits(1, 27)),
        (&digits(27, 1), digits(27, 1)),
        (&format!("0.{}1", "0".repeat(27)), format!("0.{}1", "0".repeat(27))),
        (&format!("0.{}", "0".repeat(28)), format!("0.{}", "0".repeat(28))),
        (&format!("1{}", "0".repeat(27)), format!("1{}", "0".repeat(27))),
        (&format!("{}7", "0".repeat(60_000)), "7".to_owned()),
        (&u64::MAX.to_string(), u64::MAX.to_string()),
        ("18446744073709551616", "18446744073709551616".to_owned()),
    ];
    for (written, read) in cases {
        assert_eq!(amount(written), Some(read), "{written}");
    }
    #[rustfmt::skip]
    let refused = [
        "", "-", ".", "-.", "--1", "+1", "1-", ".5", "5.", "-.5", "1.2.3", "1..2", "1e3", "1E3",
        "NaN", "nan", "Infinity", "-inf", "0x10", "1_000", "3,10", "1 000", "1\u{a0}", "€1", "١",
        "１", "1\r\r", "1/2", "1:", &"9".repeat(29), &digits(28, 1), &digits(1, 28),
        &format!("1{}", "0".repeat(28)), &format!("0.{}", "0".repeat(29)),
        &format!("0.{}1", "0".repeat(28)), &"9".repeat(60_000),
    ];
    for written in refused {
        assert_eq!(amount(written), None, "{written}");
        assert_eq!(
            verdict(&of("0", &format!("a,b,{written}"))),
            "bad_product_line:6",
            "{written}"
        );
    }
}

#[test]
fn sums_are_exact() {
    let (nines, tiny) = ("9".repeat(28), format!("0.{}1", "0".repeat(27)));
    #[rustfmt::skip]
    let cases = [
        ("beyond 96 bits", of(&nines, &format!("a,b,{nines}\na,b,0.1\n")), "total_mismatch:3"),
        ("beyond and back", of("0.1", &format!("a,b,{nines}\na,b,0.1\na,b,-{nines}\n")), "valid"),
        ("far beyond and back", of("0", &format!("a,b,{nines}\na,b,-{nines}\n").repeat(500)), "valid"),
        ("tiny", of(&tiny, &format!("a,b,{tiny}\n")), "valid"),
        ("tiny and not", of("1", &format!("a,b,1\na,b,{tiny}\n")), "total_mismatch:3"),
        ("tiny and gone", of("1", &format!("a,b,1\na,b,{tiny}\na,b,-{tiny}\n")), "valid"),
        ("scales on both sides of the short one", of("1", "a,b,0.999999999\na,b,0.0000000010\n"), "valid"),
        ("halves of different signs", of("0.5", "a,b,1\na,b,-0.50000000000\n"), "valid"),
        ("carry", of("2", "a,b,0.70000000001\na,b,1.29999999999\n"), "valid"),
        ("carry below zero", of("-2", "a,b,-0.70000000001\na,b,-1.29999999999\n"), "valid"),
        ("a whole number apart", of("1.0000000001", "a,b,2\na,b,0.0000000001\n"), "total_mismatch:3"),
        ("large and short", of("1", "a,b,9223372036854775808\na,b,-9223372036854775807\n"), "valid"),
    ];
    for (name, text, expected) in cases {
        assert_eq!(verdict(&text), expected, "{name}");
    }
}

#[test]
fn fields_are_plain_or_quoted() {
    #[rustfmt::skip]
    let cases = [
        ("Café", "Café"),
        (" \tCafé\t ", "Café"),
        ("Café au lait", "Café au lait"),
        ("40\" screen", "40\" screen"),
        ("screen 40\"", "screen 40\""),
        ("a \"b\" c", "a \"b\" c"),
        ("\"Fish, chips\"", "Fish, chips"),
        ("\"a \"\"b\"\" c\"", "a \"b\" c"),
        ("\"\"\"\"", "\""),
        ("\"\"\"\"\"\"", "\"\""),
        (" \"a\" ", "a"),
        ("\" a\t\"", " a\t"),
        ("\" \"", " "),
        ("\u{a0}", "\u{a0}"),
        ("\r", "\r"),
        (&"é".repeat(255), &"é".repeat(255)),
        (&format!("\"{}\"", "\"\"".repeat(255)), &"\"".repeat(255)),
    ];
    for (written, read) in cases {
        assert_eq!(field(written).as_deref(), Some(read), "{written}");
    }
    #[rustfmt::skip]
    let refused = [
        "", " ", "\t", "\"\"", " \"\" ", "\"a", "\"", "\"a\" b", "\"a\"b", "\"a\"\"", "\"\"a",
        "\"\"\"", "\"a\nb\"", "a,b", &"é".repeat(256), &format!("\"{}\"", "\"\"".repeat(256)),
        &"x".repeat(60_000),
    ];
    for written in refused {
        assert_eq!(field(written), None, "{written}");
    }
}

#[test]
fn a_price_may_be_quoted() {
    #[rustfmt::skip]
    let cases = [
        ("a,b,\"1\"", "valid"),
        ("a,b, \" 1 \" ", "valid"),
        ("\"a\",\"b\",\"1.00\"", "valid"),
        ("a,b,\"1", "bad_product_line:6"),
        ("a,b,1\"", "bad_product_line:6"),
        ("a,b,\"1\" 2", "bad_product_line:6"),
        ("a,b,\"1\",", "bad_product_line:6"),
        ("a,b,\"\"\"1\"\"\"", "bad_product_line:6"),
        ("a,b,\"1,00\"", "bad_product_line:6"),
        ("a,b,\"\"", "bad_product_line:6"),
        ("a,b,", "bad_product_line:6"),
    ];
    for (line, expected) in cases {
        assert_eq!(verdict(&of("1", line)), expected, "{line}");
    }
}

/// What is left of an invalid ticket: order id, VAT and total as far as each was read, and no
/// product.
#[test]
fn an_invalid_ticket_keeps_what_was_read() {
    #[rustfmt::skip]
    let cases = [
        (with("16.90", "1"), [Some("123456"), Some("3.10"), Some("1")]),
        (with("Order: 123456\n", ""), [None, Some("3.10"), Some("16.90")]),
        (with("Order: 123456", "Ordre: 123456"), [None, Some("3.10"), Some("16.90")]),
        (with("Order: 123456", ""), [None, None, None]),
        (with("VAT: 3.10\n", ""), [Some("123456"), None, Some("16.90")]),
        (with("VAT: 3.10", "VAT: 3,10"), [Some("123456"), None, Some("16.90")]),
        (with("VAT: 3.10", "TVA: 3.10"), [Some("123456"), None, Some("16.90")]),
        (with("VAT: 3.10", ""), [Some("123456"), None, None]),
        (with("Order: 123456\nVAT: 3.10\n", ""), [None, None, Some("16.90")]),
        (with("VAT: 3.10\nTotal: 16.90", "Total: 16.90\nVAT: 3.10"), [Some("123456"), None, Some("16.90")]),
        (with("Total: 16.90", "Total:"), [Some("123456"), Some("3.10"), None]),
        (with("123456", &"1".repeat(256)), [None, Some("3.10"), Some("16.90")]),
        (with(",2\n", "\n"), [Some("123456"), Some("3.10"), Some("16.90")]),
    ];
    for (text, expected) in cases {
        agree(&text);
        let mut products = Vec::new();
        let ticket = parse(&text, &mut products);
        assert!(ticket.invalid.is_some(), "{text}");
        assert!(products.is_empty(), "{text}");
        let [order_id, vat, total] = expected;
        let shown = |amount: Option<Decimal>| amount.map(|amount| amount.to_string());
        assert_eq!(ticket.order_id, order_id, "{text}");
        assert_eq!(shown(ticket.vat).as_deref(), vat, "{text}");
        assert_eq!(shown(ticket.total).as_deref(), total, "{text}");
    }
}

/// Of several problems the first counts, wherever the others stand.
#[test]
fn the_first_problem_is_the_reason() {
    let mut text = with("\n\n", "\n")
        .replace("16.90", "x")
        .replace("3.10", "x")
        .replace(" 123456", "");
    for (repaired, next) in [
        ("Order:", "missing_order:1"),
        ("VAT: x", "bad_vat:2"),
        ("Total: x", "bad_total:3"),
        ("product,", "missing_blank_line:4"),
    ] {
        assert_eq!(verdict(&text), next);
        text = match repaired {
            "product," => text.replace(repaired, "\nproduct,"),
            _ => text.replace(repaired, &format!("{} 1", repaired.trim_end_matches(" x"))),
        };
    }
    assert_eq!(verdict(&text), "total_mismatch:3");
}

/// The caller's vector holds one ticket's products at a time.
#[test]
fn products_of_an_earlier_ticket_are_gone() {
    let mut products = Vec::new();
    for (text, expected) in [(EXAMPLE, 2), (EXAMPLE_CRLF, 2), ("", 0), (EXAMPLE, 2)] {
        parse(text, &mut products);
        assert_eq!(products.len(), expected, "{text}");
    }
}

/// Most tickets must cost no allocation beyond the caller's vector, so quotes alone must not make a
/// copy.
#[test]
fn fields_are_borrowed_unless_a_quote_was_doubled() {
    let mut products = Vec::new();
    let text = of("3", "a,b,1\n\"a, b\",\" c \",1\n\"a\"\"b\",c,1\n");
    parse(&text, &mut products);
    let is_owned = |product: &Product<'_>| matches!(product.name, Cow::Owned(_));
    assert_eq!(
        products.iter().map(is_owned).collect::<Vec<_>>(),
        [false, false, true]
    );
    assert!(
        products
            .iter()
            .all(|product| matches!(product.product_id, Cow::Borrowed(_)))
    );
}

/// Tills lose power: whatever byte a ticket ends at, both parsers say the same, and valid only
/// where it may be.
#[test]
fn a_ticket_cut_anywhere_is_read_as_far_as_it_goes() {
    for text in [EXAMPLE, EXAMPLE_CRLF] {
        let last_digit = text.trim_end().len();
        for cut in 0..=text.len() {
            let whole = String::from_utf8_lossy(&text.as_bytes()[..cut]);
            assert_eq!(
                verdict(&whole) == "valid",
                cut >= last_digit,
                "cut at {cut}"
            );
        }
    }
}

#[test]
fn every_sample_ticket_is_what_its_name_says() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tickets");
    let mut codes_seen = Vec::<Reason>::new();
    for (folder, is_valid) in [("valid", true), ("invalid", false)] {
        for file in fs::read_dir(samples.join(folder)).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let verdict = verdict(&fs::read_to_string(&path).unwrap());
            let code = verdict.split(':').next().unwrap();
            assert_eq!(
                code,
                if is_valid { "valid" } else { &name },
                "{}",
                path.display()
            );
            codes_seen.extend(Reason::ALL.iter().filter(|reason| reason.code() == code));
        }
    }
    assert_eq!(
        codes_seen.len(),
        Reason::ALL.len(),
        "a sample for each reason"
    );
}
