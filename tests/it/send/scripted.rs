//! A server that answers as a test says.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A server that answers each request as it is told, and remembers them.
pub(super) struct Scripted {
    pub(super) url: String,
    /// The heads of the requests so far, in lower case.
    pub(super) requests: Arc<Mutex<Vec<String>>>,
}

/// What is answered to a request, by its number.
pub(super) type Script = fn(usize) -> String;

impl Scripted {
    pub(super) async fn new(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let heard = requests.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, script, heard.clone()));
            }
        });
        Self { url, requests }
    }

    pub(super) fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

/// Reads one request and answers it; an empty answer ends the connection instead.
async fn answer(mut stream: TcpStream, script: Script, requests: Arc<Mutex<Vec<String>>>) {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        let length = text.split_once("content-length: ");
        let length = length.and_then(|(_, rest)| rest.split("\r\n").next()?.parse::<usize>().ok());
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && body.len() >= length.unwrap_or(0)
        {
            let number = {
                let mut requests = requests.lock().unwrap();
                requests.push(head.to_owned());
                requests.len() - 1
            };
            let _gone = stream.write_all(script(number).as_bytes()).await;
            return;
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    }
}

pub(super) fn response(status: &str, kind: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

pub(super) fn problem(status: &str, detail: &str) -> String {
    let body = format!("{{\"detail\":\"{detail}\"}}");
    response(status, "application/problem+json", &body)
}

pub(super) fn accepted() -> String {
    let body = format!("{{\"id\":\"{}\"}}", uuid::Uuid::now_v7());
    response("202 Accepted", "application/json", &body)
}
