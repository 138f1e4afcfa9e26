//! What a test has left: the requests in its ledger, and the rows in the tables.

use std::collections::BTreeMap;
use std::path::Path;

use tokio_postgres::Client;
use uuid::Uuid;

use crate::ledger::{Kind, hash};

/// What the ledger says of one request.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) n: u64,
    pub(super) sent_us: u64,
    pub(super) ended_us: Option<u64>,
    pub(super) kind: Kind,
    pub(super) key: Option<String>,
    pub(super) hash: Uuid,
    pub(super) status: Option<u16>,
    pub(super) id: Option<Uuid>,
}

#[derive(Clone)]
pub(super) struct Row {
    pub(super) ticket_id: Uuid,
    pub(super) hash: Uuid,
    pub(super) text: String,
    pub(super) received_us: i64,
    pub(super) valid: bool,
    pub(super) order_id: Option<String>,
    pub(super) total: Option<String>,
    pub(super) has_reason: bool,
}

pub(super) struct Facts {
    pub(super) requests: Vec<Request>,
    pub(super) rows: Vec<Row>,
    /// Id and hash of the body.
    pub(super) dead: Vec<(Uuid, Uuid)>,
    /// Product id to name and price.
    pub(super) products: BTreeMap<String, (String, String)>,
    /// How far the tickets in the rows of `products` may be behind the newest.
    pub(super) behind_us: i64,
}

impl Facts {
    /// Reads both.
    pub(super) async fn gather(ledger: &Path, sql: &Client) -> Self {
        Self {
            requests: read_ledger(&std::fs::read_to_string(ledger).unwrap()),
            rows: read_rows(sql).await,
            dead: read_dead(sql).await,
            products: read_products(sql).await,
            behind_us: 0,
        }
    }
}

fn read_ledger(text: &str) -> Vec<Request> {
    let mut requests = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let (n, at): (u64, u64) = (words[1].parse().unwrap(), words[2].parse().unwrap());
        if words[0] == "sent" {
            let request = Request {
                n,
                sent_us: at,
                ended_us: None,
                kind: Kind::of_name(words[3]).unwrap(),
                key: (words[4] != "-").then(|| words[4].to_owned()),
                hash: words[5].parse().unwrap(),
                status: None,
                id: None,
            };
            assert!(requests.insert(n, request).is_none(), "{n} was sent twice");
            continue;
        }
        let request: &mut Request = requests.get_mut(&n).expect("sent before it was answered");
        request.ended_us = Some(at);
        if words[0] == "answered" {
            request.status = Some(words[3].parse().unwrap());
            request.id = words[4].parse().ok();
        }
    }
    assert!(!requests.is_empty(), "an empty ledger proves nothing");
    requests.into_values().collect()
}

async fn read_rows(sql: &Client) -> Vec<Row> {
    let query = "select ticket_id, ticket_text, (extract(epoch from received_at) * 1000000)::bigint, \
        valid, order_id, total::text, invalid_reason is not null from tickets";
    let rows = sql.query(query, &[]).await.unwrap();
    rows.iter()
        .map(|row| {
            let text: String = row.get(1);
            Row {
                ticket_id: row.get(0),
                hash: hash(text.as_bytes()),
                text,
                received_us: row.get(2),
                valid: row.get(3),
                order_id: row.get(4),
                total: row.get(5),
                has_reason: row.get(6),
            }
        })
        .collect()
}

async fn read_dead(sql: &Client) -> Vec<(Uuid, Uuid)> {
    let rows = sql
        .query("select ticket_id, body from dead_tickets", &[])
        .await
        .unwrap();
    rows.iter()
        .map(|row| (row.get(0), hash(row.get(1))))
        .collect()
}

async fn read_products(sql: &Client) -> BTreeMap<String, (String, String)> {
    let query = "select product_id, name, price::text from products";
    let rows = sql.query(query, &[]).await.unwrap();
    rows.iter()
        .map(|row| (row.get(0), (row.get(1), row.get(2))))
        .collect()
}
