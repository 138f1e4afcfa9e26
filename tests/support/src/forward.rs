//! A way to a server that is shut at first, and may be cut.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// A port that refuses connections until it is opened, and then leads to the real server. The port
/// is held from the start, so nobody else can take it meanwhile.
pub struct Forwarder {
    port: u16,
    shut: Option<Socket>,
    forwarding: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// What ends a connection once the server has said it so often.
    cut_after: Mutex<Option<(&'static [u8], usize)>>,
    /// Ends every connection.
    cut: Notify,
    /// When each connection was made.
    connections: Mutex<Vec<Instant>>,
}

impl Forwarder {
    /// Takes a port and does not listen on it.
    pub fn shut() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        socket.bind(&any.into()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        Self {
            port,
            shut: Some(socket),
            forwarding: None,
            shared: Arc::default(),
        }
    }

    /// The URL of a server, by way of this port.
    pub fn url(&self, server: &str) -> String {
        let there = authority(server);
        let here = format!("127.0.0.1:{}", self.port);
        [&server[..there.start], &here, &server[there.end..]].concat()
    }

    /// Begins to listen and to forward to the server of that URL.
    pub fn open(&mut self, server: &str) {
        let socket = self.shut.take().expect("opened once");
        socket.listen(64).unwrap();
        let listener = TcpListener::from_std(socket.into()).unwrap();
        let server = address(server);
        let shared = self.shared.clone();
        self.forwarding = Some(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.connections.lock().unwrap().push(Instant::now());
                tokio::spawn(forward(stream, server.clone(), shared.clone()));
            }
        }));
    }

    /// Ends each connection once the server has said these bytes so often.
    pub fn cut_after(&self, bytes: &'static [u8], times: usize) {
        *self.shared.cut_after.lock().unwrap() = Some((bytes, times));
    }

    /// Lets connections be from now on.
    pub fn cut_none(&self) {
        *self.shared.cut_after.lock().unwrap() = None;
    }

    /// Ends every connection that there is.
    pub fn cut(&self) {
        self.shared.cut.notify_waiters();
    }

    /// When each connection so far was made.
    pub fn connections(&self) -> Vec<Instant> {
        self.shared.connections.lock().unwrap().clone()
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        if let Some(forwarding) = &self.forwarding {
            forwarding.abort();
        }
    }
}

async fn forward(mut stream: TcpStream, server: (String, u16), shared: Arc<Shared>) {
    let Ok(mut server) = TcpStream::connect(server).await else {
        return;
    };
    let (mut from_client, mut to_client) = stream.split();
    let (mut from_server, mut to_server) = server.split();
    let up = tokio::io::copy(&mut from_client, &mut to_server);
    let down = async {
        let mut buffer = vec![0; 64 * 1024];
        let mut said = 0;
        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
            let piece = &buffer[..count];
            if to_client.write_all(piece).await.is_err() {
                return;
            }
            let cut_after = *shared.cut_after.lock().unwrap();
            let Some((bytes, times)) = cut_after else {
                continue;
            };
            said += piece.windows(bytes.len()).filter(|at| *at == bytes).count();
            if said >= times {
                return;
            }
        }
    };
    // Either side may end a connection however it likes.
    tokio::select! {
        _ended = up => {}
        () = down => {}
        () = shared.cut.notified() => {}
    }
}

/// Where host and port stand in a URL.
fn authority(url: &str) -> Range<usize> {
    let start = url.find("://").expect("a URL, not a list of settings") + 3;
    let end = url[start..]
        .find(['/', '?'])
        .map_or(url.len(), |at| start + at);
    let start = url[start..end]
        .rfind('@')
        .map_or(start, |at| start + at + 1);
    start..end
}

/// Host and port of a URL.
fn address(url: &str) -> (String, u16) {
    let standard = if url.starts_with("amqp") { 5672 } else { 5432 };
    let authority = &url[authority(url)];
    match authority.rsplit_once(':') {
        Some((host, port)) => (host.to_owned(), port.parse().expect("a port")),
        None => (authority.to_owned(), standard),
    }
}
