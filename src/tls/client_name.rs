//! Who a client is, by its certificate.

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::ServerStream;
use crate::config::credential_name;
use crate::source::Source;

/// The common name, a part of a subject (RFC 4519 section 2.3).
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// How much of a subject a log shows, in characters.
const SUBJECT_CHARS_MAX: usize = 200;

/// Who a client is, as far as its certificate tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ClientIdentity {
    /// It was not asked for a certificate.
    Unasked,
    /// This source.
    Source(Source),
    /// Its certificate names no source.
    NoSource {
        /// Why not.
        why: &'static str,
        /// Whose certificate it is, as it says itself, for the log.
        subject: String,
    },
}

impl ClientIdentity {
    /// Who is at the other end of this connection.
    pub(crate) fn of<S>(stream: &ServerStream<S>) -> Self {
        let (_, session) = stream.get_ref();
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        certificate.map_or(Self::Unasked, Self::of_certificate)
    }

    fn of_certificate(certificate: &CertificateDer<'_>) -> Self {
        let Ok(certificate) = Certificate::from_der(certificate) else {
            return Self::NoSource {
                why: "it cannot be read",
                subject: String::new(),
            };
        };
        match source(&certificate) {
            Ok(source) => Self::Source(source),
            Err(why) => {
                let subject = certificate.tbs_certificate.subject.to_string();
                let subject = subject.chars().take(SUBJECT_CHARS_MAX).collect();
                Self::NoSource { why, subject }
            }
        }
    }
}

/// The only DNS name among its alternative names; where there is none, its only common name.
fn source(certificate: &Certificate) -> Result<Source, &'static str> {
    let names = dns_names(certificate)?;
    let names = if names.is_empty() {
        common_names(certificate)
    } else {
        names
    };
    match names.as_slice() {
        [name] => credential_name(str::from_utf8(name).unwrap_or_default()),
        [] => Err("it has neither a DNS name nor a common name"),
        _ => Err("it has more than one name"),
    }
}

fn dns_names(certificate: &Certificate) -> Result<Vec<Vec<u8>>, &'static str> {
    let names = certificate.tbs_certificate.get::<SubjectAltName>();
    let names = names.map_err(|_malformed| "its alternative names cannot be read")?;
    let names = names.map_or(Vec::new(), |(_critical, names)| names.0);
    let dns_name = |name: &GeneralName| match name {
        GeneralName::DnsName(name) => Some(name.as_bytes().to_vec()),
        _ => None,
    };
    Ok(names.iter().filter_map(dns_name).collect())
}

/// As bytes, whatever kind of text they are: a source has none that mean different things.
fn common_names(certificate: &Certificate) -> Vec<Vec<u8>> {
    let parts = certificate.tbs_certificate.subject.0.iter();
    let parts = parts.flat_map(|parts| parts.0.iter());
    parts
        .filter(|part| part.oid == COMMON_NAME)
        .map(|part| part.value.value().to_vec())
        .collect()
}
