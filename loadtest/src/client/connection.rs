//! One connection of a worker.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::epoll;

/// Maximum wait for a connection to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) enum State {
    /// Open, with no request outstanding.
    Idle,
    /// A request was sent, or a part of it.
    Waiting { number: u64, due_nanos: u64 },
    /// To be opened again at the next tick.
    Broken,
}

pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) state: State,
    /// The start of an answer that did not come in one piece.
    pub(super) inbox: Vec<u8>,
    /// The end of a request that the socket did not take at once.
    pub(super) unsent: Vec<u8>,
}

/// Both directions, while a part of a request waits for room in the socket's buffer.
pub(super) const WRITABLE: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::OUT);

pub(super) fn open(
    address: SocketAddr,
    epoll: &OwnedFd,
    index: usize,
) -> std::io::Result<Connection> {
    let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    epoll::add(
        epoll,
        &stream,
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

pub(super) fn watch(
    epoll: &OwnedFd,
    connection: &Connection,
    index: usize,
    flags: epoll::EventFlags,
) -> rustix::io::Result<()> {
    epoll::modify(
        epoll,
        &connection.stream,
        epoll::EventData::new_u64(index as u64),
        flags,
    )
}

/// Writes what the socket takes now, which may be nothing.
pub(super) fn write_some(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<usize> {
    match stream.write(bytes) {
        Err(error) if would_block(&error) => Ok(0),
        outcome => outcome,
    }
}

pub(super) fn would_block(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
