//! The requests: whole POSTs made once, of which only the order number is written anew for each ticket,
//! and what hangs on it.

use std::fmt::Write as _;
use std::ops::Range;

use crate::signing::{SIGNATURE_BYTES, Signature};

/// Templates are made for every percent, so that shares in percent come out exactly, and twice over,
/// so that shares of valid and invalid tickets mix with shares of line ends.
const TEMPLATES: u32 = 200;

/// Requests of many tickets that are made: each is large, and has all kinds of tickets.
const BULK_TEMPLATES: usize = 4;

/// Products to choose from, as a shop's catalogue.
const CATALOGUE: u32 = 1000;

/// Digits of an order number: enough for any run, and fixed so that it is overwritten in place.
const NUMBER_DIGITS: usize = 10;

const NAMES: [&str; 8] = [
    "Formule(s) midi",
    "Café",
    "Plat du jour",
    "Salade niçoise",
    "\"Vin rouge, verre\"",
    "Eau minérale",
    "Tarte Tatin",
    "Thé vert",
];

/// What the tickets of a run look like.
#[derive(clap::Args, Clone)]
pub(crate) struct Mix {
    /// Products on each ticket.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1000))]
    products: u16,
    /// Percentage of tickets that are not valid.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    invalid: u8,
    /// Percentage of tickets whose lines end in CRLF.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    crlf: u8,
    /// Products to choose from.
    #[arg(long, default_value_t = CATALOGUE, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    catalogue: u32,
    /// Different tickets, which are sent in turn; a large catalogue is sold only as far as they reach.
    #[arg(long, default_value_t = TEMPLATES, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    templates: u32,
    /// Tickets in each request: more than one for POST /tickets.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) bulk: u32,
}

impl Mix {
    /// Valid tickets of so many products.
    fn valid(products: u16) -> Self {
        Self {
            products,
            invalid: 0,
            crlf: 0,
            catalogue: CATALOGUE,
            templates: TEMPLATES,
            bulk: 1,
        }
    }
}

/// What is wrong with an invalid ticket; its order id can be read in each case, since the count of the
/// stored rows goes by it.
#[derive(Clone, Copy)]
enum Fault {
    TotalMismatch,
    BadVat,
    BadProductLine,
    NoProducts,
}

/// Where requests go, and how they prove who sends them.
#[derive(Clone)]
pub(crate) struct Target {
    /// What the Host header says.
    pub(crate) host: String,
    /// The path, and the query behind it.
    pub(crate) path: String,
    /// What the head says of its sender.
    pub(crate) proof: Proof,
}

/// What a request's head says of its sender.
#[derive(Clone)]
pub(crate) enum Proof {
    /// Nothing.
    None,
    /// An Idempotency-Key, another one for each ticket.
    Key,
    /// This bearer token.
    Token(String),
    /// A signature that is made at this time.
    Signature(String),
}

impl Proof {
    /// Header lines, with the number of the ticket and the signature still to be written.
    fn headers(&self, prefix: &str) -> String {
        let id = order_id(prefix, 0);
        match self {
            Self::None => String::new(),
            Self::Key => format!("Idempotency-Key: {id}\r\n"),
            Self::Token(token) => format!("Authorization: Bearer {token}\r\n"),
            Self::Signature(at) => format!(
                "webhook-id: {id}\r\nwebhook-timestamp: {at}\r\nwebhook-signature: v1,{}\r\n",
                "=".repeat(SIGNATURE_BYTES)
            ),
        }
    }
}

/// One whole request, head and body, or a body alone.
pub(crate) struct Template {
    bytes: Vec<u8>,
    /// Where the numbers of the tickets stand, one behind the other in the body.
    numbers_at: Vec<usize>,
    /// Where the head has an id of the first one.
    id_at: Option<Range<usize>>,
    signature_at: Range<usize>,
    body_at: usize,
}

#[expect(
    clippy::indexing_slicing,
    reason = "what is written over stands in every template, whose making puts it there"
)]
impl Template {
    fn new(head: &str, prefix: &str, body: &str) -> Self {
        let id = order_id(prefix, 0);
        let order = format!("Order: {id}");
        let number = order.len() - NUMBER_DIGITS;
        let orders = body.match_indices(&order);
        let signature_at = head.find(&"=".repeat(SIGNATURE_BYTES));
        Self {
            bytes: [head.as_bytes(), body.as_bytes()].concat(),
            numbers_at: orders.map(|(at, _)| head.len() + at + number).collect(),
            id_at: head.find(&id).map(|at| at..at + id.len()),
            signature_at: signature_at.map_or(0..0, |at| at..at + SIGNATURE_BYTES),
            body_at: head.len(),
        }
    }

    /// The request of this number.
    pub(crate) fn stamped(&mut self, number: u64) -> &[u8] {
        self.stamp(number);
        self.bytes()
    }

    /// Makes it the request of this number. Its tickets have those that are its own alone; of one ticket it is the
    /// same.
    pub(crate) fn stamp(&mut self, number: u64) {
        let tickets = numbers_of(number, self.numbers_at.len() as u64);
        for (index, ticket) in tickets.enumerate() {
            self.write_number(self.numbers_at[index], ticket);
        }
        if let Some(id) = &self.id_at {
            self.write_number(id.end - NUMBER_DIGITS, number);
        }
    }

    /// Signs it as it stands.
    pub(crate) fn sign(&mut self, signature: &Signature) {
        self.bytes[self.signature_at.clone()].copy_from_slice(signature);
    }

    /// The request as it stands.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn write_number(&mut self, at: usize, mut number: u64) {
        for digit in self.bytes[at..at + NUMBER_DIGITS].iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
    }

    /// The id and the body as they stand.
    pub(crate) fn signed_parts(&self) -> (&[u8], &[u8]) {
        let id = self.id_at.clone().unwrap_or_default();
        (&self.bytes[id], &self.bytes[self.body_at..])
    }
}

/// The numbers of the tickets of a request with so many.
pub(crate) fn numbers_of(request: u64, tickets: u64) -> Range<u64> {
    request * tickets..(request + 1) * tickets
}

/// The order id that a stamped ticket carries.
pub(crate) fn order_id(prefix: &str, number: u64) -> String {
    format!("{prefix}{number:0NUMBER_DIGITS$}")
}

/// All templates of a run; each percentage is spread evenly over them.
pub(crate) fn templates(mix: &Mix, prefix: &str, target: &Target) -> Vec<Template> {
    let template = |body: String| Template::new(&head(target, prefix, body.len()), prefix, &body);
    match mix.bulk as usize {
        1 => bodies(mix, prefix).map(template).collect(),
        tickets => {
            let bodies: Vec<_> = bodies(mix, prefix).collect();
            let many = (0..BULK_TEMPLATES).map(|first| {
                let tickets = bodies.iter().cycle().skip(first).take(tickets);
                tickets.map(String::as_str).collect()
            });
            many.map(template).collect()
        }
    }
}

/// Valid tickets of two products without a request around them, as they stand in a message.
pub(crate) fn plain(prefix: &str) -> Vec<Template> {
    bodies(&Mix::valid(2), prefix)
        .map(|body| Template::new("", prefix, &body))
        .collect()
}

fn bodies(mix: &Mix, prefix: &str) -> impl Iterator<Item = String> {
    (0..mix.templates as usize).map(move |index| {
        // 37 and 61 share no factor with 100: both orders visit every percent once in 100.
        let fault = (index * 37 % 100 < usize::from(mix.invalid)).then(|| fault(index));
        let crlf = (index * 61 + index / 100) % 100 < usize::from(mix.crlf);
        let catalogue = mix.catalogue as usize;
        body(
            index,
            usize::from(mix.products),
            catalogue,
            fault,
            crlf,
            prefix,
        )
    })
}

fn fault(index: usize) -> Fault {
    match index % 4 {
        0 => Fault::TotalMismatch,
        1 => Fault::BadVat,
        2 => Fault::BadProductLine,
        _ => Fault::NoProducts,
    }
}

fn head(target: &Target, prefix: &str, body_bytes: usize) -> String {
    let Target { host, path, proof } = target;
    let proof = proof.headers(prefix);
    format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/plain\r\n{proof}\
         Content-Length: {body_bytes}\r\n\r\n"
    )
}

fn body(
    index: usize,
    products: usize,
    catalogue: usize,
    fault: Option<Fault>,
    crlf: bool,
    prefix: &str,
) -> String {
    let mut lines = String::new();
    let mut total_cents = 0;
    for line in 0..products {
        // A stride that shares no factor with the catalogue's size reaches all of it.
        let product = (index * products + line) * 7919 % catalogue;
        let price_cents = 100 + product * 37 % 1900;
        total_cents += price_cents;
        let name = NAMES.get(product % NAMES.len()).unwrap_or(&"");
        let _written = writeln!(lines, "{name},P{product:03},{}", amount(price_cents));
    }
    let vat = amount(total_cents / 11);
    let order = order_id(prefix, 0);
    let (vat, total_cents, lines) = match fault {
        None => (vat, total_cents, lines),
        Some(Fault::TotalMismatch) => (vat, total_cents + 1, lines),
        Some(Fault::BadVat) => ("3,10".to_owned(), total_cents, lines),
        Some(Fault::BadProductLine) => (vat, total_cents, lines + "only a name\n"),
        Some(Fault::NoProducts) => (vat, total_cents, String::new()),
    };
    let total = amount(total_cents);
    let body =
        format!("Order: {order}\nVAT: {vat}\nTotal: {total}\n\nproduct,product_id,price\n{lines}");
    if crlf {
        body.replace('\n', "\r\n")
    } else {
        body
    }
}

fn amount(cents: usize) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

#[cfg(test)]
pub(crate) use tests::templates_of_a_test;

#[cfg(test)]
mod tests {
    use super::*;

    fn target(proof: Proof) -> Target {
        Target {
            host: "localhost".to_owned(),
            path: "/ticket".to_owned(),
            proof,
        }
    }

    /// Templates of the prefix `run-`.
    pub(crate) fn templates_of_a_test(proof: &Proof) -> Vec<Template> {
        templates(&Mix::valid(2), "run-", &target(proof.clone()))
    }

    #[test]
    fn a_key_is_that_of_its_ticket() {
        let template = &mut templates_of_a_test(&Proof::Key)[0];
        for number in [7, 1_234_567_890] {
            let request = String::from_utf8(template.stamped(number).to_vec()).unwrap();
            let id = order_id("run-", number);
            assert!(request.contains(&format!("Idempotency-Key: {id}\r\n")));
            assert!(request.contains(&format!("Order: {id}\n")));
        }
    }

    #[test]
    fn a_request_of_many_has_numbers_of_its_own() {
        let mix = Mix {
            bulk: 300,
            ..Mix::valid(1)
        };
        let template = &mut templates(&mix, "run-", &target(Proof::None))[1];
        for number in [0, 5] {
            let request = String::from_utf8(template.stamped(number).to_vec()).unwrap();
            let (head, body) = request.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("Content-Length: {}", body.len())));
            let orders: Vec<_> = body
                .lines()
                .filter_map(|line| line.strip_prefix("Order: "))
                .collect();
            let expected = numbers_of(number, 300).map(|number| order_id("run-", number));
            assert_eq!(orders, expected.collect::<Vec<_>>());
        }
    }

    fn sent_bodies(mix: &Mix) -> Vec<String> {
        templates(mix, "run-", &target(Proof::None))
            .iter_mut()
            .map(|template| {
                let request = String::from_utf8(template.stamped(42).to_vec()).unwrap();
                let (head, body) = request.split_once("\r\n\r\n").unwrap();
                assert!(head.contains(&format!("Content-Length: {}", body.len())));
                body.to_owned()
            })
            .collect()
    }

    fn adds_up(body: &str) -> bool {
        let cents = |text: &str| text.replace('.', "").parse::<u64>().unwrap();
        let total = body
            .lines()
            .find_map(|line| line.strip_prefix("Total: "))
            .unwrap();
        let prices = body
            .lines()
            .skip(5)
            .map(|line| line.rsplit_once(',').unwrap().1);
        prices.map(cents).sum::<u64>() == cents(total)
    }

    #[test]
    fn every_valid_ticket_carries_its_number_and_adds_up() {
        for body in sent_bodies(&Mix::valid(3)) {
            assert!(body.starts_with("Order: run-0000000042\nVAT: "), "{body}");
            assert_eq!(body.lines().count(), 8);
            assert!(adds_up(&body), "{body}");
        }
    }

    #[test]
    fn a_catalogue_is_sold_whole_where_the_tickets_reach_it() {
        let mix = Mix {
            catalogue: 500,
            templates: 250,
            ..Mix::valid(2)
        };
        let bodies = sent_bodies(&mix);
        let lines = bodies.iter().flat_map(|body| body.lines().skip(5));
        let sold: std::collections::HashSet<_> =
            lines.map(|line| line.rsplit(',').nth(1)).collect();
        assert_eq!((bodies.len(), sold.len()), (250, 500));
    }

    #[test]
    fn the_shares_come_out_exactly() {
        let bodies = sent_bodies(&Mix {
            crlf: 30,
            ..Mix::valid(2)
        });
        let crlf = bodies.iter().filter(|body| body.contains("\r\n")).count();
        assert_eq!(crlf * 100, bodies.len() * 30);
        let mix = Mix {
            invalid: 100,
            ..Mix::valid(2)
        };
        let no_products = sent_bodies(&mix)
            .iter()
            .filter(|body| body.lines().count() == 5)
            .count();
        assert_eq!(no_products, TEMPLATES as usize / 4);
    }
}
