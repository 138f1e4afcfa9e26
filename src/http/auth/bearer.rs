//! Bearer tokens (RFC 6750 section 2.1).

use std::collections::HashMap;
use std::sync::Arc;

use hmac::digest::CtOutput;
use hyper::header::{AUTHORIZATION, HeaderMap};
use sha2::Sha256;

use super::{Sender, Unauthorized};
use crate::config::{TokenHash, is_token};

/// Tokens, and whose they are.
///
/// Found by the beginning of a token's hash, and then compared as a whole in constant time. How long
/// that takes may tell a beginning of a *hash*; a token that has it is no closer to the right one.
#[derive(Default)]
pub(super) struct Tokens {
    by_start: HashMap<[u8; 8], Vec<(TokenHash, TokenHolder)>>,
}

/// Whose a token is.
#[derive(Clone)]
pub(crate) enum TokenHolder {
    /// A sender's.
    Sender(Arc<Sender>),
    /// An operator's.
    Operator,
}

impl Tokens {
    /// Adds those of one holder.
    pub(super) fn add(&mut self, tokens: &[TokenHash], holder: &TokenHolder) {
        for token in tokens {
            let same = self.by_start.entry(start(token)).or_default();
            same.push((*token, holder.clone()));
        }
    }

    /// Whose token has this hash.
    pub(super) fn holder(&self, hash: &TokenHash) -> Option<&TokenHolder> {
        let same = self.by_start.get(&start(hash))?;
        let found = same.iter().find(|(known, _)| is_equal(known, hash));
        found.map(|(_, holder)| holder)
    }
}

/// The hash of the token that a request brings.
pub(super) fn presented(headers: &HeaderMap) -> Result<TokenHash, Unauthorized> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Unauthorized("no Authorization"))?;
    if values.next().is_some() {
        return Err(Unauthorized("more than one Authorization"));
    }
    let (scheme, token) = value
        .as_bytes()
        .split_at_checked(b"Bearer ".len())
        .ok_or(Unauthorized("no Bearer scheme"))?;
    if !scheme.eq_ignore_ascii_case(b"Bearer ") {
        return Err(Unauthorized("no Bearer scheme"));
    }
    let token = token.trim_ascii();
    // Also spares the hash of what cannot be one.
    if !is_token(token) {
        return Err(Unauthorized("not the form of a token"));
    }
    Ok(TokenHash::of(token))
}

fn start(hash: &TokenHash) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = *hash.bytes();
    [a, b, c, d, e, f, g, h]
}

/// In constant time.
fn is_equal(one: &TokenHash, other: &TokenHash) -> bool {
    let output = |hash: &TokenHash| CtOutput::<Sha256>::new((*hash.bytes()).into());
    output(one) == output(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    const TOKEN: &str = "tkd_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";

    fn with(value: &[u8]) -> HeaderMap {
        let value = HeaderValue::from_bytes(value).expect("a header value");
        [(AUTHORIZATION, value)].into_iter().collect()
    }

    #[test]
    fn a_token_stands_behind_its_scheme() {
        let hash = TokenHash::of(TOKEN.as_bytes());
        for value in ["Bearer {}", "bearer {}", "BEARER   {} "] {
            let value = value.replace("{}", TOKEN);
            assert_eq!(presented(&with(value.as_bytes())), Ok(hash), "{value}");
        }
        let mut twice = with(format!("Bearer {TOKEN}").as_bytes());
        assert!(presented(&twice).is_ok());
        twice.append(AUTHORIZATION, HeaderValue::from_static("Basic eDp5"));
        assert!(presented(&twice).is_err());
    }

    #[test]
    fn what_is_no_token_is_not_even_hashed() {
        let long = format!("Bearer {}", "x".repeat(513));
        for value in [
            "",
            "Bearer",
            "Bearer ",
            "Basic eDp5",
            "Bearer short",
            "Bearer\t",
            &long,
            &format!("Bearer{TOKEN}"),
            &format!("Token {TOKEN}"),
            &format!("Bearer {TOKEN} x"),
            &format!("Bearer {TOKEN},"),
            &format!("Bearer \"{TOKEN}\""),
            &format!("Bearer {TOKEN}é"),
        ] {
            assert!(presented(&with(value.as_bytes())).is_err(), "{value}");
        }
        assert!(presented(&with(&[b"Bearer ".as_slice(), &[0xff; 40]].concat())).is_err());
        assert!(presented(&HeaderMap::new()).is_err());
    }
}
