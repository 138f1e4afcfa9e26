//! Listening, accepting and serving connections, and letting them end.
//!
//! Connections are accepted in one place and dealt round to workers: a worker is
//! a thread with a runtime of its own, so that a ticket's way from its socket to
//! the publisher's intake, and from its desk back, stays on one core.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Service;
use super::connection::{self, Connections, Control, SWEEP};
use crate::thread::run_apart;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Most connections at once, files permitting; at about 12 KiB each, and 4 KiB
/// more while a large body comes in. What of it has come is bounded by its budget.
const CONNECTIONS_MAX: u64 = 16_384;

/// The usual limit on open files, where the real one is not known.
const FILES_ASSUMED: u64 = 1024;

/// Files kept free for RabbitMQ, PostgreSQL and the runtimes.
const FILES_RESERVED: u64 = 64;

/// After an error that passes by itself, such as too few files, it is tried again this much later.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// At the end of the process, a connection on which no request is served is
/// closed after this time.
const DRAIN_PATIENCE: Duration = Duration::from_secs(1);

/// A listening socket.
pub struct Server {
    listener: TcpListener,
    connections: Arc<Semaphore>,
}

/// A connection, with its place among those that there may be.
struct Accepted {
    stream: std::net::TcpStream,
    place: OwnedSemaphorePermit,
}

impl Server {
    /// Listens. Fails where the address is taken or not ours.
    pub fn bind(address: SocketAddr) -> std::io::Result<Self> {
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
        })
    }

    /// The address listened on, with the port that was chosen for port 0.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves on the current runtime, until `drain` is cancelled and every
    /// connection has ended.
    pub async fn serve(self, service: Arc<Service>, drain: CancellationToken) {
        let (accepted, incoming) = mpsc::channel(1);
        let accepting = self.accept(vec![accepted], drain.clone());
        tokio::join!(accepting, connections(incoming, service, drain));
    }

    /// Serves on the workers, until `drain` is cancelled and every connection has ended.
    pub async fn serve_on(self, workers: Workers, drain: CancellationToken) {
        let Workers { incoming, ended } = workers;
        self.accept(incoming, drain).await;
        for worker in ended {
            // A worker that died has nothing left to wait for.
            let _ended = worker.await;
        }
    }

    /// Accepts and deals round, until `drain` is cancelled; then the port is closed.
    async fn accept(self, workers: Vec<mpsc::Sender<Accepted>>, drain: CancellationToken) {
        let mut turn = 0;
        loop {
            let accepted = tokio::select! {
                accepted = self.next() => accepted,
                () = drain.cancelled() => return,
            };
            turn = (turn + 1) % workers.len().max(1);
            if let Some(worker) = workers.get(turn)
                && worker.send(accepted).await.is_err()
            {
                warn!("a worker is gone; its connection is closed");
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
                        return Accepted { stream, place };
                    }
                }
                Err(error) if is_the_clients(&error) => {
                    debug!("a connection failed before it began: {error}")
                }
                Err(error) => {
                    warn!("no connection can be accepted: {error}");
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
        warn!("the limit on open files cannot be looked at: {error}");
        FILES_ASSUMED
    })
}

/// How many connections so many files allow.
fn places(files: u64) -> u64 {
    files
        .saturating_sub(FILES_RESERVED.min(files / 2))
        .clamp(1, CONNECTIONS_MAX)
}

/// Threads that serve connections.
pub struct Workers {
    incoming: Vec<mpsc::Sender<Accepted>>,
    ended: Vec<oneshot::Receiver<()>>,
}

impl Workers {
    /// Starts a thread for each service, with the task that the service needs
    /// at its side; a worker ends when its connections and that task have.
    pub fn start<T>(
        services: impl IntoIterator<Item = (Arc<Service>, T)>,
        drain: &CancellationToken,
    ) -> std::io::Result<Self>
    where
        T: Future<Output = ()> + Send + 'static,
    {
        let mut workers = Self {
            incoming: Vec::new(),
            ended: Vec::new(),
        };
        for (service, task) in services {
            let (accepted, incoming) = mpsc::channel(16);
            let drain = drain.clone();
            let worker = async move {
                let task = tokio::spawn(task);
                connections(incoming, service, drain).await;
                // Its service is gone by now, which ends the task.
                let _ended = task.await;
            };
            workers.incoming.push(accepted);
            workers.ended.push(run_apart("worker", worker)?);
        }
        Ok(workers)
    }
}

/// Serves connections as they come in, until no more can and all have ended.
async fn connections(
    mut incoming: mpsc::Receiver<Accepted>,
    service: Arc<Service>,
    drain: CancellationToken,
) {
    let mut running = JoinSet::new();
    let mut connections = Connections::default();
    let mut sweep = interval(SWEEP);
    // After a pause of the whole process, time has passed for us but not for the clients.
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut open, mut cut_at) = (true, None);
    while open || !running.is_empty() {
        tokio::select! {
            accepted = incoming.recv(), if open => match accepted {
                Some(accepted) => {
                    let (number, control) = connections.insert();
                    let service = service.clone();
                    running.spawn(async move {
                        connection(accepted, service, control).await;
                        number
                    });
                }
                None => open = false,
            },
            Some(ended) = running.join_next() => match ended {
                Ok(number) => connections.remove(number),
                Err(error) => warn!("a connection's task failed: {error}"),
            },
            _ = sweep.tick() => connections.sweep(),
            () = drain.cancelled(), if cut_at.is_none() => {
                connections.drain();
                cut_at = Some(Instant::now() + DRAIN_PATIENCE);
            }
            () = until(cut_at) => {
                connections.cut();
                cut_at = Some(Instant::now() + DRAIN_PATIENCE);
            }
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn connection(accepted: Accepted, service: Arc<Service>, control: Arc<Control>) {
    let Accepted {
        stream,
        place: _place,
    } = accepted;
    let stream = TcpStream::from_std(stream);
    match stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream)) {
        Ok(stream) => connection::serve(stream, service, control).await,
        Err(error) => debug!("a connection ended before it began: {error}"),
    }
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
