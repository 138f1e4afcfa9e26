//! Certificates, keys and CAs in files (PEM). No message shows what is in one.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::SystemTime;

use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{Error, InconsistentKeys, RootCertStore};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::time::Validity;

use crate::config::{TlsFile, TlsIdentity};

/// The largest file that is read: every CA of a machine's is a quarter of it.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What is wrong with a file that a setting names.
#[derive(Debug)]
pub(crate) struct TlsError {
    about: String,
    why: String,
}

impl TlsError {
    /// About this file.
    pub(crate) fn new(file: &TlsFile, why: impl Into<String>) -> Self {
        let (setting, path) = (file.setting, file.path.display());
        Self {
            about: format!("{setting} {path}"),
            why: why.into(),
        }
    }

    /// About something else than a file.
    pub(crate) fn of(about: &str, why: impl Into<String>) -> Self {
        Self {
            about: about.to_owned(),
            why: why.into(),
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.about, self.why)
    }
}

impl std::error::Error for TlsError {}

/// A certificate with those behind it, and its key.
pub(crate) struct CertifiedKey {
    /// The certificate comes first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
}

impl CertifiedKey {
    /// Reads both files.
    pub(crate) fn read(files: &TlsIdentity) -> Result<Self, TlsError> {
        Ok(Self {
            chain: certificates(&files.certificate)?,
            key: key(&files.key)?,
        })
    }

    /// Why the certificate is of no use at this time, if it is of none.
    pub(crate) fn not_valid_at(&self, now: SystemTime) -> Option<String> {
        let validity = validity(self.chain.first()?)?;
        let (from, to) = (validity.not_before, validity.not_after);
        if now > to.to_system_time() {
            return Some(format!("the certificate has expired: it was valid to {to}"));
        }
        let is_early = now < from.to_system_time();
        is_early.then(|| format!("the certificate is not valid yet: it will be from {from}"))
    }
}

/// Why rustls takes no such certificate with no such key.
pub(crate) fn unfit(files: &TlsIdentity, error: Error) -> TlsError {
    let TlsIdentity { certificate, key } = files;
    match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            let (setting, path) = (certificate.setting, certificate.path.display());
            TlsError::new(key, format!("it is not the key of {setting} {path}"))
        }
        // Said of a key, and not more than that it is of no known kind.
        Error::General(why) => TlsError::new(key, why),
        error => TlsError::new(certificate, error.to_string()),
    }
}

/// When a certificate is valid; none if it cannot be read.
pub(crate) fn validity(certificate: &CertificateDer<'_>) -> Option<Validity> {
    let certificate = Certificate::from_der(certificate).ok()?;
    Some(certificate.tbs_certificate.validity)
}

/// All certificates in a file; at least one.
pub(crate) fn certificates(file: &TlsFile) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(file)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(TlsError::new(file, "there is no certificate (PEM) in it")),
        Err(_) => Err(TlsError::new(file, "it is not whole PEM")),
    }
}

/// The CAs in a file, and the certificates that they are.
pub(crate) fn roots(
    file: &TlsFile,
) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), TlsError> {
    let certificates = certificates(file)?;
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        let added = roots.add(certificate.clone());
        added.map_err(|error| TlsError::new(file, format!("not a CA's certificate: {error}")))?;
    }
    Ok((roots, certificates))
}

fn key(file: &TlsFile) -> Result<PrivateKeyDer<'static>, TlsError> {
    let why = "there is no private key (PEM, without a passphrase) in it";
    // The parser's own errors may quote the file.
    PrivateKeyDer::from_pem_slice(&read(file)?).map_err(|error| match error {
        PemError::NoItemsFound => TlsError::new(file, why),
        _ => TlsError::new(file, "it is not whole PEM"),
    })
}

fn read(file: &TlsFile) -> Result<Vec<u8>, TlsError> {
    let bytes = read_bounded(&file.path).map_err(|error| TlsError::new(file, error.to_string()))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let why = format!("it has more than {FILE_BYTES_MAX} bytes");
        return Err(TlsError::new(file, why));
    }
    Ok(bytes)
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
