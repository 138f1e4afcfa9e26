//! How far a connection to PostgreSQL is protected, in libpq's terms
//! (<https://www.postgresql.org/docs/current/libpq-ssl.html>).

use std::str::FromStr;

use clap::Args;

use super::ssl_options::SslOptions;
use crate::config::tls::{Authorities, PeerCheck, TlsFile, TlsIdentity};

/// What stands for the machine's CAs.
const SYSTEM: &str = "system";

/// TLS options that `DATABASE_URL` does not have.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "PostgreSQL")]
pub(crate) struct DatabaseTlsSettings {
    /// How far the connection is protected, as in libpq, where DATABASE_URL has no sslmode: disable, prefer, require, verify-ca or verify-full [default: prefer]
    #[arg(long, env = "PGSSLMODE", value_parser = SslMode::from_str)]
    pgsslmode: Option<SslMode>,
    /// The CAs (PEM) that count for the server's certificate, or system for the machine's, where DATABASE_URL has no sslrootcert
    #[arg(long, env = "PGSSLROOTCERT", value_name = "FILE")]
    pgsslrootcert: Option<String>,
    /// The certificate (PEM) to show to the server, where DATABASE_URL has no sslcert
    #[arg(long, env = "PGSSLCERT", value_name = "FILE")]
    pgsslcert: Option<String>,
    /// The key (PEM, without a passphrase) of that certificate, where DATABASE_URL has no sslkey
    #[arg(long, env = "PGSSLKEY", value_name = "FILE")]
    pgsslkey: Option<String>,
}

/// libpq's sslmode, without `allow`: that would be plain wherever the server lets it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SslMode {
    /// Never encrypted.
    Disable,
    /// Encrypted unless the server says that it cannot.
    #[default]
    Prefer,
    /// Encrypted, or not at all.
    Require,
    /// The same, with a server that a known CA vouches for.
    VerifyCa,
    /// The same, for the name that is connected to.
    VerifyFull,
}

impl FromStr for SslMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "disable" => Ok(Self::Disable),
            "prefer" => Ok(Self::Prefer),
            "require" => Ok(Self::Require),
            "verify-ca" => Ok(Self::VerifyCa),
            "verify-full" => Ok(Self::VerifyFull),
            _ => Err(
                "invalid value for option `sslmode`, which is disable, prefer, require, verify-ca or verify-full".into(),
            ),
        }
    }
}

/// How far a connection to PostgreSQL is protected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DatabaseTls {
    /// Whether it is encrypted.
    pub mode: SslMode,
    /// What is checked of the server.
    pub check: PeerCheck,
    /// What is shown to the server.
    pub identity: Option<TlsIdentity>,
}

impl DatabaseTls {
    /// What the URL says, else the other settings, else libpq's defaults; but no file is taken for set
    /// because it is in the home directory.
    pub(crate) fn new(url: &SslOptions, settings: &DatabaseTlsSettings) -> Result<Self, String> {
        let root_cert = file("sslrootcert", &url.root_cert)
            .or_else(|| file("PGSSLROOTCERT", &settings.pgsslrootcert));
        let is_system = root_cert
            .as_ref()
            .is_some_and(|file| file.path.as_os_str() == SYSTEM);
        let default = if is_system {
            SslMode::VerifyFull
        } else {
            SslMode::Prefer
        };
        let mode = match &url.mode {
            Some(mode) => mode.parse()?,
            None => settings.pgsslmode.unwrap_or(default),
        };
        let identity = identity(url, settings)?;
        let root_cert = root_cert.filter(|_| !is_system);
        let check = match (mode, root_cert) {
            (SslMode::Prefer | SslMode::Require | SslMode::VerifyCa, _) if is_system => {
                // Anybody can have a certificate of one of those.
                return Err("sslrootcert=system needs sslmode=verify-full".into());
            }
            (SslMode::VerifyCa, None) => return Err("sslmode=verify-ca needs sslrootcert".into()),
            (SslMode::VerifyFull, None) => PeerCheck::Named(Authorities::Machine("sslrootcert")),
            (SslMode::VerifyFull, Some(file)) => PeerCheck::Named(Authorities::File(file)),
            (SslMode::Disable, _) | (_, None) => PeerCheck::Nothing,
            // As in libpq, where require and prefer check what they can.
            (_, Some(file)) => PeerCheck::Signed(Authorities::File(file)),
        };
        Ok(Self {
            mode,
            check,
            identity,
        })
    }
}

fn identity(
    url: &SslOptions,
    settings: &DatabaseTlsSettings,
) -> Result<Option<TlsIdentity>, String> {
    let cert = file("sslcert", &url.cert).or_else(|| file("PGSSLCERT", &settings.pgsslcert));
    let key = file("sslkey", &url.key).or_else(|| file("PGSSLKEY", &settings.pgsslkey));
    match (cert, key) {
        (Some(certificate), Some(key)) => Ok(Some(TlsIdentity { certificate, key })),
        (None, None) => Ok(None),
        (Some(_), None) => Err("sslcert needs sslkey".into()),
        (None, Some(_)) => Err("sslkey needs sslcert".into()),
    }
}

fn file(setting: &'static str, path: &Option<String>) -> Option<TlsFile> {
    let path = path.as_ref()?;
    Some(TlsFile::new(setting, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(url: &str, settings: &DatabaseTlsSettings) -> Result<DatabaseTls, String> {
        let mut options = SslOptions::default();
        options.take_from_pairs(url);
        DatabaseTls::new(&options, settings)
    }

    #[test]
    fn each_mode_checks_what_it_does_in_libpq() {
        let file = || Authorities::File(TlsFile::new("sslrootcert", "/ca"));
        let machine = Authorities::Machine("sslrootcert");
        let cases = [
            ("host=h", SslMode::Prefer, PeerCheck::Nothing),
            (
                "sslrootcert=/ca",
                SslMode::Prefer,
                PeerCheck::Signed(file()),
            ),
            (
                "sslmode=disable sslrootcert=/ca",
                SslMode::Disable,
                PeerCheck::Nothing,
            ),
            ("sslmode=require", SslMode::Require, PeerCheck::Nothing),
            (
                "sslmode=require sslrootcert=/ca",
                SslMode::Require,
                PeerCheck::Signed(file()),
            ),
            (
                "sslmode=verify-ca sslrootcert=/ca",
                SslMode::VerifyCa,
                PeerCheck::Signed(file()),
            ),
            (
                "sslmode=verify-full sslrootcert=/ca",
                SslMode::VerifyFull,
                PeerCheck::Named(file()),
            ),
            (
                "sslmode=verify-full",
                SslMode::VerifyFull,
                PeerCheck::Named(machine.clone()),
            ),
            (
                "sslrootcert=system",
                SslMode::VerifyFull,
                PeerCheck::Named(machine),
            ),
        ];
        for (url, mode, check) in cases {
            let tls = tls(url, &DatabaseTlsSettings::default()).expect(url);
            assert_eq!((tls.mode, tls.check), (mode, check), "{url}");
        }
        for (url, why) in [
            ("sslmode=allow", "sslmode"),
            ("sslmode=verify-ca", "needs sslrootcert"),
            (
                "sslmode=require sslrootcert=system",
                "needs sslmode=verify-full",
            ),
            ("sslmode=require sslcert=/c", "sslcert needs sslkey"),
            ("sslkey=/k", "sslkey needs sslcert"),
        ] {
            let error = tls(url, &DatabaseTlsSettings::default()).expect_err(url);
            assert!(error.contains(why), "{url}: {error}");
        }
    }

    #[test]
    fn the_url_counts_more_than_other_settings() {
        let settings = DatabaseTlsSettings {
            pgsslmode: Some(SslMode::VerifyFull),
            pgsslrootcert: Some("/theirs".into()),
            pgsslcert: Some("/cert".into()),
            pgsslkey: Some("/key".into()),
        };
        let theirs = Authorities::File(TlsFile::new("PGSSLROOTCERT", "/theirs"));
        let found = tls("", &settings).expect("valid");
        assert_eq!(
            (found.mode, found.check),
            (SslMode::VerifyFull, PeerCheck::Named(theirs))
        );
        let identity = found.identity.expect("a certificate");
        assert_eq!(identity.key, TlsFile::new("PGSSLKEY", "/key"));
        let found = tls("sslmode=require sslrootcert=/ours sslkey=/k", &settings).expect("valid");
        let ours = Authorities::File(TlsFile::new("sslrootcert", "/ours"));
        assert_eq!(
            (found.mode, found.check),
            (SslMode::Require, PeerCheck::Signed(ours))
        );
        let identity = found.identity.expect("a certificate");
        assert_eq!(identity.key, TlsFile::new("sslkey", "/k"));
    }
}
