//! The listeners' certificate, which is replaced while they listen.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::Ticketer;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoClientAuth, ServerConfig, WebPkiClientVerifier};

use super::files::{CertifiedKey, TlsError, roots, unfit};
use super::provider;
use crate::config::{TlsFile, TlsIdentity};

/// The one protocol that is spoken (RFC 7301).
const ALPN: &[u8] = b"http/1.1";

/// What the listeners' TLS is made of.
#[derive(Debug)]
pub(crate) struct ServerFiles {
    /// Who the listeners are.
    pub identity: TlsIdentity,
    /// Who has to have signed clients' certificates.
    pub client_ca: Option<TlsFile>,
}

/// Which clients may connect.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Clients {
    /// All of them.
    Any,
    /// Those with a certificate of the clients' CA, if there is one.
    Known,
}

/// The listeners' TLS.
pub(crate) struct ServerTls {
    files: ServerFiles,
    current: RwLock<Acceptors>,
}

struct Acceptors {
    any: TlsAcceptor,
    known: TlsAcceptor,
    warning: Option<String>,
}

impl ServerTls {
    /// Reads the files.
    pub(crate) fn read(files: ServerFiles) -> Result<Self, TlsError> {
        let current = RwLock::new(acceptors(&files)?);
        Ok(Self { files, current })
    }

    /// Reads the files again, for connections from now on; those that there are stay as they are.
    /// An error changes nothing.
    pub(crate) fn read_again(&self) -> Result<(), TlsError> {
        let acceptors = acceptors(&self.files)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = acceptors;
        Ok(())
    }

    /// What accepts connections just now.
    pub(crate) fn acceptor(&self, clients: Clients) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        match clients {
            Clients::Any => current.any.clone(),
            Clients::Known => current.known.clone(),
        }
    }

    /// What is wrong with the certificate, though it can be used.
    pub(crate) fn warning(&self) -> Option<String> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.warning.clone()
    }
}

fn acceptors(files: &ServerFiles) -> Result<Acceptors, TlsError> {
    let identity = CertifiedKey::read(&files.identity)?;
    let any = config(&files.identity, &identity, Arc::new(NoClientAuth))?;
    let known = match &files.client_ca {
        Some(file) => config(&files.identity, &identity, client_verifier(file)?)?,
        None => any.clone(),
    };
    let why = identity.not_valid_at(SystemTime::now());
    Ok(Acceptors {
        any: any.into(),
        known: known.into(),
        warning: why.map(|why| TlsError::new(&files.identity.certificate, why).to_string()),
    })
}

fn client_verifier(file: &TlsFile) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let (roots, _certificates) = roots(file)?;
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| TlsError::new(file, error.to_string()))
}

fn config(
    files: &TlsIdentity,
    identity: &CertifiedKey,
    verifier: Arc<dyn ClientCertVerifier>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::new(&files.certificate, error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(|error| unfit(files, error))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Who comes back is spared a signature; kept by the client, and void once the files are read again.
    let ticketer = Ticketer::new();
    config.ticketer = ticketer.map_err(|error| TlsError::new(&files.key, error.to_string()))?;
    Ok(Arc::new(config))
}
