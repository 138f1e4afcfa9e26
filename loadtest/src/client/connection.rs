//! One connection of a worker.

use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;

use rustix::event::epoll;

use super::stream::{Endpoint, Stream};

pub(super) enum State {
    /// Open, with no request outstanding.
    Idle,
    /// A request was sent, or a part of it.
    Waiting { number: u64, due_nanos: u64 },
    /// To be opened again at the next tick.
    Broken,
}

pub(super) struct Connection {
    pub(super) stream: Stream,
    pub(super) state: State,
    /// The start of an answer that did not come in one piece.
    pub(super) inbox: Vec<u8>,
    /// The end of a request that the socket did not take at once.
    unsent: Vec<u8>,
}

/// Both directions, while a part of a request waits for room in the socket's buffer.
pub(super) const WRITABLE: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::OUT);

pub(super) fn open(
    endpoint: &Endpoint,
    epoll: &OwnedFd,
    index: usize,
) -> std::io::Result<Connection> {
    let stream = endpoint.connect()?;
    stream.socket().set_nonblocking(true)?;
    epoll::add(
        epoll,
        stream.socket(),
        epoll::EventData::new_u64(index as u64),
        epoll::EventFlags::IN,
    )?;
    Ok(Connection {
        stream,
        state: State::Idle,
        inbox: Vec::new(),
        unsent: Vec::new(),
    })
}

impl Connection {
    /// Writes what the socket takes now, and keeps the rest; whether there is none.
    #[expect(
        clippy::indexing_slicing,
        reason = "no more is written than there was to write"
    )]
    pub(super) fn send(&mut self, request: &[u8]) -> std::io::Result<bool> {
        let written = write_some(&mut self.stream, request)?;
        // Rare: a request is far smaller than a socket's buffer.
        self.unsent.extend_from_slice(&request[written..]);
        Ok(self.is_sent())
    }

    /// The same with what was kept.
    pub(super) fn send_rest(&mut self) -> std::io::Result<bool> {
        let written = write_some(&mut self.stream, &self.unsent)?;
        self.unsent.drain(..written);
        match self.stream.flush() {
            Err(error) if !would_block(&error) => Err(error),
            _ => Ok(self.is_sent()),
        }
    }

    fn is_sent(&self) -> bool {
        self.unsent.is_empty() && self.stream.is_flushed()
    }
}

pub(super) fn watch(
    epoll: &OwnedFd,
    connection: &Connection,
    index: usize,
    flags: epoll::EventFlags,
) -> rustix::io::Result<()> {
    epoll::modify(
        epoll,
        connection.stream.socket(),
        epoll::EventData::new_u64(index as u64),
        flags,
    )
}

/// Writes what the socket takes now, which may be nothing.
fn write_some(stream: &mut Stream, bytes: &[u8]) -> std::io::Result<usize> {
    match stream.write(bytes) {
        Err(error) if would_block(&error) => Ok(0),
        outcome => outcome,
    }
}

pub(super) fn would_block(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
