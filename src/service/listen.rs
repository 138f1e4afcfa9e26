//! The listeners, and the certificate that they share.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tracing::{error, info, warn};

use crate::config::{ListenTlsSettings, TlsFile};
use crate::http::Listener;
use crate::tls::{Clients, ServerFiles, ServerTls};

/// What the listeners speak: HTTPS, or plain HTTP.
#[derive(Clone)]
pub(super) struct Listening {
    tls: Option<Arc<ServerTls>>,
}

impl Listening {
    /// Reads the certificate and its key, where they are set, and the CAs of clients.
    pub(super) fn read(
        tls: &ListenTlsSettings,
        client_ca: Option<TlsFile>,
    ) -> anyhow::Result<Self> {
        let files = tls.identity().map(|identity| ServerFiles {
            identity,
            client_ca,
        });
        let tls = files.map(ServerTls::read).transpose()?.map(Arc::new);
        if let Some(warning) = tls.as_ref().and_then(|tls| tls.warning()) {
            warn!("{warning}");
        }
        Ok(Self { tls })
    }

    /// Listens for tickets, and asks for clients' certificates if they have CAs.
    pub(super) fn public(&self, address: SocketAddr) -> anyhow::Result<Listener> {
        self.listen("LISTEN", address, Clients::Known)
    }

    /// Listens for probes and scrapes.
    pub(super) fn admin(&self, address: SocketAddr) -> anyhow::Result<Listener> {
        self.listen("ADMIN_LISTEN", address, Clients::Any)
    }

    fn listen(
        &self,
        setting: &str,
        address: SocketAddr,
        clients: Clients,
    ) -> anyhow::Result<Listener> {
        let listener = Listener::bind(address)
            .with_context(|| format!("cannot listen on {setting} {address}"))?;
        let address = listener.address()?;
        let Some(tls) = &self.tls else {
            info!(setting, %address, "listening, plain HTTP");
            if !address.ip().is_loopback() {
                warn!(
                    setting,
                    "not encrypted: whoever is on the way can read and change what is sent (TLS_CERT)"
                );
            }
            return Ok(listener);
        };
        info!(setting, %address, "listening, HTTPS");
        Ok(listener.encrypted(tls.clone(), clients))
    }

    /// Whether there is anything to read again.
    pub(super) fn reads_files(&self) -> bool {
        self.tls.is_some()
    }

    /// Reads the files again; wrong ones leave everything as it was.
    pub(super) fn read_again(&self) {
        let Some(tls) = &self.tls else {
            return;
        };
        match tls.read_again() {
            Ok(()) => info!("TLS_CERT, TLS_KEY and TLS_CLIENT_CA were read again"),
            Err(error) => error!(%error, "the files read before stay in use"),
        }
        if let Some(warning) = tls.warning() {
            warn!("{warning}");
        }
    }
}
