//! Workers: threads that serve connections, each with a runtime of its own.
//!
//! A ticket's way from its socket to the publisher's queue, and from its reply
//! channel back, stays on one core.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::connection;
use super::handle::ConnectionHandle;
use super::handshake::{Handshakes, Shaken};
use super::idle::{Connections, SWEEP};
use super::router::Router;
use super::stream::Stream;
use crate::thread::Threads;

/// While draining, a connection on which no request is served is closed after
/// this time.
const DRAIN_IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// Threads that serve connections.
pub(crate) struct Workers {
    incoming: Vec<mpsc::Sender<Accepted>>,
    ended: Vec<oneshot::Receiver<()>>,
}

/// A connection, with its place among those that there may be.
pub(crate) struct Accepted {
    /// The connection.
    pub stream: std::net::TcpStream,
    /// Its place.
    pub place: OwnedSemaphorePermit,
    /// What it has to do first; none where it is plain HTTP.
    pub handshakes: Option<Arc<Handshakes>>,
}

impl Workers {
    /// Starts a thread for each router, with the task that the router's publisher
    /// needs at its side; a worker ends when its connections and that task have.
    pub(crate) fn start<T>(
        routers: impl IntoIterator<Item = (Router, T)>,
        drain: &CancellationToken,
        threads: &Threads,
    ) -> std::io::Result<Self>
    where
        T: Future<Output = ()> + Send + 'static,
    {
        let mut workers = Self {
            incoming: Vec::new(),
            ended: Vec::new(),
        };
        for (router, task) in routers {
            let (accepted, incoming) = mpsc::channel(16);
            let drain = drain.clone();
            let worker = async move {
                let task = tokio::spawn(task);
                connections(incoming, Arc::new(router), drain).await;
                // Its router is gone by now, which ends the task.
                let _ended = task.await;
            };
            workers.incoming.push(accepted);
            workers.ended.push(threads.run("worker", worker)?);
        }
        Ok(workers)
    }

    /// Where each worker takes its connections from.
    pub(crate) fn incoming(&self) -> Vec<mpsc::Sender<Accepted>> {
        self.incoming.clone()
    }

    /// Lets the workers end, and waits for it.
    pub(crate) async fn join(self) {
        drop(self.incoming);
        for worker in self.ended {
            // A worker that died has nothing left to wait for.
            let _ended = worker.await;
        }
    }
}

/// Serves connections as they arrive, until no more can and all have ended.
pub(super) async fn connections(
    mut incoming: mpsc::Receiver<Accepted>,
    router: Arc<Router>,
    drain: CancellationToken,
) {
    let mut running = JoinSet::new();
    let mut connections = Connections::default();
    let mut sweep = interval(SWEEP);
    // After a pause of the whole process, time has passed for us but not for the clients.
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut open, mut close_idle_at) = (true, None);
    while open || !running.is_empty() {
        tokio::select! {
            accepted = incoming.recv(), if open => match accepted {
                Some(accepted) => {
                    let (number, handle) = connections.insert();
                    let router = router.clone();
                    running.spawn(async move {
                        connection(accepted, router, handle).await;
                        number
                    });
                }
                None => open = false,
            },
            Some(ended) = running.join_next() => match ended {
                Ok(number) => connections.remove(number),
                Err(error) => warn!(%error, "a connection's task failed"),
            },
            _ = sweep.tick() => connections.sweep(),
            () = drain.cancelled(), if close_idle_at.is_none() => {
                connections.drain();
                close_idle_at = Some(Instant::now() + DRAIN_IDLE_TIMEOUT);
            }
            () = until(close_idle_at) => {
                connections.close_idle();
                close_idle_at = Some(Instant::now() + DRAIN_IDLE_TIMEOUT);
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

async fn connection(accepted: Accepted, router: Arc<Router>, handle: Arc<ConnectionHandle>) {
    let Accepted {
        stream,
        place: _place,
        handshakes,
    } = accepted;
    let stream = TcpStream::from_std(stream);
    let stream = match stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream)) {
        Ok(stream) => stream,
        Err(error) => return debug!(%error, "a connection failed before it was served"),
    };
    let Some(handshakes) = handshakes else {
        return connection::serve(Stream::Plain(stream), router, handle).await;
    };
    // Boxed, so that plain connections' tasks have no room for it.
    let shaken = Box::pin(handshakes.shake(stream, handle.clone(), router.metrics()));
    match shaken.await {
        Shaken::Encrypted(stream) => {
            connection::serve(Stream::Tls(stream), router, handle).await;
        }
        Shaken::Plain(stream) => connection::refuse_plain(stream, &router).await,
        Shaken::Failed => {}
    }
}
