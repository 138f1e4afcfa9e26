//! The TLS handshake of a connection, bounded in time and number.
//!
//! A client that has shown nothing yet must not keep others out. So there is a
//! place for every newcomer: where all are taken, whoever has been at it for the
//! longest loses its own.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::handle::{CommandReceiver, ConnectionCommand, ConnectionHandle};
use crate::metrics::{Handshake, HttpMetrics};
use crate::tls::{ClientIdentity, Clients, ServerStream, ServerTls};

/// Maximum time for a handshake: a few turns over the slowest of networks.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two lines about clients of which nothing else is logged.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// The first byte of a client that speaks TLS (RFC 8446 section 5.1, a handshake record).
const TLS_RECORD: u8 = 22;

/// The handshakes of one listener.
pub(crate) struct Handshakes {
    tls: Arc<ServerTls>,
    clients: Clients,
    places: Places,
    nameless: Nameless,
}

/// What came of a handshake.
pub(super) enum Shaken {
    /// An encrypted connection.
    Encrypted(Box<ServerStream<TcpStream>>),
    /// The client does not speak TLS, and may be told so.
    Plain(TcpStream),
    /// No connection.
    Failed,
}

impl Handshakes {
    /// At most `max` at a time, for these clients.
    pub(super) fn new(tls: Arc<ServerTls>, clients: Clients, max: usize) -> Self {
        Self {
            tls,
            clients,
            places: Places::new(max),
            nameless: Nameless::default(),
        }
    }

    /// Shakes hands with a client, unless time, a newcomer or a command ends that.
    pub(super) async fn shake(
        &self,
        stream: TcpStream,
        handle: Arc<ConnectionHandle>,
        metrics: &HttpMetrics,
    ) -> Shaken {
        let (number, displaced) = self.places.enter();
        let shaken = tokio::select! {
            shaken = timeout(HANDSHAKE_TIMEOUT, self.accept(stream)) => match shaken {
                Ok(Ok(shaken)) => Ok(shaken),
                Ok(Err(error)) => {
                    debug!(%error, "a TLS handshake failed");
                    Err(Handshake::Failed)
                }
                Err(_elapsed) => Err(Handshake::Timeout),
            },
            _ = displaced => Err(Handshake::Displaced),
            () = closed(handle) => Err(Handshake::Failed),
        };
        self.places.leave(number);
        metrics.shaken(match &shaken {
            Ok(Shaken::Encrypted(_)) => Handshake::Done,
            Ok(_) => Handshake::Failed,
            Err(why) => *why,
        });
        shaken.unwrap_or(Shaken::Failed)
    }

    async fn accept(&self, stream: TcpStream) -> std::io::Result<Shaken> {
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if first != [TLS_RECORD] {
            return Ok(Shaken::Plain(stream));
        }
        let stream = self.tls.acceptor(self.clients).accept(stream).await?;
        if let ClientIdentity::NoSource { why, subject } = ClientIdentity::of(&stream) {
            self.nameless.log(why, &subject);
        }
        Ok(Shaken::Encrypted(Box::new(stream)))
    }
}

/// Waits for the command to close.
async fn closed(handle: Arc<ConnectionHandle>) {
    let mut commands = CommandReceiver::new(handle);
    let close = std::future::poll_fn(|cx| match commands.poll(cx) {
        Some(ConnectionCommand::Close) => Poll::Ready(()),
        _ => Poll::Pending,
    });
    pin!(close).await;
}

/// Clients whose certificates name no source: told of in a line for all of them.
#[derive(Default)]
struct Nameless(Mutex<(u64, Option<Instant>)>);

impl Nameless {
    fn log(&self, why: &str, subject: &str) {
        // Nothing panics while it holds the lock.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (connections, logged) = &mut *state;
        *connections += 1;
        if logged.is_none_or(|logged| logged.elapsed() >= LOG_EVERY) {
            warn!(
                connections,
                why, subject, "a client's certificate names no source (TLS_CLIENT_CA)"
            );
            *state = (0, Some(Instant::now()));
        }
    }
}

/// Who is at it, in the order of their coming.
struct Places {
    max: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    last: u64,
    /// Dropping one ends its handshake.
    places: BTreeMap<u64, oneshot::Sender<()>>,
}

impl Places {
    fn new(max: usize) -> Self {
        let taken = Mutex::default();
        Self { max, taken }
    }

    /// Takes a place, from the longest there if all are taken. The number is for leaving it; the
    /// receiver ends once somebody else has it.
    fn enter(&self) -> (u64, oneshot::Receiver<()>) {
        let (place, displaced) = oneshot::channel();
        let mut taken = self.taken();
        taken.last += 1;
        let number = taken.last;
        taken.places.insert(number, place);
        if taken.places.len() > self.max {
            taken.places.pop_first();
        }
        (number, displaced)
    }

    fn leave(&self, number: u64) {
        self.taken().places.remove(&number);
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Nothing panics while it holds the lock.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot::error::TryRecvError;

    #[test]
    fn a_newcomer_displaces_whoever_came_first() {
        let places = Places::new(2);
        let (first, mut first_displaced) = places.enter();
        let (second, mut second_displaced) = places.enter();
        assert_eq!(first_displaced.try_recv(), Err(TryRecvError::Empty));
        let (third, mut third_displaced) = places.enter();
        assert_eq!(first_displaced.try_recv(), Err(TryRecvError::Closed));
        assert_eq!(second_displaced.try_recv(), Err(TryRecvError::Empty));
        places.leave(first);
        places.leave(second);
        let (_fourth, _displaced) = places.enter();
        assert_eq!(third_displaced.try_recv(), Err(TryRecvError::Empty));
        places.leave(third);
        assert_eq!(places.taken().places.len(), 1);
    }
}
