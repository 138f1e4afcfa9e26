//! A new connection.

use std::io::{Error as IoError, ErrorKind, Result as IoResult};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tracing::debug;

use super::ClientError;
use crate::config::{RemoteServer, RemoteTls};
use crate::tls::{ClientTls, explain};

/// Maximum wait for a name, for each of its addresses, and for the handshake.
const STEP_TIMEOUT: Duration = Duration::from_secs(3);

/// How many addresses of a name are tried.
const ADDRESSES_MAX: usize = 8;

/// The setting of our certificate, for messages.
const CERTIFICATE: &str = "TICKETD_CLIENT_CERT";

/// What requests go to, one after the other.
pub(super) type Connection = SendRequest<Full<Bytes>>;

/// Connects. The connection is driven by a task, which ends when it is dropped.
pub(super) async fn connect(server: &RemoteServer) -> Result<Connection, ClientError> {
    let stream = tcp(server).await.map_err(ClientError::Connect)?;
    match &server.tls {
        None => driven(stream).await,
        Some(tls) => driven(encrypted(server, tls, stream).await?).await,
    }
}

/// Connects to the first address that takes the connection.
async fn tcp(server: &RemoteServer) -> IoResult<TcpStream> {
    let host = (server.host.as_str(), server.port);
    let addresses = within(lookup_host(host)).await?;
    let mut last = IoError::new(ErrorKind::NotFound, "the name has no address");
    for address in addresses.take(ADDRESSES_MAX) {
        match within(TcpStream::connect(address)).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn encrypted(
    server: &RemoteServer,
    tls: &RemoteTls,
    stream: TcpStream,
) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + use<>, ClientError> {
    // Read each time: a certificate is replaced before it expires, and nobody has to be told.
    let client = ClientTls::read(&tls.check, tls.identity.as_ref()).map_err(ClientError::Files)?;
    let stream = within(client.connect(&server.host, stream)).await;
    stream.map_err(
        |error| match explain(&error, &tls.check, server.setting, CERTIFICATE) {
            Some(why) => ClientError::Untrusted(why),
            None => ClientError::Connect(error),
        },
    )
}

async fn driven<S>(stream: S) -> Result<Connection, ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (requests, connection) = handshake(TokioIo::new(stream))
        .await
        .map_err(ClientError::Broken)?;
    tokio::spawn(async move {
        // Whoever has a request under way is told as well.
        if let Err(error) = connection.await {
            debug!(%error, "a connection broke");
        }
    });
    Ok(requests)
}

async fn within<T>(step: impl Future<Output = IoResult<T>>) -> IoResult<T> {
    match timeout(STEP_TIMEOUT, step).await {
        Ok(done) => done,
        Err(_elapsed) => Err(ErrorKind::TimedOut.into()),
    }
}
