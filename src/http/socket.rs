//! A connection's socket, as hyper reads from and writes to it.

use std::io::Result;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};

use super::handle::ConnectionHandle;
use super::stream::Stream;

/// The most that is read at once. hyper begins with a buffer of one byte more,
/// and doubles it whenever a read fills it: by this it does not grow for bodies,
/// nor for requests behind each other, of which many may be in progress at a time.
const READ_BYTES_MAX: usize = 8 * 1024 - 1;

/// A socket that is read in small portions, and records what hyper's buffers hold
/// because of it.
pub(super) struct Socket {
    stream: Take<Stream>,
    handle: Arc<ConnectionHandle>,
    /// What was read and is to be read again.
    unread: Bytes,
}

impl Socket {
    /// Reads and writes this stream.
    pub(super) fn new(stream: Stream, handle: Arc<ConnectionHandle>) -> Self {
        Self {
            stream: stream.take(READ_BYTES_MAX as u64),
            handle,
            unread: Bytes::new(),
        }
    }

    /// Takes back what was read last and not used; it is read again first.
    pub(super) fn unread(&mut self, bytes: &[u8]) {
        self.unread = Bytes::copy_from_slice(bytes);
    }

    /// Whether anything was taken back and is not read again yet.
    pub(super) fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Waits until something more can be read, or the end.
    pub(super) fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.get_mut().poll_read_ready(cx)
    }

    /// The stream itself.
    pub(super) fn into_stream(self) -> Stream {
        self.stream.into_inner()
    }

    fn stream(&mut self) -> Pin<&mut Stream> {
        Pin::new(self.stream.get_mut())
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        if self.has_unread() {
            let length = self.unread.len().min(buf.remaining()).min(READ_BYTES_MAX);
            buf.put_slice(&self.unread.split_to(length));
            return Poll::Ready(Ok(()));
        }
        self.stream.set_limit(READ_BYTES_MAX as u64);
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.stream.limit() == 0 {
            self.handle.set_buffers_grown();
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<Result<usize>> {
        if buf.len() > READ_BYTES_MAX {
            self.handle.set_buffers_grown();
        }
        let written = self.stream().poll_write(cx, buf);
        self.handle.set_has_unsent(written.is_pending());
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let flushed = self.stream().poll_flush(cx);
        // All is out of hyper's buffers by now, but not of those of TLS.
        self.handle.set_has_unsent(flushed.is_pending());
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}
