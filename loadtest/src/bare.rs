//! The ceiling: hyper reading a body and answering 202, with nothing behind it.
//!
//! One current-thread runtime and one listener per core, so that no connection ever crosses a thread.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::thread;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use socket2::{Domain, Protocol, Socket, Type};

/// As long as an answer that names a ticket's id.
const ANSWER: &[u8] = br#"{"id":"00000000-0000-7000-8000-000000000000"}"#;

/// Connections that may wait to be accepted: above the largest number a load test opens at once.
const BACKLOG: i32 = 4096;

/// What `bare` is told on the command line.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Address to serve on.
    #[arg(long, default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// Threads, each with its own runtime and listener [default: one per core].
    #[arg(long)]
    threads: Option<usize>,
}

/// Serves until the process is ended.
pub(crate) fn run(options: &Options) -> Result<()> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = options.threads.unwrap_or(cores).max(1);
    // Every listener exists before the first one is served, so a taken port stops the start.
    let listeners: Vec<_> = (0..threads)
        .map(|_| listener(options.listen))
        .collect::<Result<_>>()?;
    eprintln!("serving 202 on {} with {threads} threads", options.listen);
    let workers: Vec<_> = listeners
        .into_iter()
        .map(|listener| thread::spawn(move || serve_thread(listener)))
        .collect();
    for worker in workers {
        worker
            .join()
            .map_err(|_| anyhow::anyhow!("a server thread panicked"))??;
    }
    Ok(())
}

/// A listener that shares its port with its siblings; the kernel spreads the connections.
fn listener(address: SocketAddr) -> Result<TcpListener> {
    let open = || -> std::io::Result<TcpListener> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    open().with_context(|| format!("cannot listen on {address}"))
}

fn serve_thread(listener: TcpListener) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(async move {
                // A client that hangs up is no event for a ceiling.
                let _ended = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(answer))
                    .await;
            });
        }
    })
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut body = request.into_body();
    while let Some(Ok(_)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {}
    let mut response = Response::new(Full::new(Bytes::from_static(ANSWER)));
    *response.status_mut() = StatusCode::ACCEPTED;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
