//! Many tickets under one key, as a file or a body has them, and what the ledger is told of them.

use fastrand::Rng;
use uuid::Uuid;

use crate::ledger::{Kind, Ledger};
use crate::ticket::{Shape, ticket};

/// The namespace of ids that are made from keys, as it is documented.
const KEY_NAMESPACE: Uuid = Uuid::from_u128(0x7b0d_51b2_6f5c_4e0a_9f8e_1c0d_3a6b_27d4);

/// Tickets that are sent together.
pub(crate) struct Many {
    /// What their ids are made of, with their numbers.
    pub key: String,
    tickets: Vec<String>,
}

impl Many {
    /// So many small tickets, valid and invalid ones.
    pub(crate) fn new(key: &str, count: usize, rng: &mut Rng) -> Self {
        let mut one = |n| {
            let shape = match rng.u8(0..10) {
                0 => Shape::Invalid,
                1 => Shape::Crlf,
                _ => Shape::Valid,
            };
            ticket(&format!("{key}-{n}"), shape, rng)
        };
        Self {
            key: key.to_owned(),
            tickets: (0..count).map(&mut one).collect(),
        }
    }

    /// A JSON object a line.
    pub(crate) fn lines(&self) -> String {
        let lines = self.tickets.iter();
        lines
            .map(|ticket| serde_json::json!({ "ticket": ticket }).to_string() + "\n")
            .collect()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.tickets.len()
    }

    /// Before they are sent; returns what the ledger calls them.
    pub(crate) fn sent(&self, ledger: &Ledger) -> Vec<u64> {
        let tickets = self.tickets.iter().enumerate();
        let sent = tickets.map(|(at, ticket)| {
            let key = format!("{}#{}", self.key, at + 1);
            ledger.sent(Kind::Keyed, Some(&key), ticket.as_bytes())
        });
        sent.collect()
    }

    /// After it was said that all of them are safe.
    pub(crate) fn confirmed(&self, ledger: &Ledger, sent: &[u64]) {
        let of_all = Uuid::new_v5(&KEY_NAMESPACE, self.key.as_bytes());
        for (at, n) in sent.iter().enumerate() {
            let id = Uuid::new_v5(&of_all, (at + 1).to_string().as_bytes());
            ledger.confirmed(*n, id);
        }
    }
}
