//! One connection: serving its requests, and letting it end.
//!
//! Deadlines and the end of the process are looked after for all connections
//! of a worker at once, by [`Connections`]: a timer and a subscription for each
//! of them would be armed and disarmed with every request.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;

use super::Service;
use super::response::{self, Reply};
use super::socket::Socket;

/// How often connections are looked at that wait for a request.
pub const SWEEP: Duration = Duration::from_secs(5);

/// So many looks in a row without a whole request head end a connection: about
/// 30 seconds for a head, and for a connection that idles.
const SWEEPS_MAX: u8 = 6;

/// The largest head of a request.
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// What a connection may buffer of what it reads, and of what it writes.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Longest that a connection we close is read on, so that what the client is
/// still sending does not reset it before it has read our answer.
const LINGER: Duration = Duration::from_secs(1);

/// The connections of one worker.
#[derive(Default)]
pub struct Connections {
    controls: HashMap<u64, (Arc<Control>, Patience)>,
    next: u64,
    draining: bool,
}

/// How long a connection has been waiting, in sweeps.
#[derive(Default)]
struct Patience {
    requests: u32,
    sweeps: u8,
}

impl Connections {
    /// Takes note of a connection; its number is for [`Self::remove`].
    pub fn insert(&mut self) -> (u64, Arc<Control>) {
        let control = Arc::new(Control::default());
        if self.draining {
            control.tell(DRAINING);
        }
        self.next += 1;
        self.controls
            .insert(self.next, (control.clone(), Patience::default()));
        (self.next, control)
    }

    /// Forgets a connection that has ended.
    pub fn remove(&mut self, number: u64) {
        self.controls.remove(&number);
    }

    /// Ends connections that have waited for a request for too long.
    pub fn sweep(&mut self) {
        for (control, patience) in self.controls.values_mut() {
            let requests = control.requests.load(Ordering::Relaxed);
            if requests != patience.requests || control.is_serving() {
                *patience = Patience {
                    requests,
                    sweeps: 0,
                };
                continue;
            }
            patience.sweeps = patience.sweeps.saturating_add(1);
            if patience.sweeps >= SWEEPS_MAX {
                control.tell(EXPIRED);
            }
        }
    }

    /// Tells every connection to end after the request it is serving; a client
    /// may even finish one that it has begun to send.
    pub fn drain(&mut self) {
        self.draining = true;
        for (control, _) in self.controls.values() {
            control.tell(DRAINING);
        }
    }

    /// Ends every connection that is not serving a request.
    pub fn cut(&self) {
        for (control, _) in self.controls.values() {
            if !control.is_serving() {
                control.tell(EXPIRED);
            }
        }
    }
}

const SERVING: u8 = 0;
const DRAINING: u8 = 1;
const EXPIRED: u8 = 2;

/// What a connection is told from outside, and what it tells of itself.
#[derive(Default)]
pub struct Control {
    order: AtomicU8,
    /// So much went through hyper's buffers that they are worth to be parted from.
    swollen: AtomicBool,
    /// hyper still holds some of an answer, since the client does not read it.
    unsent: AtomicBool,
    /// Counts up when a request begins and when it is answered, so it is odd
    /// while one is served.
    requests: AtomicU32,
    /// Stays after a wake, so the connection need not hand it over again.
    waker: Mutex<Option<Waker>>,
}

impl Control {
    fn tell(&self, order: u8) {
        self.order.fetch_max(order, Ordering::Release);
        if let Some(waker) = &*self.waker() {
            waker.wake_by_ref();
        }
    }

    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        // Nothing panics while it holds the lock.
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of that a buffer is full, or has grown.
    pub fn note_swollen(&self) {
        self.swollen.store(true, Ordering::Relaxed);
    }

    /// Takes note of whether hyper got rid of all it had to send.
    pub fn note_unsent(&self, unsent: bool) {
        self.unsent.store(unsent, Ordering::Relaxed);
    }

    fn is_serving(&self) -> bool {
        !self.requests.load(Ordering::Relaxed).is_multiple_of(2)
    }

    /// Only the connection itself counts, so this need not be one step.
    fn count(&self) {
        let requests = self.requests.load(Ordering::Relaxed);
        self.requests
            .store(requests.wrapping_add(1), Ordering::Relaxed);
    }
}

/// The connection's end of its control.
struct Orders {
    control: Arc<Control>,
    /// The last one seen.
    told: u8,
    /// The waker that the control has: nearly always the same, and not worth a
    /// lock each time.
    waker: Waker,
}

impl Orders {
    fn new(control: Arc<Control>) -> Self {
        Self {
            control,
            told: SERVING,
            waker: Waker::noop().clone(),
        }
    }

    /// A new order, if there is one.
    fn look(&mut self, cx: &Context<'_>) -> Option<u8> {
        if !self.waker.will_wake(cx.waker()) {
            self.waker.clone_from(cx.waker());
            *self.control.waker() = Some(self.waker.clone());
        }
        let order = self.control.order.load(Ordering::Acquire);
        let new = order != self.told;
        self.told = order;
        new.then_some(order)
    }

    /// Whether hyper, which has nothing to do just now, can be parted from
    /// buffers that have grown: nothing is in them then but perhaps the
    /// beginning of a request.
    fn may_renew(&self) -> bool {
        let control = &self.control;
        let renew = control.swollen.load(Ordering::Relaxed)
            && !control.is_serving()
            && !control.unsent.load(Ordering::Relaxed)
            && self.told == SERVING;
        if renew {
            control.swollen.store(false, Ordering::Relaxed);
        }
        renew
    }
}

/// Why hyper's part of a connection ended.
enum End {
    /// The connection itself has ended, or has to.
    Over,
    /// It only has to let go of its buffers.
    Renew,
}

/// Serves requests until the client or the control ends that.
pub async fn serve(stream: TcpStream, service: Arc<Service>, control: Arc<Control>) {
    let metrics = service.metrics.clone();
    let mut socket = Socket::new(stream, control.clone());
    let mut answers = answers(service, control.clone());
    let mut orders = Orders::new(control);
    let socket = loop {
        let mut connection = builder().serve_connection(TokioIo::new(socket), answers);
        let served = std::future::poll_fn(|cx| {
            match orders.look(cx) {
                Some(EXPIRED) => return Poll::Ready(Ok(End::Over)),
                Some(_) => Pin::new(&mut connection).graceful_shutdown(),
                None => {}
            }
            match connection.poll_without_shutdown(cx) {
                Poll::Pending if orders.may_renew() => Poll::Ready(Ok(End::Renew)),
                polled => polled.map_ok(|()| End::Over),
            }
        });
        let served = served.await.unwrap_or_else(|error| {
            debug!("a connection failed: {error}");
            if let Some(code) = answered_by_hyper(&error) {
                metrics.answered(code);
            }
            End::Over
        });
        let parts = connection.into_parts();
        socket = parts.io.into_inner();
        socket.unread(&parts.read_buf);
        // It would keep the whole buffer that it lies in.
        drop(parts.read_buf);
        answers = parts.service;
        if let End::Over = served {
            break socket;
        }
        // What was begun goes on; else new buffers are for when there is something to read.
        let idle = std::future::poll_fn(|cx| match orders.look(cx) {
            Some(_) => Poll::Ready(End::Over),
            None => socket.poll_read_ready(cx).map(|()| End::Renew),
        });
        if !socket.has_unread()
            && let End::Over = idle.await
        {
            break socket;
        }
    };
    // An idle connection is just closed; a request that was begun is answered.
    let farewell = if orders.told == EXPIRED && socket.has_unread() {
        metrics.answered(408);
        response::too_slow_headers()
    } else {
        String::new()
    };
    // Boxed, so that its buffer is not part of every connection's task.
    Box::pin(close(socket.into_stream(), &farewell)).await;
}

/// What hyper asks for each answer.
fn answers(
    service: Arc<Service>,
    control: Arc<Control>,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = Reply,
    Error = Infallible,
    Future = impl Future<Output = Result<Reply, Infallible>>,
> {
    service_fn(move |request: Request<Incoming>| {
        control.count();
        let control = control.clone();
        service.answer(request).map(move |reply| {
            control.count();
            Ok(reply)
        })
    })
}

/// The status of an answer that hyper gave to what was no request.
fn answered_by_hyper(error: &hyper::Error) -> Option<u16> {
    match error {
        error if error.is_parse_too_large() => Some(431),
        error if error.is_parse() => Some(400),
        _ => None,
    }
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // Deadlines are kept by the sweeps.
        .header_read_timeout(None)
        .max_header_size(HEADER_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        // Answers are small: one more copy is cheaper than a gathering write.
        .writev(false)
        // A client that has sent all it will may close its half and still be answered.
        .half_close(true);
    builder
}

/// Says a last word, closes our half, and reads on until the client has closed its own.
async fn close(mut stream: TcpStream, farewell: &str) {
    let lingering = async {
        stream.write_all(farewell.as_bytes()).await?;
        stream.shutdown().await?;
        let mut waste = [0; 4096];
        while stream.read(&mut waste).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    if let Ok(Err(error)) = timeout(LINGER, lingering).await {
        debug!("a connection was not closed cleanly: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expired(control: &Control) -> bool {
        control.order.load(Ordering::Relaxed) == EXPIRED
    }

    #[test]
    fn a_connection_without_requests_expires() {
        let mut connections = Connections::default();
        let (_, control) = connections.insert();
        assert_eq!(SWEEP * SWEEPS_MAX.into(), Duration::from_secs(30));
        for _ in 1..SWEEPS_MAX {
            connections.sweep();
        }
        assert!(!expired(&control));
        connections.sweep();
        assert!(expired(&control));
    }

    #[test]
    fn a_request_starts_the_wait_over_and_one_being_served_has_none() {
        let mut connections = Connections::default();
        let (_, control) = connections.insert();
        for _ in 0..3 * SWEEPS_MAX {
            control.requests.fetch_add(2, Ordering::Relaxed);
            connections.sweep();
        }
        control.requests.fetch_add(1, Ordering::Relaxed);
        for _ in 0..3 * SWEEPS_MAX {
            connections.sweep();
        }
        assert!(!expired(&control));
    }

    #[test]
    fn an_end_of_the_process_does_not_undo_an_expiry() {
        let mut connections = Connections::default();
        let (_, control) = connections.insert();
        control.tell(EXPIRED);
        connections.drain();
        assert!(expired(&control));
    }
}
