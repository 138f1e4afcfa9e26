//! What lapin reads and writes: a socket of our own making, plain or under TLS.
//!
//! lapin's own TLS would bring another stack of it, and connects by itself; so it is given a reactor
//! of tokio's whose sockets may be encrypted.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_compat::{Compat, CompatExt};
use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_util::Stream;
use futures_util::io as futures_io;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::error::BrokerError;
use crate::config::{AmqpTls, PeerCheck};
use crate::tls::{ClientStream, ClientTls, explain};

/// The first byte of a server that answers with TLS (RFC 8446 section 5.1): an alert, as what came
/// was none.
const TLS_ALERT: u8 = 21;

/// A connection, plain or encrypted.
pub(super) enum Wire {
    /// As it comes, and whether nothing has come yet.
    Plain(TcpStream, bool),
    /// Encrypted.
    Tls(Box<ClientStream<TcpStream>>),
}

/// tokio, with such connections.
pub(super) type WireRuntime = Runtime<RuntimeParts<Tokio, Wires>>;

/// The present runtime, with such connections.
pub(super) fn runtime() -> WireRuntime {
    let tokio = Tokio::current();
    Runtime::new(RuntimeParts::new(tokio.clone(), Wires(tokio)))
}

/// tokio's reactor, with such connections.
#[derive(Debug, Clone)]
pub(super) struct Wires(Tokio);

impl Reactor for Wires {
    type TcpStream = Compat<Wire>;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> Result<impl futures_io::AsyncRead + futures_io::AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = Result<Self::TcpStream>> + Send + 'static {
        let connecting = TcpStream::connect(address);
        async move {
            let stream = connecting.await?;
            Ok(Wire::Plain(stream, true).compat())
        }
    }
}

/// Does the handshake. The files are read each time: a certificate is replaced in good time before
/// it expires, and nobody has to be told.
pub(super) async fn encrypted(
    settings: &AmqpTls,
    host: &str,
    socket: TcpStream,
) -> std::result::Result<Wire, BrokerError> {
    let AmqpTls { check, identity } = settings;
    let tls = ClientTls::read(check, identity.as_ref()).map_err(BrokerError::File)?;
    match tls.connect(host, socket).await {
        Ok(stream) => Ok(Wire::Tls(Box::new(stream))),
        Err(error) => {
            let why = explain(&error, check, "AMQP_URL", "AMQP_TLS_CERT");
            let why = why.unwrap_or_else(|| "the TLS handshake with RabbitMQ failed".into());
            Err(BrokerError::Tls(why, error))
        }
    }
}

/// In TLS 1.3 a server looks at a client's certificate when the client has done its part already.
fn explained(error: Error) -> Error {
    match explain(&error, &PeerCheck::Nothing, "AMQP_URL", "AMQP_TLS_CERT") {
        Some(why) => Error::new(error.kind(), format!("{why}: {error}")),
        None => error,
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        match self.get_mut() {
            Self::Plain(stream, is_new) => {
                ready!(Pin::new(stream).poll_read(cx, buf))?;
                if std::mem::take(is_new) && buf.filled().first() == Some(&TLS_ALERT) {
                    let why =
                        "the server speaks TLS on this port: AMQP_URL has to begin with amqps://";
                    return Poll::Ready(Err(Error::new(ErrorKind::InvalidData, why)));
                }
                Poll::Ready(Ok(()))
            }
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf).map_err(explained),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream, _) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match self.get_mut() {
            Self::Plain(stream, _) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match self.get_mut() {
            Self::Plain(stream, _) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
