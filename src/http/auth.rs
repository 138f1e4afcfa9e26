//! Who sends a request, and whether it may.
//!
//! ```text
//! certificate, head -> Claim -> (a signed body) -> Sender -> its limit -> the ticket's id
//! ```
//!
//! A bearer token is checked from the head, before any of the body is read. A signature covers the
//! body, which is read for it within the limits of all bodies; whatever can be told from the head is
//! checked before. Which part is wrong is for the log only.

mod bearer;
mod file;
mod rate;
mod webhook;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use hyper::header::{AUTHORIZATION, HeaderMap};

use crate::config::{Credentials, RateLimit, RateOverride, SourceCredentials};
use crate::metrics::{SourceCounters, SourceMetrics};
use crate::source::Source;
use crate::tls::ClientIdentity;
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
    /// Those that only a certificate names.
    certified: RwLock<HashMap<Source, Arc<Sender>>>,
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
    /// Whether there are credentials at all; else certificates alone tell who sends.
    has_credentials: bool,
}

/// Sources that only certificates name, of which is known how much of their limit they have used.
const CERTIFIED_MAX: usize = 32_768;

impl Senders {
    /// Those of these credentials; the limit is of each source that has none of its own.
    pub(crate) fn new(credentials: &Credentials, rate: Option<RateLimit>) -> Self {
        let mut counters = SourceCounters::new();
        let table = Table::new(credentials, rate, &BTreeMap::new(), &mut counters);
        Self {
            table: RwLock::new(Arc::new(table)),
            rate,
            counters: Mutex::new(counters),
            certified: RwLock::default(),
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

    /// What the head of a request from this client proves; its query may name the source that has
    /// signed it. A certificate is enough. A credential beside it has to be of the same source, so
    /// that nobody sends in the name of one with the certificate of another.
    pub(crate) fn claim(
        &self,
        client: &ClientIdentity,
        headers: &HeaderMap,
        query: Option<&str>,
        now_us: i64,
    ) -> Result<Claim, Unauthorized> {
        let certified = certified(client);
        if let Some(source) = certified
            && !self.table().has_claim(headers)
        {
            return Ok(Claim::Sender(self.of_certificate(source)));
        }
        if headers.contains_key(AUTHORIZATION) {
            return match self.bearer(headers)? {
                TokenHolder::Sender(sender) => {
                    check_same(certified, &sender.source)?;
                    Ok(Claim::Sender(sender))
                }
                TokenHolder::Operator => Err(Unauthorized("an operator's token sends nothing")),
            };
        }
        let signed = Signed::read(headers, now_us / 1_000_000)?;
        let mut named = webhook::source_named(query)?;
        if let Some(source) = certified {
            check_same(named.as_ref(), source)?;
            named = Some(source.clone());
        }
        let table = self.table();
        table.webhooks.check_named(named.as_ref())?;
        Ok(Claim::Signed(Box::new(SignedClaim {
            signed,
            table,
            named,
        })))
    }

    /// The source that asks with a request from this client; none if an operator does.
    pub(crate) fn asks(
        &self,
        client: &ClientIdentity,
        headers: &HeaderMap,
    ) -> Result<Option<Arc<Sender>>, Unauthorized> {
        let certified = certified(client);
        if let Some(source) = certified
            && !self.table().has_claim(headers)
        {
            return Ok(Some(self.of_certificate(source)));
        }
        match self.bearer(headers)? {
            TokenHolder::Operator => Ok(None),
            TokenHolder::Sender(sender) => {
                check_same(certified, &sender.source)?;
                Ok(Some(sender))
            }
        }
    }

    /// The sender that a certificate names, which credentials may know as well.
    fn of_certificate(&self, source: &Source) -> Arc<Sender> {
        if let Some(known) = self.table().senders.get(source) {
            return known.clone();
        }
        let certified = self
            .certified
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = certified.get(source) {
            return known.clone();
        }
        drop(certified);
        self.new_of_certificate(source)
    }

    fn new_of_certificate(&self, source: &Source) -> Arc<Sender> {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let metrics = counters.of(source.as_str());
        drop(counters);
        let mut certified = self
            .certified
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if certified.len() >= CERTIFIED_MAX {
            certified.retain(|_, sender| Arc::strong_count(sender) > 1);
        }
        let new = || Arc::new(Sender::new(source.clone(), self.rate, metrics));
        certified.entry(source.clone()).or_insert_with(new).clone()
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

/// The source that a client's certificate names.
fn certified(client: &ClientIdentity) -> Option<&Source> {
    match client {
        ClientIdentity::Source(source) => Some(source),
        ClientIdentity::Unasked | ClientIdentity::NoSource { .. } => None,
    }
}

fn check_same(one: Option<&Source>, other: &Source) -> Result<(), Unauthorized> {
    if one.is_some_and(|one| one != other) {
        return Err(Unauthorized("certificate and credential name two sources"));
    }
    Ok(())
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
            has_credentials: !credentials.sources.is_empty() || !credentials.operators.is_empty(),
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

    /// Whether a request brings a credential that counts, right or wrong.
    fn has_claim(&self, headers: &HeaderMap) -> bool {
        self.has_credentials && (headers.contains_key(AUTHORIZATION) || webhook::is_signed(headers))
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
