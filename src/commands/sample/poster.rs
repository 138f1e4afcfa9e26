//! Sends tickets until each is accepted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{info, warn};

use super::issued_at;
use super::shops::SampleTicket;
use crate::backoff::Backoff;
use crate::client::{ClientError, HttpAnswer, HttpClient, HttpRequest};
use crate::config::RemoteServer;

/// Tickets under way: enough for a thousand a second, and where none is taken no more are made up.
const INFLIGHT_MAX: usize = 64;

/// Maximum wait for an answer: above what a ticketd waits for a confirm.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Sends tickets.
pub(super) struct Poster {
    way: Arc<Way>,
    /// Of each shop, or none.
    tokens: Vec<String>,
    /// Of all shops.
    token: Option<String>,
    posting: JoinSet<anyhow::Result<()>>,
    accepted: u64,
}

/// The way to a ticketd.
struct Way {
    client: HttpClient,
    /// Whether tickets are not taken.
    is_shut: AtomicBool,
}

impl Poster {
    /// Sends to that server, with a token for each shop, or one for all.
    pub(super) fn new(server: RemoteServer, tokens: Vec<String>, token: Option<String>) -> Self {
        Self {
            way: Arc::new(Way {
                client: HttpClient::new(server, INFLIGHT_MAX, ANSWER_TIMEOUT),
                is_shut: AtomicBool::new(false),
            }),
            tokens,
            token,
            posting: JoinSet::new(),
            accepted: 0,
        }
    }

    /// Whether one more may be begun.
    pub(super) fn has_room(&self) -> bool {
        self.posting.len() < INFLIGHT_MAX
    }

    /// Begins to send a ticket.
    pub(super) fn begin(&mut self, ticket: &SampleTicket) -> Result<(), ClientError> {
        let mut request = HttpRequest::post("/ticket", ticket.text.clone())
            .with("content-type", "text/plain; charset=utf-8")?
            .with("idempotency-key", &ticket.key)?
            .with("ticket-issued-at", &issued_at(ticket))?;
        if let Some(token) = self.tokens.get(ticket.shop).or(self.token.as_ref()) {
            request = request.with("authorization", &format!("Bearer {token}"))?;
        }
        self.posting.spawn(post(self.way.clone(), request));
        Ok(())
    }

    /// Waits until one is accepted; without end where none is under way. Fails where one never will be.
    pub(super) async fn next(&mut self) -> anyhow::Result<()> {
        match self.posting.join_next().await {
            Some(posted) => posted.context("a task ended")??,
            None => std::future::pending().await,
        }
        self.accepted += 1;
        Ok(())
    }

    /// Waits for all that are under way, or until it is told to stop.
    pub(super) async fn finish(
        &mut self,
        mut stop: impl Future<Output = ()> + Unpin,
    ) -> anyhow::Result<()> {
        while !self.posting.is_empty() {
            tokio::select! {
                posted = self.next() => posted?,
                () = &mut stop => break,
            }
        }
        Ok(())
    }

    /// How many were accepted.
    pub(super) fn accepted(&self) -> u64 {
        self.accepted
    }
}

/// Sends one ticket, as often as it takes.
async fn post(way: Arc<Way>, request: HttpRequest) -> anyhow::Result<()> {
    let mut backoff = Backoff::new();
    loop {
        let wait = match way.client.ask(&request).await {
            Ok(HttpAnswer { status: 202, .. }) => {
                way.open();
                return Ok(());
            }
            Ok(answer) if !passes(answer.status) => {
                bail!("a ticket is rejected: {}", answer.detail())
            }
            Ok(answer) => {
                way.shut(&answer.detail());
                answer.retry_after
            }
            Err(error @ (ClientError::Files(_) | ClientError::Untrusted(_))) => {
                return Err(error.into());
            }
            Err(error) => {
                way.shut(&format!("{:#}", anyhow::Error::from(error)));
                None
            }
        };
        sleep(backoff.next().max(wait.unwrap_or_default())).await;
    }
}

/// Whether a ticket that is answered so may be accepted later.
fn passes(status: u16) -> bool {
    matches!(status, 408 | 429 | 500..=599)
}

impl Way {
    fn shut(&self, why: &str) {
        if !self.is_shut.swap(true, Ordering::Relaxed) {
            warn!("tickets are not taken, and sent again until they are: {why}");
        }
    }

    fn open(&self) {
        if self.is_shut.swap(false, Ordering::Relaxed) {
            info!("tickets are taken again");
        }
    }
}
