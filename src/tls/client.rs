//! A connection to a server, whose certificate is checked as far as asked for.

use std::io::{Error as IoError, ErrorKind, Result as IoResult};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{
    ClientConfig, verify_server_cert_signed_by_trust_anchor, verify_server_name,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, DigitallySignedStruct, Error, InvalidMessage,
    RootCertStore, SignatureScheme,
};

use super::files::{CertifiedKey, TlsError, roots, unfit, validity};
use super::{ClientStream, provider};
use crate::config::{Authorities, PeerCheck, TlsIdentity};

/// What connects to servers.
#[derive(Debug, Clone)]
pub(crate) struct ClientTls {
    config: Arc<ClientConfig>,
}

impl ClientTls {
    /// Reads the files, for one connection: the next one reads them again.
    pub(crate) fn read(
        check: &PeerCheck,
        identity: Option<&TlsIdentity>,
    ) -> Result<Self, TlsError> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::of("TLS", error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier::new(check)?));
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let CertifiedKey { chain, key } = CertifiedKey::read(files)?;
                let config = builder.with_client_auth_cert(chain, key);
                config.map_err(|error| unfit(files, error))?
            }
        };
        let config = Arc::new(config);
        Ok(Self { config })
    }

    /// For whoever does the handshake by itself.
    pub(crate) fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// Does the handshake with a server of this name or address.
    pub(crate) async fn connect<S>(&self, host: &str, stream: S) -> IoResult<ClientStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|error| IoError::new(ErrorKind::InvalidInput, error))?;
        let connector = TlsConnector::from(self.config.clone());
        connector.connect(name, stream).await
    }
}

/// Whether a listener of ours ended a connection because its client has no certificate.
pub(crate) fn wants_certificate(error: &IoError) -> bool {
    matches!(
        tls_error(error),
        Some(Error::AlertReceived(AlertDescription::CertificateRequired))
    )
}

/// What to do about a server with which a handshake failed, if that is what the error is about;
/// `url` is the setting that says where it is, `certificate` that of ours.
pub(crate) fn explain(
    error: &IoError,
    check: &PeerCheck,
    url: &str,
    certificate: &str,
) -> Option<String> {
    let error = match tls_error(error)? {
        Error::InvalidCertificate(error) => error,
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            return Some(format!("the server speaks no TLS on the port of {url}"));
        }
        Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::AccessDenied,
        ) => {
            return Some(format!(
                "the server does not take our certificate: see {certificate}"
            ));
        }
        _ => return None,
    };
    Some(match error {
        // A bad signature is that of another CA of the same name.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            format!("the server's certificate is of no CA in {}", named(check))
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("the server's certificate is for other host names than that of {url}")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired".into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet; are the clocks right?".into()
        }
        _ => format!(
            "the server's certificate cannot be used; a CA's own, as one signed by itself often is, has to be in {}",
            named(check)
        ),
    })
}

/// The setting, and where it leads.
fn named(check: &PeerCheck) -> String {
    match check {
        PeerCheck::Nothing => "no setting".into(),
        PeerCheck::Signed(Authorities::File(file)) | PeerCheck::Named(Authorities::File(file)) => {
            format!("{} {}", file.setting, file.path.display())
        }
        PeerCheck::Signed(Authorities::Machine(setting))
        | PeerCheck::Named(Authorities::Machine(setting)) => {
            format!("this machine, and {setting} is not set")
        }
    }
}

/// What TLS objects to, if it is that.
fn tls_error(error: &IoError) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

#[derive(Debug)]
struct Verifier {
    check: PeerCheck,
    roots: RootCertStore,
    /// What the file of CAs holds, as it stands there.
    listed: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(check: &PeerCheck) -> Result<Self, TlsError> {
        let (roots, listed) = match check {
            PeerCheck::Nothing => (RootCertStore::empty(), Vec::new()),
            PeerCheck::Signed(Authorities::File(file))
            | PeerCheck::Named(Authorities::File(file)) => roots(file)?,
            PeerCheck::Signed(Authorities::Machine(setting))
            | PeerCheck::Named(Authorities::Machine(setting)) => {
                (machine_roots(setting)?, Vec::new())
            }
        };
        Ok(Self {
            check: check.clone(),
            roots,
            listed,
            provider: provider(),
        })
    }

    /// A certificate that is in the file itself needs no other to vouch for it, only to be valid still.
    fn check_listed(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
        let now = Duration::from_secs(now.as_secs());
        match validity(certificate) {
            None => Err(CertificateError::BadEncoding.into()),
            Some(valid) if now < valid.not_before.to_unix_duration() => {
                Err(CertificateError::NotValidYet.into())
            }
            Some(valid) if now > valid.not_after.to_unix_duration() => {
                Err(CertificateError::Expired.into())
            }
            Some(_) => Ok(()),
        }
    }
}

/// The CAs that the machine trusts.
fn machine_roots(setting: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = "it is not set, and this machine has no CAs of its own (package ca-certificates)";
        return Err(TlsError::of(setting, why));
    }
    Ok(roots)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = Ok(ServerCertVerified::assertion());
        if self.check == PeerCheck::Nothing {
            return verified;
        }
        let certificate = ParsedCertificate::try_from(end_entity)?;
        if self.listed.contains(end_entity) {
            Self::check_listed(end_entity, now)?;
        } else {
            verify_server_cert_signed_by_trust_anchor(
                &certificate,
                &self.roots,
                intermediates,
                now,
                self.provider.signature_verification_algorithms.all,
            )?;
        }
        if let PeerCheck::Named(_) = self.check {
            verify_server_name(&certificate, server_name)?;
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
