//! Who sends a request, and whether it may.
//!
//! ```text
//! head -> Claim -> (a signed body) -> Sender -> its limit -> the ticket's id
//! ```
//!
//! A bearer token is checked from the head, before any of the body is read. A signature covers the
//! body, which is read for it within the limits of all bodies; whatever can be told from the head is
//! checked before. Which part is wrong is for the log only.

mod bearer;
mod file;
mod rate;
mod webhook;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use hyper::header::{AUTHORIZATION, HeaderMap};

use crate::config::{Credentials, RateLimit, RateOverride, SourceCredentials};
use crate::metrics::{SourceCounters, SourceMetrics};
use crate::source::Source;
use bearer::Tokens;
use rate::Limiter;
use webhook::{Signed, Webhooks};

pub(crate) use bearer::TokenHolder;
pub(crate) use file::CredentialsFile;
pub(crate) use webhook::UNNAMED_KEYS_MAX;

/// Who may send tickets, and who may see what is the operator's; shared by all workers, and replaced as a whole.
pub(crate) struct Senders {
    table: RwLock<Arc<Table>>,
    /// The limit of sources that have none of their own.
    rate: Option<RateLimit>,
    /// Held while the table is replaced.
    counters: Mutex<SourceCounters>,
}

/// A sender that has proved who it is.
pub(crate) struct Sender {
    /// Its name.
    pub source: Source,
    /// What is counted of it.
    pub metrics: SourceMetrics,
    limit: Option<(RateLimit, Limiter)>,
}

/// What a request's head proves.
pub(crate) enum Claim {
    /// Who sends it.
    Sender(Arc<Sender>),
    /// Nothing, until its body has been compared with its signature.
    Signed(Box<SignedClaim>),
}

/// A signature, and whose it may be.
pub(crate) struct SignedClaim {
    signed: Signed,
    table: Arc<Table>,
    named: Option<Source>,
}

/// A request does not prove who sends it, for this reason, which only the log tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unauthorized(pub &'static str);

/// The senders, by what they prove themselves with.
struct Table {
    senders: BTreeMap<Source, Arc<Sender>>,
    tokens: Tokens,
    webhooks: Webhooks,
}

impl Senders {
    /// Those of these credentials; the limit is of each source that has none of its own.
    pub(crate) fn new(credentials: &Credentials, rate: Option<RateLimit>) -> Self {
        let mut counters = SourceCounters::new();
        let table = Table::new(credentials, rate, &BTreeMap::new(), &mut counters);
        Self {
            table: RwLock::new(Arc::new(table)),
            rate,
            counters: Mutex::new(counters),
        }
    }

    /// Takes these instead, from the next request on. A source that stays keeps what it has used of
    /// its limit.
    pub(crate) fn replace(&self, credentials: &Credentials) {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.table();
        let new = Table::new(credentials, self.rate, &old.senders, &mut counters);
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
    }

    /// What the head of a request proves; its query may name the source that has signed it.
    pub(crate) fn claim(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        now_us: i64,
    ) -> Result<Claim, Unauthorized> {
        if headers.contains_key(AUTHORIZATION) {
            return match self.bearer(headers)? {
                TokenHolder::Sender(sender) => Ok(Claim::Sender(sender)),
                TokenHolder::Operator => Err(Unauthorized("an operator's token sends nothing")),
            };
        }
        let signed = Signed::read(headers, now_us / 1_000_000)?;
        let named = webhook::source_named(query)?;
        let table = self.table();
        table.webhooks.check_named(named.as_ref())?;
        Ok(Claim::Signed(Box::new(SignedClaim {
            signed,
            table,
            named,
        })))
    }

    /// Whose bearer token a request has.
    pub(crate) fn bearer(&self, headers: &HeaderMap) -> Result<TokenHolder, Unauthorized> {
        let hash = bearer::presented(headers)?;
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let holder = table.tokens.holder(&hash);
        holder.cloned().ok_or(Unauthorized("the token is nobody's"))
    }

    /// Checks that a request has an operator's token.
    pub(crate) fn operator(&self, headers: &HeaderMap) -> Result<(), Unauthorized> {
        match self.bearer(headers)? {
            TokenHolder::Operator => Ok(()),
            TokenHolder::Sender(_) => Err(Unauthorized("a source's token shows nothing")),
        }
    }

    fn table(&self) -> Arc<Table> {
        self.table
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Sender {
    fn new(source: Source, rate: Option<RateLimit>, metrics: SourceMetrics) -> Self {
        Self {
            source,
            metrics,
            limit: rate.map(|rate| (rate, Limiter::new(rate, Instant::now()))),
        }
    }

    /// Counts a ticket against its limit. The error says for how many seconds, rounded up, that is
    /// used up.
    pub(crate) fn admit(&self) -> Result<(), u32> {
        let Some((_, limiter)) = &self.limit else {
            return Ok(());
        };
        limiter.admit(Instant::now()).map_err(|wait| {
            let seconds = wait.as_nanos().div_ceil(1_000_000_000);
            u32::try_from(seconds).unwrap_or(u32::MAX)
        })
    }
}

impl SignedClaim {
    /// Who has signed this body, byte for byte.
    pub(crate) fn verify(&self, body: &[u8]) -> Result<&Arc<Sender>, Unauthorized> {
        let signer = self
            .table
            .webhooks
            .signer(&self.signed, self.named.as_ref(), body);
        signer.ok_or(Unauthorized("no secret gives one of the signatures"))
    }

    /// The id of the message, which its signature covers: 1 to 255 visible ASCII characters.
    pub(crate) fn message_id(&self) -> &[u8] {
        self.signed.id()
    }
}

impl Table {
    fn new(
        credentials: &Credentials,
        rate: Option<RateLimit>,
        old: &BTreeMap<Source, Arc<Sender>>,
        counters: &mut SourceCounters,
    ) -> Self {
        let mut table = Self {
            senders: BTreeMap::new(),
            tokens: Tokens::default(),
            webhooks: Webhooks::default(),
        };
        for (source, own) in &credentials.sources {
            let rate = rate_of(own, rate);
            let known = old
                .get(source)
                .filter(|old| old.limit.as_ref().map(|limit| limit.0) == rate);
            let sender = known.cloned().unwrap_or_else(|| {
                let metrics = counters.of(source.as_str());
                Arc::new(Sender::new(source.clone(), rate, metrics))
            });
            table
                .tokens
                .add(&own.tokens, &TokenHolder::Sender(sender.clone()));
            table.webhooks.add(&own.webhook_keys, &sender);
            table.senders.insert(source.clone(), sender);
        }
        table
            .tokens
            .add(&credentials.operators, &TokenHolder::Operator);
        table
    }
}

fn rate_of(source: &SourceCredentials, rate: Option<RateLimit>) -> Option<RateLimit> {
    match source.rate {
        Some(RateOverride::Limit(limit)) => Some(limit),
        Some(RateOverride::Off) => None,
        None => rate,
    }
}

#[cfg(test)]
mod tests;
