//! A client that sends exactly the bytes it is told to, at the time it is told to.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest for an answer: above the 30 s after which ticketd gives up on slow headers.
const ANSWER_DEADLINE: Duration = Duration::from_secs(45);

/// One connection.
pub struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// What came back for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
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
    let mut head = format!(
        "POST /ticket HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n",
        body.len()
    );
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

/// A metric's value in the text format; `series` is its name with its labels as written there.
pub fn metric(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| {
        line.strip_prefix(series)?
            .strip_prefix(' ')?
            .trim()
            .parse()
            .ok()
    })
}

impl Client {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            unread: Vec::new(),
        })
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends bytes to a server that may have stopped listening.
    pub async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Closes the sending half.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Sends a request and waits for its answer.
    pub async fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(request).await;
        self.answer().await
    }

    /// The next answer.
    pub async fn answer(&mut self) -> Answer {
        self.read_answer(true).await.expect("an answer")
    }

    /// The next answer, which has no body whatever its headers say.
    pub async fn answer_to_head(&mut self) -> Answer {
        self.read_answer(false).await.expect("an answer")
    }

    /// The next answer, or none if the connection ends before one.
    pub async fn try_answer(&mut self) -> Option<Answer> {
        self.read_answer(true).await
    }

    /// Whether the server closes the connection without another byte.
    pub async fn is_closed(&mut self) -> bool {
        self.unread.is_empty() && !self.more().await
    }

    async fn read_answer(&mut self, with_body: bool) -> Option<Answer> {
        let end = loop {
            if let Some(at) = self.unread.windows(4).position(|w| w == b"\r\n\r\n") {
                break at;
            }
            if !self.more().await {
                return None;
            }
        };
        let head = String::from_utf8(self.unread.drain(..end + 4).collect()).unwrap();
        let mut answer = Answer::parse(&head);
        let length = answer
            .header("content-length")
            .map_or(0, |length| length.parse().unwrap());
        if with_body {
            while self.unread.len() < length {
                assert!(self.more().await, "the body ends too early: {answer:?}");
            }
            answer.body = self.unread.drain(..length).collect();
        }
        Some(answer)
    }

    /// Reads on; false at the end.
    async fn more(&mut self) -> bool {
        let read = timeout(ANSWER_DEADLINE, self.stream.read_buf(&mut self.unread));
        let read = read.await.expect("an answer or an end in time");
        read.is_ok_and(|n| n > 0)
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
        let json = self.json();
        json["id"].as_str().expect("an id").parse().expect("a UUID")
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

    /// Whether the server says that it closes the connection.
    pub fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }
}
