//! A connection's bytes, plain or out of TLS.

use std::io::Result;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::tls::{ClientIdentity, ServerStream};

/// A connection, plain or encrypted.
pub(super) enum Stream {
    /// As it comes.
    Plain(TcpStream),
    /// Encrypted. Boxed, so that plain ones are no larger because of it.
    Tls(Box<ServerStream<TcpStream>>),
}

impl Stream {
    /// Who is at the other end.
    pub(super) fn client(&self) -> ClientIdentity {
        match self {
            Self::Plain(_) => ClientIdentity::Unasked,
            Self::Tls(stream) => ClientIdentity::of(stream),
        }
    }

    /// Waits until something can be read, or the end. An error is reported by the read.
    pub(super) fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Plain(stream) => stream.poll_read_ready(cx).map(drop),
            // Not the socket: what it has may be part of a record, or be decrypted already.
            Self::Tls(stream) => Pin::new(stream).poll_fill_buf(cx).map(drop),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_connections_are_no_larger_than_their_sockets() {
        assert_eq!(size_of::<Stream>(), size_of::<TcpStream>());
    }
}
