//! One attempt to send one file.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::anyhow;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::filing::{REJECTED, SENT, file_away};
use super::issued::issued_at;
use super::key::ticket_key;
use super::outgoing::{OutgoingFile, TICKET_BYTES_MAX};
use super::pace::Trouble;
use super::verdict::Verdict;
use crate::client::{ClientError, HttpAnswer, HttpClient, HttpRequest};
use crate::config::{RemoteServer, RemoteSettings, SendSettings};

/// Maximum wait for an answer: a ticketd gives a body 10 s, and a confirm 5 s by default.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Sends files.
pub(super) struct FileSender {
    client: HttpClient,
    remote: RemoteSettings,
    /// `Bearer …`, as it was last read.
    authorization: Mutex<Option<Arc<str>>>,
    content_type: String,
    key_prefix: String,
    moves: bool,
}

/// How an attempt ended.
#[derive(Debug)]
pub(super) enum Attempt {
    /// It is a ticket of this id.
    Accepted(Uuid),
    /// It can be none, for this reason.
    Rejected(String),
    /// It is not there any more.
    Vanished,
    /// It cannot be read, or is being written, and the server was not asked.
    Unreadable(String),
    /// It was not taken, or could not be moved.
    Failed(Trouble, String),
}

impl FileSender {
    pub(super) fn new(settings: &SendSettings, server: RemoteServer) -> anyhow::Result<Self> {
        // One more, to find out whether an outage is over while all others still wait in it.
        let client = HttpClient::new(server, usize::from(settings.inflight) + 1, ANSWER_TIMEOUT);
        let sender = Self {
            client,
            remote: settings.remote.clone(),
            authorization: Mutex::default(),
            content_type: settings.content_type.clone(),
            key_prefix: settings.key_prefix.clone(),
            moves: settings.moves || settings.watch.is_some(),
        };
        sender.read_token().map_err(|why| anyhow!(why))?;
        Ok(sender)
    }

    /// Reads, sends and moves a file.
    pub(super) async fn attempt(self: Arc<Self>, path: PathBuf) -> Attempt {
        let follows_links = !self.moves;
        let read = spawn_blocking(move || OutgoingFile::read(path, follows_links)).await;
        let file = match read {
            Ok(Ok(file)) => file,
            Ok(Err(error)) if error.kind() == ErrorKind::NotFound => return Attempt::Vanished,
            Ok(Err(error)) => return Attempt::Unreadable(error.to_string()),
            Err(ended) => return Attempt::Unreadable(ended.to_string()),
        };
        let Some(body) = &file.body else {
            let why = format!("413 a ticket has at most {TICKET_BYTES_MAX} bytes");
            return self.rejected(file, too_large(), why).await;
        };
        let request = self.request(&file, HttpRequest::post("/ticket", body.clone()));
        let answer = match request {
            Ok(request) => self.client.ask(&request).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(answer) => self.answered(file, answer).await,
            Err(error) => failed(error),
        }
    }

    fn request(
        &self,
        file: &OutgoingFile,
        request: HttpRequest,
    ) -> Result<HttpRequest, ClientError> {
        let key = ticket_key(&self.key_prefix, file.name.as_encoded_bytes(), &file.hash);
        let mut request = request
            .with("idempotency-key", &key)?
            .with("content-type", &self.content_type)?;
        if let Some(time) = issued_at(file.modified, SystemTime::now()) {
            request = request.with("ticket-issued-at", &time)?;
        }
        let authorization = self.authorization.lock();
        let authorization = authorization
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        match authorization {
            Some(token) => request.with("authorization", &token),
            None => Ok(request),
        }
    }

    async fn answered(&self, file: OutgoingFile, answer: HttpAnswer) -> Attempt {
        match Verdict::of(&answer) {
            Verdict::Accepted(id) => self.accepted(file, id).await,
            Verdict::Rejected => {
                self.rejected(file, answer.body.to_vec(), answer.detail())
                    .await
            }
            Verdict::Unavailable => {
                Attempt::Failed(Trouble::Passing(answer.retry_after), answer.detail())
            }
            Verdict::Misdirected => {
                let token = self.read_token().err().map(|why| format!("; {why}"));
                let why = format!("{}{}", answer.detail(), token.unwrap_or_default());
                Attempt::Failed(Trouble::Lasting, why)
            }
        }
    }

    async fn accepted(&self, file: OutgoingFile, id: Uuid) -> Attempt {
        let moved = self.moved(file, SENT, None).await;
        moved.unwrap_or(Attempt::Accepted(id))
    }

    async fn rejected(&self, file: OutgoingFile, problem: Vec<u8>, why: String) -> Attempt {
        let moved = self.moved(file, REJECTED, Some(problem)).await;
        moved.unwrap_or(Attempt::Rejected(why))
    }

    /// Moves a file, if files are moved; what came of it, if it was not moved.
    async fn moved(
        &self,
        file: OutgoingFile,
        kind: &'static str,
        problem: Option<Vec<u8>>,
    ) -> Option<Attempt> {
        if !self.moves {
            return None;
        }
        let moved = spawn_blocking(move || file_away(&file, kind, problem.as_deref())).await;
        match moved {
            Ok(Ok(_path)) => None,
            // Somebody else has moved it.
            Ok(Err(error)) if error.kind() == ErrorKind::NotFound => None,
            Ok(Err(error)) if error.kind() == ErrorKind::ResourceBusy => Some(Attempt::Unreadable(
                "it was written while it was sent".into(),
            )),
            Ok(Err(error)) => Some(Attempt::Failed(Trouble::Lasting, error.to_string())),
            Err(ended) => Some(Attempt::Failed(Trouble::Lasting, ended.to_string())),
        }
    }

    /// Reads the token, which may be another by now.
    fn read_token(&self) -> Result<(), String> {
        let token = self.remote.token()?;
        let token = token.map(|token| format!("Bearer {token}").into());
        *self
            .authorization
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = token;
        Ok(())
    }
}

fn failed(error: ClientError) -> Attempt {
    let trouble = match &error {
        ClientError::Files(_) | ClientError::Untrusted(_) | ClientError::BadHeader(_) => {
            Trouble::Lasting
        }
        _ if error.wants_certificate() => Trouble::Lasting,
        _ => Trouble::Passing(None),
    };
    Attempt::Failed(trouble, format!("{:#}", anyhow!(error)))
}

/// The problem document of a file that no ticketd would take.
fn too_large() -> Vec<u8> {
    let detail = format!("a ticket has at most {TICKET_BYTES_MAX} bytes; this file was not sent");
    format!(
        "{{\"type\":\"about:blank\",\"title\":\"Payload Too Large\",\"status\":413,\"detail\":\"{detail}\"}}"
    )
    .into_bytes()
}
