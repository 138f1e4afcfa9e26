//! `ticketd credential`: a new secret, and the line that lets its holder in.

use std::io::Write;

use anyhow::{Context, anyhow};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::config::{CredentialAction, CredentialKind, TOKEN_PREFIX, TokenHash, WEBHOOK_PREFIX};

/// The length of a secret, in bytes: nobody guesses 256 bits.
const SECRET_BYTES: usize = 32;

/// Writes the secret, and below it the line for `CREDENTIALS_FILE`.
pub fn credential(action: &CredentialAction, out: &mut impl Write) -> anyhow::Result<()> {
    let CredentialAction::New { name, kind } = action;
    let secret = new_secret(*kind)?;
    let kept = match kind {
        // The key itself is needed to check a signature.
        CredentialKind::Webhook => secret.clone(),
        CredentialKind::Bearer | CredentialKind::Operator => {
            TokenHash::of(secret.as_bytes()).to_string()
        }
    };
    writeln!(out, "{secret}\n{name} {kind} {kept}")?;
    Ok(())
}

/// A new secret of that kind.
pub(super) fn new_secret(kind: CredentialKind) -> anyhow::Result<String> {
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes)
        .map_err(|error| anyhow!("{error}"))
        .context("the system's randomness")?;
    Ok(secret(kind, &bytes))
}

fn secret(kind: CredentialKind, bytes: &[u8]) -> String {
    match kind {
        CredentialKind::Webhook => format!("{WEBHOOK_PREFIX}{}", STANDARD.encode(bytes)),
        CredentialKind::Bearer | CredentialKind::Operator => {
            format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Credentials;
    use crate::source::Source;

    #[test]
    fn the_line_is_read_as_the_secret_says() {
        for kind in [
            CredentialKind::Bearer,
            CredentialKind::Webhook,
            CredentialKind::Operator,
        ] {
            let name = Source::parse("shop-7").expect("a name");
            let mut out = Vec::new();
            let action = CredentialAction::New {
                name: name.clone(),
                kind,
            };
            credential(&action, &mut out).expect("randomness");
            let out = String::from_utf8(out).expect("text");
            let (secret, line) = out.split_once('\n').expect("two lines");
            let credentials = Credentials::parse(line).expect("a good line");
            assert_eq!(
                secret.len(),
                if kind == CredentialKind::Webhook {
                    50
                } else {
                    47
                }
            );
            let token = TokenHash::of(secret.as_bytes());
            let tokens = match kind {
                CredentialKind::Operator => &credentials.operators,
                _ => &credentials.sources[&name].tokens,
            };
            match kind {
                CredentialKind::Webhook => {
                    let keys = &credentials.sources[&name].webhook_keys;
                    assert_eq!(keys[..], [secret.parse().expect("a secret")]);
                }
                _ => {
                    assert_eq!(tokens[..], [token]);
                    assert!(!line.contains(secret));
                }
            }
        }
    }
}
