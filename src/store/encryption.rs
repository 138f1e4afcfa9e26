//! TLS under a connection to PostgreSQL, and what it objects to, in terms of the settings.

use std::error::Error as StdError;
use std::io::Error as IoError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Error, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{DatabaseConfig, SslMode};
use crate::tls::{ClientTls, TlsError, explain};

/// The protocol that newer servers ask for (PostgreSQL 17, `sslnegotiation=direct`).
const ALPN: &[u8] = b"postgresql";

type Connector = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;

/// Encrypts a connection, and remembers that it has.
#[derive(Clone)]
pub(super) struct Encryption {
    tls: MakeRustlsConnect,
    done: Arc<AtomicBool>,
}

impl Encryption {
    /// As these settings ask; none if they ask for none.
    pub(super) fn new(database: &DatabaseConfig) -> Result<Option<Self>, TlsError> {
        if database.tls.mode == SslMode::Disable {
            return Ok(None);
        }
        let tls = ClientTls::read(&database.tls.check, database.tls.identity.as_ref())?;
        let mut config = tls.config().clone();
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Some(Self {
            tls: MakeRustlsConnect::new(config),
            done: Arc::default(),
        }))
    }

    /// Whether a connection was encrypted.
    pub(super) fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }
}

impl MakeTlsConnect<Socket> for Encryption {
    type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
    type TlsConnect = Encrypting;
    type Error = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Error;

    fn make_tls_connect(&mut self, host: &str) -> Result<Encrypting, Self::Error> {
        let tls = MakeTlsConnect::<Socket>::make_tls_connect(&mut self.tls, host)?;
        let done = self.done.clone();
        Ok(Encrypting { tls, done })
    }
}

/// Encrypts one connection.
pub(super) struct Encrypting {
    tls: Connector,
    done: Arc<AtomicBool>,
}

impl TlsConnect<Socket> for Encrypting {
    type Stream = <Connector as TlsConnect<Socket>>::Stream;
    type Error = <Connector as TlsConnect<Socket>>::Error;
    type Future = <Connector as TlsConnect<Socket>>::Future;

    fn connect(self, stream: Socket) -> Self::Future {
        // Before it is sure: where it fails there is no connection.
        self.done.store(true, Ordering::Relaxed);
        self.tls.connect(stream)
    }
}

/// Which setting an error is about, if it is about TLS.
pub(super) fn about(
    error: &Error,
    database: &DatabaseConfig,
    is_encrypted: bool,
) -> Option<String> {
    if let Some(refused) = error.as_db_error() {
        let is_refused = *refused.code() == SqlState::INVALID_AUTHORIZATION_SPECIFICATION;
        let is_about = is_refused && refused.message().contains("pg_hba.conf");
        // The server's words for it differ from version to version; that it minds the one may be a guess.
        return is_about.then(|| match is_encrypted {
            true => "the server may want no TLS, as with sslmode=disable".into(),
            false => "the server may want TLS: see sslmode".into(),
        });
    }
    let cause = error.source()?;
    match cause.downcast_ref::<IoError>() {
        Some(cause) => explain(cause, &database.tls.check, "DATABASE_URL", "sslcert"),
        // The only one of its kind that the driver words itself.
        None if cause.to_string().contains("not support TLS") => Some("sslmode asks for it".into()),
        None => None,
    }
}
