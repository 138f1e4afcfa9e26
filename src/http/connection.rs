//! One connection: serving its requests, and closing it.
//!
//! Timeouts and draining come from outside, as commands: see `idle`.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
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

use super::handle::{CommandReceiver, ConnectionCommand, ConnectionHandle};
use super::problem;
use super::response::FullResponse;
use super::router::Router;
use super::socket::Socket;
use super::stream::Stream;
use crate::tls::ClientIdentity;

/// The largest head of a request.
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// What a connection may buffer of what it reads, and of what it writes.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// How long a connection that we close is read on at most, so that what the client
/// is still sending does not reset it before it has read our response.
const LINGER: Duration = Duration::from_secs(1);

/// What to do with a connection that hyper has handed back.
enum Next {
    /// Close it.
    Close,
    /// Serve it with new buffers.
    ReplaceBuffers,
}

/// Serves requests until the client or a command ends that.
pub(super) async fn serve(stream: Stream, router: Arc<Router>, handle: Arc<ConnectionHandle>) {
    let metrics = router.other().clone();
    let client = stream.client();
    let mut socket = Socket::new(stream, handle.clone());
    let mut responses = responses(router, client, handle.clone());
    let mut commands = CommandReceiver::new(handle);
    let socket = loop {
        let mut connection = builder().serve_connection(TokioIo::new(socket), responses);
        let served = std::future::poll_fn(|cx| {
            match commands.poll(cx) {
                Some(ConnectionCommand::Close) => return Poll::Ready(Ok(Next::Close)),
                Some(_) => Pin::new(&mut connection).graceful_shutdown(),
                None => {}
            }
            match connection.poll_without_shutdown(cx) {
                Poll::Pending if commands.should_replace_buffers() => {
                    Poll::Ready(Ok(Next::ReplaceBuffers))
                }
                polled => polled.map_ok(|()| Next::Close),
            }
        });
        let served = served.await.unwrap_or_else(|error| {
            debug!(%error, "a connection failed");
            if let Some(code) = answered_by_hyper(&error) {
                metrics.answered(code);
            }
            Next::Close
        });
        let parts = connection.into_parts();
        socket = parts.io.into_inner();
        socket.unread(&parts.read_buf);
        // It would keep the whole buffer that it lies in.
        drop(parts.read_buf);
        responses = parts.service;
        if let Next::Close = served {
            break socket;
        }
        let has_unread = socket.has_unread();
        // What was begun goes on; else buffers are only needed once there is something to read.
        let idle = std::future::poll_fn(|cx| match commands.poll(cx) {
            Some(_) => Poll::Ready(Next::Close),
            None => socket.poll_read_ready(cx).map(|()| Next::ReplaceBuffers),
        });
        if !has_unread && let Next::Close = idle.await {
            break socket;
        }
    };
    // An idle connection is just closed; a request that was begun is answered.
    let final_response = if commands.last_seen() == ConnectionCommand::Close && socket.has_unread()
    {
        metrics.answered(408);
        problem::headers_timeout()
    } else {
        String::new()
    };
    // Boxed, so that its buffer is not part of every connection's task.
    Box::pin(close(socket.into_stream(), &final_response)).await;
}

/// Tells a client that does not speak TLS that it has to here.
pub(super) async fn refuse_plain(stream: TcpStream, router: &Router) {
    router.other().answered(400);
    Box::pin(close(Stream::Plain(stream), &problem::plain_http())).await;
}

/// The service that hyper asks for each response.
fn responses(
    router: Arc<Router>,
    client: ClientIdentity,
    handle: Arc<ConnectionHandle>,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = FullResponse,
    Error = Infallible,
    Future = impl Future<Output = Result<FullResponse, Infallible>>,
> {
    service_fn(move |request: Request<Incoming>| {
        handle.count_request();
        let handle = handle.clone();
        router.respond(request, &client).map(move |response| {
            handle.count_request();
            Ok(response)
        })
    })
}

/// The status of the response that hyper gave to what was no request.
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
        // The sweeps keep the timeouts.
        .header_read_timeout(None)
        .max_header_size(HEADER_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        // Responses are small: one more copy is cheaper than a gathering write.
        .writev(false)
        // A client that has sent all it will may close its half and still be answered.
        .half_close(true);
    builder
}

/// Lingering close: sends a final response, closes our half, and reads on until the
/// client has closed its own.
async fn close(mut stream: Stream, final_response: &str) {
    let lingering = async {
        stream.write_all(final_response.as_bytes()).await?;
        stream.shutdown().await?;
        let mut discarded = [0; 4096];
        while stream.read(&mut discarded).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    if let Ok(Err(error)) = timeout(LINGER, lingering).await {
        debug!(%error, "a connection was not closed cleanly");
    }
}
