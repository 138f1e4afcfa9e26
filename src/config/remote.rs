//! A ticketd that is asked over HTTP: where it is, and how the way there is protected.

use std::net::SocketAddr;

use super::tls::{PeerCheck, TlsIdentity};

/// A ticketd that is asked over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteServer {
    /// The setting that says where it is, for messages.
    pub setting: &'static str,
    /// Its name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What stands before the path of each route; empty, or begins with / and does not end with it.
    pub prefix: String,
    /// How the way there is protected; none where it is not.
    pub tls: Option<RemoteTls>,
}

/// How the way to a server is protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteTls {
    /// What is checked of its certificate.
    pub check: PeerCheck,
    /// What it is shown, where it asks for a certificate.
    pub identity: Option<TlsIdentity>,
}

impl RemoteServer {
    /// What listens on this address, as the setting says.
    pub fn listener(setting: &'static str, address: SocketAddr, tls: Option<RemoteTls>) -> Self {
        Self {
            setting,
            host: address.ip().to_string(),
            port: address.port(),
            prefix: String::new(),
            tls,
        }
    }

    /// Host and port as they stand in a URL.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            return format!("[{}]:{}", self.host, self.port);
        }
        format!("{}:{}", self.host, self.port)
    }
}
