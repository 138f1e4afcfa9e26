//! A way to a server that is shut at first.

use std::net::SocketAddr;
use std::ops::Range;

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A port that refuses connections until it is opened, and then leads to the real server. The port
/// is held from the start, so nobody else can take it meanwhile.
pub struct Forwarder {
    port: u16,
    shut: Option<Socket>,
    forwarding: Option<JoinHandle<()>>,
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
        self.forwarding = Some(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(forward(stream, server.clone()));
            }
        }));
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        if let Some(forwarding) = &self.forwarding {
            forwarding.abort();
        }
    }
}

async fn forward(mut stream: TcpStream, server: (String, u16)) {
    if let Ok(mut server) = TcpStream::connect(server).await {
        // Either side may end a connection however it likes.
        let _ended = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
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
