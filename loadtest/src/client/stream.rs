//! Where a server is, and a connection to it: plain, or by TLS.

use std::io::{ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::response::{self, Parsed};

/// Maximum wait for a connection to open, and for each of the server's words while it blocks.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a server listens, and how it is spoken to.
#[derive(Clone)]
pub(crate) struct Endpoint {
    address: SocketAddr,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

/// A connection, plain or by TLS. It blocks until it is told not to; then a read or a write that would block says so.
pub(crate) enum Stream {
    /// As it comes.
    Plain(TcpStream),
    /// By TLS, after the handshake. Boxed, so that plain ones are no larger because of it.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Endpoint {
    /// A server that speaks plain HTTP.
    pub(crate) fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }

    /// A server that speaks HTTPS, and has a certificate for this host by a CA in this file.
    pub(crate) fn encrypted(address: SocketAddr, host: &str, ca: &Path) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        let read = || format!("no certificates in {}", ca.display());
        for certificate in CertificateDer::pem_file_iter(ca).with_context(read)? {
            roots.add(certificate.with_context(read)?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned())?;
        Ok(Self {
            address,
            tls: Some((Arc::new(config), name)),
        })
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Opens a connection, which blocks; its handshake is over.
    pub(crate) fn connect(&self) -> Result<Stream> {
        let mut socket = TcpStream::connect_timeout(&self.address, CONNECT_TIMEOUT)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        let Some((config, name)) = &self.tls else {
            return Ok(Stream::Plain(socket));
        };
        let session = ClientConnection::new(config.clone(), name.clone());
        let mut session = session.map_err(std::io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        Ok(Stream::Tls(Box::new(StreamOwned::new(session, socket))))
    }
}

impl Stream {
    /// What the kernel knows it by.
    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }

    /// Whether the socket has all that was written.
    pub(crate) fn is_flushed(&self) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Tls(stream) => !stream.conn.wants_write(),
        }
    }
}

impl Stream {
    /// Sends a request and waits for its answer, on a connection that blocks: its status and its body.
    pub(crate) fn ask(&mut self, request: &[u8]) -> Result<(u16, String)> {
        self.write_all(request)?;
        self.flush()?;
        let (mut inbox, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            match self.read(&mut buffer)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                length => inbox.extend(buffer.iter().take(length)),
            }
            match response::parse(&inbox) {
                Parsed::Complete(answer) => return Ok((answer.status, body(&inbox))),
                Parsed::Malformed => return Err(ErrorKind::InvalidData.into()),
                Parsed::Partial => {}
            }
        }
    }
}

/// What stands behind an answer's head.
fn body(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body);
    body.unwrap_or_default().to_owned()
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => match stream.read(buffer) {
                // Closed without a word of TLS, as a server that is killed does.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(0),
                outcome => outcome,
            },
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
