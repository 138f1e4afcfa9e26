//! Requests signed as Standard Webhooks say.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::tickets::Template;

/// How long after its start a run's signatures are taken: 5 minutes, less what clocks may differ and the start may last.
pub(crate) const RUN_MAX: Duration = Duration::from_secs(240);

/// Requests that a second of a run is signed ahead for: more than any run on two cores has sent.
const AHEAD_PER_SECOND: f64 = 150_000.0;

/// The most of them: 44 MB.
const AHEAD_MAX: f64 = 1_000_000.0;

/// What is made of 32 bytes in base64.
pub(crate) const SIGNATURE_BYTES: usize = 44;

/// A signature as it is written.
pub(crate) type Signature = [u8; SIGNATURE_BYTES];

/// How many requests of a run are signed before it begins.
pub(crate) fn ahead(duration: Duration) -> usize {
    (duration.as_secs_f64() * AHEAD_PER_SECOND).min(AHEAD_MAX) as usize
}

/// A sender's secret, and the time that its signatures bear.
#[derive(Clone)]
pub(crate) struct Signer {
    mac: Hmac<Sha256>,
    timestamp: String,
}

impl Signer {
    /// By a secret that begins with `whsec_`, at the time that it is now.
    pub(crate) fn new(secret: &str) -> Result<Self> {
        let key = secret.strip_prefix("whsec_").unwrap_or(secret);
        let key = STANDARD.decode(key).context("the secret is not base64")?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        Ok(Self {
            mac: Hmac::new_from_slice(&key)?,
            timestamp: now.as_secs().to_string(),
        })
    }

    /// What `webhook-timestamp` says.
    pub(crate) fn timestamp(&self) -> &str {
        &self.timestamp
    }

    /// The signature of the request that is in this template.
    pub(crate) fn sign(&self, template: &Template) -> Signature {
        let (id, body) = template.signed_parts();
        self.of(id, body)
    }

    fn of(&self, id: &[u8], body: &[u8]) -> Signature {
        let mut mac = self.mac.clone();
        for part in [id, b".", self.timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        let mut signature = [0; SIGNATURE_BYTES];
        let _length = STANDARD.encode_slice(mac.finalize().into_bytes(), &mut signature);
        signature
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tickets::{Proof, templates_of_a_test};

    /// The example of the specification's libraries.
    #[test]
    fn a_signature_is_that_of_the_specification() {
        let mut signer = Signer::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        signer.timestamp = "1614265330".to_owned();
        let mac = signer.of(b"msg_p5jXN8AQM9LWM0D4loKWxJek", br#"{"test": 2432232314}"#);
        assert_eq!(&mac, b"g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_request_has_what_was_signed() {
        let signer = Signer::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let proof = Proof::Signature(signer.timestamp().to_owned());
        let template = &mut templates_of_a_test(&proof)[0];
        template.stamp(42);
        let signature = signer.sign(template);
        template.sign(&signature);
        let request = String::from_utf8(template.bytes().to_vec()).unwrap();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let id = "run-0000000042";
        assert!(body.starts_with(&format!("Order: {id}\n")));
        let signature = str::from_utf8(&signature).unwrap();
        for line in [
            format!("webhook-id: {id}"),
            format!("webhook-timestamp: {}", signer.timestamp()),
            format!("webhook-signature: v1,{signature}"),
        ] {
            assert!(head.lines().any(|it| it == line), "{line}\n{head}");
        }
        assert_eq!(
            signature.as_bytes(),
            signer.of(id.as_bytes(), body.as_bytes())
        );
    }
}
