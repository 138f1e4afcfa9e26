//! HTTP as tills speak it, and as they should not.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Whether the connection may be used again.
    pub keep_alive: bool,
    /// What came with it.
    pub body: String,
}

impl Answer {
    /// The id in the answer to a ticket that was accepted.
    pub fn id(&self) -> Option<Uuid> {
        let id = self.body.strip_prefix("{\"id\":\"")?.strip_suffix("\"}")?;
        id.parse().ok()
    }
}

/// The head of a request that posts a ticket of so many bytes.
pub fn head(key: Option<&str>, length: usize) -> String {
    let key = key.map_or(String::new(), |key| format!("idempotency-key: {key}\r\n"));
    format!(
        "POST /ticket HTTP/1.1\r\nhost: till\r\ncontent-type: text/plain\r\n{key}content-length: {length}\r\n\r\n"
    )
}

/// Posts a ticket on an open connection.
pub async fn post(stream: &mut TcpStream, key: Option<&str>, body: &[u8]) -> Result<Answer> {
    let request = [head(key, body.len()).as_bytes(), body].concat();
    stream.write_all(&request).await?;
    read_answer(stream).await
}

/// Posts a ticket on a connection of its own, which takes at most so long.
pub async fn post_once(address: SocketAddr, body: &[u8], longest: Duration) -> Result<Answer> {
    let exchange = async {
        let mut stream = connect(address).await?;
        post(&mut stream, None, body).await
    };
    tokio::time::timeout(longest, exchange)
        .await
        .unwrap_or_else(|_late| Err(ErrorKind::TimedOut.into()))
}

/// Asks for a path.
pub async fn get(address: SocketAddr, path: &str) -> Result<Answer> {
    let exchange = async {
        let mut stream = connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: till\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        read_answer(&mut stream).await
    };
    tokio::time::timeout(Duration::from_secs(5), exchange)
        .await
        .unwrap_or_else(|_late| Err(ErrorKind::TimedOut.into()))
}

/// Connects.
pub async fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads one answer and nothing beyond it.
pub async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> Result<Answer> {
    let malformed = || Error::from(ErrorKind::InvalidData);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).map_err(|_binary| malformed())?;
    let status = head
        .get(9..12)
        .and_then(|code| code.parse().ok())
        .ok_or_else(malformed)?;
    let header = |name: &str| {
        let mut headers = head.lines().filter_map(|line| line.split_once(": "));
        headers.find_map(|(key, value)| key.eq_ignore_ascii_case(name).then_some(value))
    };
    let length = header("content-length").map_or(Some(0), |length| length.parse().ok());
    let mut body = vec![0; length.ok_or_else(malformed)?];
    stream.read_exact(&mut body).await?;
    Ok(Answer {
        status,
        keep_alive: header("connection") != Some("close"),
        body: String::from_utf8(body).map_err(|_binary| malformed())?,
    })
}

/// Waits for a condition, looking at it again and again.
pub async fn until<T>(
    what: &str,
    longest: Duration,
    mut check: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + longest;
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {longest:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
