//! Standard Webhooks 1.0.0: a body signed with a secret that sender and receiver share.
//!
//! What is signed is `id.timestamp.body`, by HMAC-SHA256. Headers that begin with `svix-` are older
//! names of the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::digest::CtOutput;
use hmac::{Hmac, KeyInit, Mac};
use hyper::header::HeaderMap;
use sha2::Sha256;

use super::{Sender, Unauthorized};
use crate::config::WebhookKey;
use crate::source::Source;

/// How far a timestamp may be from now, in seconds: what the published libraries allow.
const TOLERANCE_S: u64 = 300;

/// The longest id of a message, in bytes.
const ID_BYTES_MAX: usize = 255;

/// The names of the headers: id, timestamp and signatures.
const HEADERS: [[&str; 3]; 2] = [
    ["webhook-id", "webhook-timestamp", "webhook-signature"],
    ["svix-id", "svix-timestamp", "svix-signature"],
];

/// Signatures of a request that are looked at; as many secrets as a rotation could need.
const SIGNATURES_MAX: usize = 16;

/// How many secrets a signature is compared with when its request does not name its source: each
/// costs a pass over the body, which anybody can ask for.
pub(crate) const UNNAMED_KEYS_MAX: usize = 8;

/// The part of the query that names the source.
const SOURCE_PARAMETER: &str = "source=";

type Signature = CtOutput<Hmac<Sha256>>;

/// The signature of a request, as its head brings it.
pub(super) struct Signed {
    /// `id.timestamp.`, which is signed before the body.
    start: Vec<u8>,
    id_length: usize,
    signatures: Vec<Signature>,
}

/// Secrets, and whose they are.
#[derive(Default)]
pub(super) struct Webhooks {
    sources: BTreeMap<Source, (Arc<Sender>, Vec<Hmac<Sha256>>)>,
    /// Of all sources: counted here, as each request that names none asks for it.
    keys: usize,
}

impl Signed {
    /// Reads a head, and checks all that does not need the body.
    pub(super) fn read(headers: &HeaderMap, now_s: i64) -> Result<Self, Unauthorized> {
        let is_there = |names: &&[&str; 3]| names.iter().all(|name| headers.contains_key(*name));
        let names = HEADERS.iter().find(is_there);
        let names = names.ok_or(Unauthorized("neither a token nor a signature"))?;
        let [id, timestamp, signatures] = names.map(|name| alone(headers, name));
        let (id, timestamp, signatures) = (id?, timestamp?, signatures?);
        check_id(id)?;
        check_timestamp(timestamp, now_s)?;
        let signatures = read_signatures(signatures);
        if signatures.is_empty() {
            return Err(Unauthorized("no signature of version 1"));
        }
        let start = [id, b".", timestamp, b"."].concat();
        Ok(Self {
            start,
            id_length: id.len(),
            signatures,
        })
    }

    /// The id of the message.
    pub(super) fn id(&self) -> &[u8] {
        self.start.get(..self.id_length).unwrap_or_default()
    }

    fn is_by(&self, key: &Hmac<Sha256>, body: &[u8]) -> bool {
        let own = key
            .clone()
            .chain_update(&self.start)
            .chain_update(body)
            .finalize();
        // Each comparison takes the same time wherever the two differ.
        self.signatures.contains(&own)
    }
}

impl Webhooks {
    /// Adds a sender's.
    pub(super) fn add(&mut self, keys: &[WebhookKey], sender: &Arc<Sender>) {
        if keys.is_empty() {
            return;
        }
        self.keys += keys.len();
        let keys = keys
            .iter()
            .map(|key| Hmac::new(key.block().into()))
            .collect();
        self.sources
            .insert(sender.source.clone(), (sender.clone(), keys));
    }

    /// Whether a signature can be checked, given what its request says of its source.
    pub(super) fn check_named(&self, named: Option<&Source>) -> Result<(), Unauthorized> {
        match named {
            Some(source) if self.sources.contains_key(source) => Ok(()),
            Some(_) => Err(Unauthorized("the source that is named signs nothing")),
            None if self.keys() <= UNNAMED_KEYS_MAX => Ok(()),
            None => Err(Unauthorized(
                "no source is named, and there are too many secrets to try all",
            )),
        }
    }

    /// Whose secret gives the signature of this body.
    pub(super) fn signer(
        &self,
        signed: &Signed,
        named: Option<&Source>,
        body: &[u8],
    ) -> Option<&Arc<Sender>> {
        let is_signer = |(_, keys): &&(Arc<Sender>, Vec<Hmac<Sha256>>)| {
            keys.iter().any(|key| signed.is_by(key, body))
        };
        let found = match named {
            Some(named) => self.sources.get(named).filter(is_signer),
            // Few: see `check_named`.
            None => self.sources.values().find(is_signer),
        };
        found.map(|(sender, _)| sender)
    }

    /// How many secrets there are.
    pub(super) fn keys(&self) -> usize {
        self.keys
    }
}

/// Whether a request says that it is signed.
pub(super) fn is_signed(headers: &HeaderMap) -> bool {
    HEADERS
        .iter()
        .any(|[_, _, signature]| headers.contains_key(*signature))
}

/// The source that a query names.
pub(super) fn source_named(query: Option<&str>) -> Result<Option<Source>, Unauthorized> {
    let parts = query.unwrap_or_default().split('&');
    let mut names = parts.filter_map(|part| part.strip_prefix(SOURCE_PARAMETER));
    let Some(name) = names.next() else {
        return Ok(None);
    };
    if names.next().is_some() {
        return Err(Unauthorized("more than one source is named"));
    }
    let source = Source::parse(name);
    source
        .map(Some)
        .map_err(|_form| Unauthorized("what is named is no source"))
}

/// The value of a header that is there once.
fn alone<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a [u8], Unauthorized> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value.as_bytes()),
        _ => Err(Unauthorized("a header of the signature is there twice")),
    }
}

/// A point would let the same bytes be read as another id, timestamp and body.
fn check_id(id: &[u8]) -> Result<(), Unauthorized> {
    let is_allowed = |byte: &u8| byte.is_ascii_graphic() && *byte != b'.';
    let is_id = (1..=ID_BYTES_MAX).contains(&id.len()) && id.iter().all(is_allowed);
    is_id
        .then_some(())
        .ok_or(Unauthorized("not the form of a message id"))
}

fn check_timestamp(text: &[u8], now_s: i64) -> Result<(), Unauthorized> {
    let is_digits = (1..=12).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    let time = str::from_utf8(text).ok().filter(|_| is_digits);
    let time = time.and_then(|text| text.parse::<i64>().ok());
    let time = time.ok_or(Unauthorized("not the form of a timestamp"))?;
    if time.abs_diff(now_s) > TOLERANCE_S {
        return Err(Unauthorized(
            "the timestamp is more than 5 minutes from now",
        ));
    }
    Ok(())
}

/// The signatures of version 1; others may be there as well, for receivers that know them.
fn read_signatures(list: &[u8]) -> Vec<Signature> {
    let words = list.split(|byte| *byte == b' ').take(SIGNATURES_MAX);
    let encoded = words.filter_map(|word| word.strip_prefix(b"v1,"));
    let signature = |encoded: &[u8]| {
        let mut bytes = [0; 33];
        let length = STANDARD.decode_slice(encoded, &mut bytes).ok()?;
        let bytes: [u8; 32] = bytes.get(..length)?.try_into().ok()?;
        Some(Signature::new(bytes.into()))
    };
    encoded.filter_map(signature).collect()
}

#[cfg(test)]
mod tests;
