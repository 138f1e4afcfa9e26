//! TLS of the listeners.

use std::path::PathBuf;

use clap::Args;

/// TLS of the listeners.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Listeners")]
pub struct ListenTlsSettings {
    /// The certificate, with those between it and its CA behind it (PEM), with which LISTEN and ADMIN_LISTEN speak HTTPS; read again on SIGHUP. Plain HTTP without it
    #[arg(long, env = "TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of TLS_CERT (PEM), which has no passphrase; read again on SIGHUP
    #[arg(long, env = "TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

/// A file that a setting names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFile {
    /// The setting, for messages.
    pub setting: &'static str,
    /// The file.
    pub path: PathBuf,
}

impl TlsFile {
    /// The file that this setting names.
    pub fn new(setting: &'static str, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { setting, path }
    }
}

/// What proves who one is: a certificate, and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsIdentity {
    /// The certificate, with those between it and its CA.
    pub certificate: TlsFile,
    /// Its key.
    pub key: TlsFile,
}

/// What is checked of a server's certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PeerCheck {
    /// Nothing: what is sent is encrypted, for whoever is there.
    #[default]
    Nothing,
    /// That one of these CAs has signed it.
    Signed(Authorities),
    /// That one of these CAs has signed it, for the name that is connected to.
    Named(Authorities),
}

/// Whose signature counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorities {
    /// That of the machine's CAs; the setting that could name others.
    Machine(&'static str),
    /// That of the CAs in a file. A server's own certificate may stand there as well.
    File(TlsFile),
}

impl ListenTlsSettings {
    /// The certificate of the listeners; none where they speak plain HTTP.
    pub fn identity(&self) -> Option<TlsIdentity> {
        let (certificate, key) = self.tls_cert.as_ref().zip(self.tls_key.as_ref())?;
        Some(TlsIdentity {
            certificate: TlsFile::new("TLS_CERT", certificate),
            key: TlsFile::new("TLS_KEY", key),
        })
    }
}
