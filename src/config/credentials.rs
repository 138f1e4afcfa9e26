//! Credentials as text, one a line: name, kind, secret, options. Pure.
//!
//! ```text
//! # who     how       what                                                   how fast
//! shop-7    bearer    sha256:0b6fa0a7f3c7d0a2e6d1c1a6b5f6…
//! shop-8    webhook   whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw                 rate=50/s:100
//! grafana   operator  sha256:e1a5…
//! ```
//!
//! No error shows a word of what it is about: a secret may stand in any column by mistake.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::str::FromStr;

use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, Engine, GeneralPurpose, GeneralPurposeConfig};
use sha2::{Digest, Sha256};

use super::rate::{RateLimit, rate_limit};
use crate::source::Source;

/// The label of the counters that sources share when there are too many.
pub const OTHER_SOURCES: &str = "other";

/// The shortest and the longest token, in characters. `credential new` makes longer ones.
const TOKEN_LENGTHS: std::ops::RangeInclusive<usize> = 32..=512;

/// What a secret of Standard Webhooks begins with.
pub const WEBHOOK_PREFIX: &str = "whsec_";

/// What the tokens begin with that `credential new` makes, so that they are recognised, also by those who
/// look for secrets where none should be.
pub const TOKEN_PREFIX: &str = "tkd_";

/// What the hash of a token begins with.
pub(super) const HASH_PREFIX: &str = "sha256:";

/// The shortest and the longest key in such a secret, in bytes (Standard Webhooks 1.0.0).
const KEY_LENGTHS: std::ops::RangeInclusive<usize> = 24..=64;

/// The block of SHA-256, in bytes: an HMAC key that is shorter is filled up with zeros.
const BLOCK: usize = 64;

/// Webhook secrets that a source may have at once: a signature is compared with each.
const WEBHOOK_KEYS_MAX: usize = 8;

/// Standard's library reads them with and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What credentials there are, by source.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// Who may send tickets.
    pub sources: BTreeMap<Source, SourceCredentials>,
    /// Who may see what is the operator's.
    pub operators: Vec<TokenHash>,
}

/// What proves that a request is a source's: any of these.
#[derive(Debug, Clone, Default)]
pub struct SourceCredentials {
    /// Bearer tokens.
    pub tokens: Vec<TokenHash>,
    /// Secrets of Standard Webhooks.
    pub webhook_keys: Vec<WebhookKey>,
    /// How many tickets it may send, where that is not `RATE_LIMIT`.
    pub rate: Option<RateOverride>,
}

/// A limit of a source's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateOverride {
    /// None at all.
    Off,
    /// This one.
    Limit(RateLimit),
}

/// The SHA-256 of a bearer token. A fast hash is enough: a token is not chosen by people but 256
/// bits of chance, which nobody can guess, however fast.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

/// The key in a secret of Standard Webhooks, filled up to HMAC's block.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct WebhookKey([u8; BLOCK]);

/// What a credential is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialKind {
    /// Sends tickets with `Authorization: Bearer`.
    Bearer,
    /// Signs tickets as Standard Webhooks say.
    Webhook,
    /// Sees what is the operator's, and sends nothing.
    Operator,
}

/// What is wrong with credentials, and in which line; nothing of the line itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CredentialsError {
    line: Option<usize>,
    why: &'static str,
}

/// One line, read.
struct Line {
    source: Source,
    secret: LineSecret,
    rate: Option<RateOverride>,
}

#[derive(PartialEq, Eq, Hash)]
enum LineSecret {
    Bearer(TokenHash),
    Webhook(WebhookKey),
    Operator(TokenHash),
}

impl Credentials {
    /// Reads lines of credentials: at least one, and none twice. A line ends with a line break or
    /// `;`, and `#` begins a comment.
    pub fn parse(text: &str) -> Result<Self, CredentialsError> {
        let mut credentials = Self::default();
        let mut known = HashSet::new();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split_once('#').map_or(line, |(line, _comment)| line);
            for line in line.split(';').filter(|line| !line.trim().is_empty()) {
                let added = Line::parse(line).and_then(|line| credentials.add(line, &mut known));
                added.map_err(|why| CredentialsError {
                    line: Some(number),
                    why,
                })?;
            }
        }
        if known.is_empty() {
            return Err(CredentialsError {
                line: None,
                why: "there is no credential in it",
            });
        }
        Ok(credentials)
    }

    fn add(&mut self, line: Line, known: &mut HashSet<[u8; BLOCK]>) -> Result<(), &'static str> {
        if !known.insert(line.secret.bytes()) {
            return Err("this secret is there already");
        }
        if let LineSecret::Operator(token) = line.secret {
            if line.rate.is_some() {
                return Err("an operator has no rate");
            }
            self.operators.push(token);
            return Ok(());
        }
        let source = self.sources.entry(line.source).or_default();
        match line.secret {
            LineSecret::Bearer(token) | LineSecret::Operator(token) => source.tokens.push(token),
            LineSecret::Webhook(key) => source.webhook_keys.push(key),
        }
        if source.webhook_keys.len() > WEBHOOK_KEYS_MAX {
            return Err("this source has more than 8 webhook secrets");
        }
        if source.rate.is_some() && line.rate.is_some() && source.rate != line.rate {
            return Err("this source has another rate already");
        }
        source.rate = source.rate.or(line.rate);
        Ok(())
    }
}

impl Line {
    fn parse(line: &str) -> Result<Self, &'static str> {
        let mut words = line.split_whitespace();
        let (Some(name), Some(kind), Some(secret)) = (words.next(), words.next(), words.next())
        else {
            return Err("it has not a name, a kind and a secret");
        };
        let source = credential_name(name)?;
        let secret = match kind.parse()? {
            CredentialKind::Bearer => LineSecret::Bearer(secret.parse()?),
            CredentialKind::Webhook => LineSecret::Webhook(secret.parse()?),
            CredentialKind::Operator => LineSecret::Operator(secret.parse()?),
        };
        let mut rate = None;
        for option in words {
            let value = option
                .strip_prefix("rate=")
                .ok_or("the only option is rate=")?;
            if rate.replace(rate_override(value)?).is_some() {
                return Err("it has more than one rate");
            }
        }
        Ok(Self {
            source,
            secret,
            rate,
        })
    }
}

impl LineSecret {
    /// Equal for equal secrets, whatever their kind.
    fn bytes(&self) -> [u8; BLOCK] {
        match self {
            Self::Webhook(key) => key.0,
            Self::Bearer(token) | Self::Operator(token) => {
                let mut bytes = [0; BLOCK];
                bytes
                    .iter_mut()
                    .zip(token.0)
                    .for_each(|(to, from)| *to = from);
                bytes
            }
        }
    }
}

/// Reads the name of a credential.
pub(crate) fn credential_name(text: &str) -> Result<Source, &'static str> {
    let name = Source::parse(text);
    let name = name.map_err(|_form| "a name has 1 to 64 characters of a-z, 0-9, ., _ and -")?;
    if name.as_str() == OTHER_SOURCES {
        return Err("the name other is taken: it counts the sources beyond the first thousand");
    }
    Ok(name)
}

fn rate_override(text: &str) -> Result<RateOverride, &'static str> {
    if text == "off" {
        return Ok(RateOverride::Off);
    }
    rate_limit(text).map(RateOverride::Limit)
}

impl FromStr for CredentialKind {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "bearer" => Ok(Self::Bearer),
            "webhook" => Ok(Self::Webhook),
            "operator" => Ok(Self::Operator),
            _ => Err("the kind is none of bearer, webhook and operator"),
        }
    }
}

impl fmt::Display for CredentialKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bearer => "bearer",
            Self::Webhook => "webhook",
            Self::Operator => "operator",
        })
    }
}

impl TokenHash {
    /// The hash of a token.
    pub fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A token itself, or its hash.
impl FromStr for TokenHash {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(hash) = text.strip_prefix(HASH_PREFIX) {
            return hash_of_hex(hash).ok_or("after sha256: stand 64 hexadecimal digits");
        }
        if !is_token(text.as_bytes()) {
            return Err("a token has 32 to 512 letters, digits and -._~+/, and = at its end");
        }
        Ok(Self::of(text.as_bytes()))
    }
}

/// Whether it has the length and the form of a token (RFC 6750 section 2.1).
pub fn is_token(text: &[u8]) -> bool {
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte);
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    let body = text.iter().take(text.len() - padding);
    TOKEN_LENGTHS.contains(&text.len()) && padding < text.len() && body.clone().all(is_allowed)
}

fn hash_of_hex(hex: &str) -> Option<TokenHash> {
    let mut bytes = [0; 32];
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    if pairs.len() != bytes.len() || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()?;
    }
    Some(TokenHash(bytes))
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HASH_PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(not shown)")
    }
}

impl WebhookKey {
    /// The key, as long as HMAC's block.
    pub fn block(&self) -> &[u8; BLOCK] {
        &self.0
    }
}

impl FromStr for WebhookKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let encoded = text.strip_prefix(WEBHOOK_PREFIX);
        let encoded = encoded.ok_or("a webhook secret begins with whsec_")?;
        let key = BASE64
            .decode(encoded)
            .map_err(|_form| "after whsec_ stands base64")?;
        if !KEY_LENGTHS.contains(&key.len()) {
            return Err("a webhook secret has 24 to 64 bytes");
        }
        let mut block = [0; BLOCK];
        block.iter_mut().zip(key).for_each(|(to, from)| *to = from);
        Ok(Self(block))
    }
}

impl fmt::Debug for WebhookKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookKey(not shown)")
    }
}

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(self.why)
    }
}

impl std::error::Error for CredentialsError {}

#[cfg(test)]
mod tests;
