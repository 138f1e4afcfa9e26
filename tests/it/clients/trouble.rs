//! A server in front of ticketd that answers as an outage does before it lets ticketd answer.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ticketd_testing::{Answer, ask_once};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What its 503 asks for.
pub(super) const RETRY_AFTER_SECONDS: u64 = 1;

/// Maximum wait for ticketd.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);

/// What is done to a request in the place of its answer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Trouble {
    /// It does not reach ticketd: 503.
    Busy,
    /// It does, and of the answer come some bytes of the first line.
    CutHead,
    /// It does, and of the answer's body comes the beginning.
    CutBody,
}

/// A request.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    /// Its Idempotency-Key.
    pub(super) key: String,
    /// When it had come.
    pub(super) at: Instant,
}

/// The server. It ends with the value.
pub(super) struct Troubled {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

struct Shared {
    ticketd: SocketAddr,
    troubles: Mutex<VecDeque<Trouble>>,
    attempts: Mutex<Vec<Attempt>>,
}

impl Troubled {
    /// Listens in front of that ticketd. These befall the first requests; those after them are answered.
    pub(super) async fn start(ticketd: SocketAddr, troubles: &[Trouble]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            ticketd,
            troubles: Mutex::new(troubles.iter().copied().collect()),
            attempts: Mutex::default(),
        });
        let serving = tokio::spawn(serve(listener, shared.clone()));
        Self {
            address,
            shared,
            serving,
        }
    }

    /// Where tickets are sent.
    pub(super) fn url(&self) -> String {
        format!("http://{}/ticket", self.address)
    }

    /// The requests so far.
    pub(super) fn attempts(&self) -> Vec<Attempt> {
        self.shared.attempts.lock().unwrap().clone()
    }
}

impl Drop for Troubled {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(answer(stream, shared.clone()));
    }
}

/// Answers one request, and closes.
async fn answer(mut stream: TcpStream, shared: Arc<Shared>) {
    let Some(request) = request(&mut stream).await else {
        return;
    };
    shared.attempts.lock().unwrap().push(Attempt {
        key: key(&request),
        at: Instant::now(),
    });
    let trouble = shared.troubles.lock().unwrap().pop_front();
    let mut bytes = match trouble {
        Some(Trouble::Busy) => busy(),
        _ => bytes(
            &ask_once(shared.ticketd, &request, ANSWER_DEADLINE)
                .await
                .unwrap(),
        ),
    };
    match trouble {
        Some(Trouble::CutHead) => bytes.truncate("HTTP/1.1 2".len()),
        Some(Trouble::CutBody) => bytes.truncate(bytes.len() - 10),
        Some(Trouble::Busy) | None => {}
    }
    // The client may be gone.
    let _sent = stream.write_all(&bytes).await;
    let _ended = stream.shutdown().await;
}

/// A whole request, if one comes.
async fn request(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    while !is_whole(&request) {
        if stream.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
    }
    Some(request)
}

fn is_whole(request: &[u8]) -> bool {
    let end = request.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let length = header(request, "content-length").map_or(0, |length| length.parse().unwrap());
    end.is_some_and(|end| request.len() >= end + 4 + length)
}

fn key(request: &[u8]) -> String {
    header(request, "idempotency-key").unwrap_or_default()
}

fn header(request: &[u8], wanted: &str) -> Option<String> {
    let text = String::from_utf8_lossy(request);
    let (head, _) = text.split_once("\r\n\r\n")?;
    let mut headers = head.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = headers.find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
    Some(value.trim().to_owned())
}

fn busy() -> Vec<u8> {
    let head = "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0";
    format!("{head}\r\nretry-after: {RETRY_AFTER_SECONDS}\r\n\r\n").into_bytes()
}

/// An answer as it was, on a connection that ends with it.
fn bytes(answer: &Answer) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} Status\r\nconnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        if name != "connection" {
            head += &format!("{name}: {value}\r\n");
        }
    }
    [head.as_bytes(), b"\r\n", &answer.body].concat()
}
