//! A client that sends exactly the bytes it is told to, at the time it is told to.

use std::io::{ErrorKind, Result};
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

/// Maximum wait for an answer: above the 30 s after which ticketd gives up on slow headers.
const ANSWER_DEADLINE: Duration = Duration::from_secs(45);

/// One connection, or the half of one that is read.
pub struct Client<S = TcpStream> {
    stream: S,
    unread: Vec<u8>,
}

/// What came back for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// What came after the headers.
    pub body: Vec<u8>,
}

/// A request without a body.
pub fn request(method: &str, path: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nhost: test\r\n\r\n").into_bytes()
}

/// A GET.
pub fn get(path: &str) -> Vec<u8> {
    request("GET", path)
}

/// A POST of one ticket with Content-Length, and further header lines.
pub fn post(headers: &[&str], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    [head(headers, body.len()).as_bytes(), body].concat()
}

/// The head of such a POST, for a body of so many bytes.
pub fn head(headers: &[&str], length: usize) -> String {
    let mut head = format!("POST /ticket HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n");
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    head + "\r\n"
}

/// Sends a request on a connection of its own; the whole of it takes at most so long.
pub async fn ask_once(address: SocketAddr, request: &[u8], longest: Duration) -> Result<Answer> {
    let exchange = async { Client::connect(address).await?.try_ask(request).await };
    let late = Err(ErrorKind::TimedOut.into());
    timeout(longest, exchange).await.unwrap_or(late)
}

impl Client {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self::over(stream))
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.unwrap();
    }

    /// Sends bytes to a server that may have stopped listening.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.stream.write_all(bytes.as_ref()).await
    }

    /// Closes the sending half.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Sends a request and waits for its answer.
    pub async fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.try_ask(request).await.expect("an answer")
    }

    /// The same with a server that may go away meanwhile.
    pub async fn try_ask(&mut self, request: impl AsRef<[u8]>) -> Result<Answer> {
        self.try_send(request).await?;
        self.try_answer().await
    }

    /// Both halves, to be used at the same time.
    pub fn split(self) -> (Client<OwnedReadHalf>, OwnedWriteHalf) {
        let (reader, writer) = self.stream.into_split();
        (Client::over(reader), writer)
    }
}

impl<S: AsyncRead + Unpin> Client<S> {
    fn over(stream: S) -> Self {
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    /// The next answer.
    pub async fn answer(&mut self) -> Answer {
        self.try_answer().await.expect("an answer")
    }

    /// The next answer, which has no body whatever its headers say.
    pub async fn answer_to_head(&mut self) -> Answer {
        self.read_answer(false).await.expect("an answer")
    }

    /// The next answer, if the connection does not end before it has.
    pub async fn try_answer(&mut self) -> Result<Answer> {
        self.read_answer(true).await
    }

    /// Whether the server closes the connection without another byte.
    pub async fn is_closed(&mut self) -> bool {
        self.unread.is_empty() && self.more().await.is_err()
    }

    async fn read_answer(&mut self, with_body: bool) -> Result<Answer> {
        let end = loop {
            if let Some(at) = self.unread.windows(4).position(|w| w == b"\r\n\r\n") {
                break at;
            }
            self.more().await?;
        };
        let head = String::from_utf8(self.unread.drain(..end + 4).collect()).unwrap();
        let mut answer = Answer::parse(&head);
        let length = answer
            .header("content-length")
            .map_or(0, |length| length.parse().unwrap());
        if with_body {
            while self.unread.len() < length {
                self.more().await?;
            }
            answer.body = self.unread.drain(..length).collect();
        }
        Ok(answer)
    }

    /// Reads on; an error at the end.
    async fn more(&mut self) -> Result<()> {
        let read = timeout(ANSWER_DEADLINE, self.stream.read_buf(&mut self.unread));
        match read.await.expect("an answer or an end in time")? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

impl Answer {
    fn parse(head: &str) -> Self {
        let mut lines = head.lines();
        let status_line = lines.next().unwrap();
        let (version, status) = status_line.split_once(' ').expect(status_line);
        assert!(matches!(version, "HTTP/1.1" | "HTTP/1.0"), "{status_line}");
        Self {
            status: status[..3].parse().expect(status_line),
            headers: lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
                .collect(),
            body: Vec::new(),
        }
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// The body as JSON, which the content type must say it is.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(
            self.header("content-type"),
            Some("application/json"),
            "{self:?}"
        );
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// The id that a 202 gives.
    #[track_caller]
    pub fn id(&self) -> uuid::Uuid {
        assert_eq!(self.status, 202, "{self:?}");
        self.json();
        self.any_id().expect("a UUID")
    }

    /// The id that it gives, if it gives one.
    pub fn any_id(&self) -> Option<uuid::Uuid> {
        let json: Value = serde_json::from_slice(&self.body).ok()?;
        json["id"].as_str()?.parse().ok()
    }

    /// Checks that this is a whole problem document (RFC 9457) of that status, and returns its detail.
    #[track_caller]
    pub fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let json: Value = serde_json::from_slice(&self.body).expect("JSON");
        assert_eq!(json["status"], status, "{json}");
        assert_eq!(json["type"], "about:blank", "{json}");
        assert!(
            json["title"]
                .as_str()
                .is_some_and(|title| !title.is_empty()),
            "{json}"
        );
        json["detail"].as_str().expect("a detail").to_owned()
    }

    /// Whether an answer to /readyz says that the process is ready and all of its parts are up:
    /// one that takes tickets is ready without its database.
    pub fn lacks_nothing(&self) -> bool {
        self.status == 200 && !self.text().contains("\"down\"")
    }

    /// After how many seconds it asks for a retry.
    #[track_caller]
    pub fn retry_after(&self) -> u32 {
        let seconds = self.header("retry-after").expect("Retry-After");
        seconds.parse().expect("seconds")
    }

    /// Whether the server says that it closes the connection.
    pub fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }
}
