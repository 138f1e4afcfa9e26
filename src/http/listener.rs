//! Listening, and accepting connections, which are dispatched to workers in turn.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::handshake::Handshakes;
use super::router::Router;
use super::worker::{Accepted, Workers, connections};
use crate::tls::{Clients, ServerTls};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// The maximum of connections at once, files permitting; at about 12 KiB each, and 4 KiB
/// more while a large body comes in. What of it has arrived is bounded by a budget.
const CONNECTIONS_MAX: u64 = 16_384;

/// The maximum of TLS handshakes at once, connections permitting. One holds 64 KiB at most, of a
/// client that sends as many certificates as it may.
const HANDSHAKES_MAX: usize = 1024;

/// Which part of all connections those may be that are not connected yet.
const HANDSHAKES_SHARE: usize = 4;

/// The usual limit on open files, where the real one is not known.
const FILES_ASSUMED: u64 = 1024;

/// Files kept free for RabbitMQ, PostgreSQL and the runtimes.
const FILES_RESERVED: u64 = 64;

/// The delay before a retry after an error that passes by itself, such as too few files.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// A listening socket.
pub(crate) struct Listener {
    listener: TcpListener,
    connections: Arc<Semaphore>,
    /// None where it speaks plain HTTP.
    handshakes: Option<Arc<Handshakes>>,
}

impl Listener {
    /// Listens, for plain HTTP. Fails where the address is taken or not ours.
    pub(crate) fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        // A restart must not wait for the old connections' TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let places = usize::try_from(places(files())).unwrap_or(1);
        Ok(Self {
            listener: TcpListener::from_std(socket.into())?,
            connections: Arc::new(Semaphore::new(places)),
            handshakes: None,
        })
    }

    /// Speaks HTTPS instead, with these clients.
    pub(crate) fn encrypted(mut self, tls: Arc<ServerTls>, clients: Clients) -> Self {
        let places = self.connections.available_permits() / HANDSHAKES_SHARE;
        let max = places.clamp(1, HANDSHAKES_MAX);
        self.handshakes = Some(Arc::new(Handshakes::new(tls, clients, max)));
        self
    }

    /// The address listened on, with the port that was chosen for port 0.
    pub(crate) fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves on the current runtime, until `drain` is cancelled and every
    /// connection has ended.
    pub(crate) async fn serve(self, router: Arc<Router>, drain: CancellationToken) {
        let (accepted, incoming) = mpsc::channel(1);
        let accepting = self.accept(vec![accepted], drain.clone());
        tokio::join!(accepting, connections(incoming, router, drain));
    }

    /// Serves on the workers, until `drain` is cancelled and every connection has ended.
    pub(crate) async fn serve_on(self, workers: Workers, drain: CancellationToken) {
        self.accept(workers.incoming(), drain).await;
        workers.join().await;
    }

    /// Accepts and dispatches in turn, until `drain` is cancelled; then the port is closed.
    async fn accept(self, workers: Vec<mpsc::Sender<Accepted>>, drain: CancellationToken) {
        let mut next = 0;
        loop {
            let accepted = tokio::select! {
                accepted = self.next() => accepted,
                () = drain.cancelled() => return,
            };
            next = (next + 1) % workers.len().max(1);
            if let Some(worker) = workers.get(next)
                && worker.send(accepted).await.is_err()
            {
                warn!("a worker is gone; the connection is closed");
            }
        }
    }

    /// The next connection, once there is a place for one.
    async fn next(&self) -> Accepted {
        loop {
            let place = self.connections.clone().acquire_owned().await;
            match self
                .listener
                .accept()
                .await
                .and_then(|(stream, _peer)| stream.into_std())
            {
                Ok(stream) => {
                    if let Ok(place) = place {
                        let handshakes = self.handshakes.clone();
                        return Accepted {
                            stream,
                            place,
                            handshakes,
                        };
                    }
                }
                Err(error) if is_the_clients(&error) => {
                    debug!(%error, "a connection failed before it was accepted");
                }
                Err(error) => {
                    warn!(%error, "accepting a connection failed, retrying");
                    sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }
}

fn is_the_clients(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused
    )
}

/// How many files the process may have open: as many as it can get.
fn files() -> u64 {
    rlimit::increase_nofile_limit(u64::MAX).unwrap_or_else(|error| {
        warn!(%error, "the limit on open files is not known");
        FILES_ASSUMED
    })
}

/// How many connections so many files allow.
fn places(files: u64) -> u64 {
    files
        .saturating_sub(FILES_RESERVED.min(files / 2))
        .clamp(1, CONNECTIONS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_kept_free_for_everything_else() {
        assert_eq!(places(1024), 960);
        assert_eq!(places(64), 32);
        assert_eq!(places(1), 1);
        assert_eq!(places(0), 1);
        assert_eq!((places(127), places(128), places(129)), (64, 64, 65));
        for more in [0, 1, 1 << 20] {
            assert_eq!(places(16_384 + 64 + more), 16_384);
        }
        assert_eq!(places(16_384 + 63), 16_383);
    }
}
