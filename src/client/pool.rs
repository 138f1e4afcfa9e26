//! Connections that are kept.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::connection::{Connection, connect};
use super::{ClientError, HttpAnswer, HttpRequest};
use crate::config::RemoteServer;

/// Asks one server.
pub(crate) struct HttpClient {
    server: RemoteServer,
    /// Requests under way. There are no more connections than that: a new one is made only for a
    /// request that finds none idle.
    requests: Semaphore,
    /// The one that was used last is taken first, so that others may be closed for want of use.
    idle: Mutex<Vec<Connection>>,
    timeout: Duration,
}

impl HttpClient {
    /// Asks this server, with so many requests at once at most; further ones wait. Each is answered
    /// within that time from when it is sent, or has failed.
    pub(crate) fn new(server: RemoteServer, requests_max: usize, timeout: Duration) -> Self {
        Self {
            server,
            requests: Semaphore::new(requests_max),
            idle: Mutex::default(),
            timeout,
        }
    }

    /// The answer, whatever its status is. The request may have been sent twice.
    pub(crate) async fn ask(&self, request: &HttpRequest) -> Result<HttpAnswer, ClientError> {
        let request = request.to(&self.server)?;
        // It is never closed.
        let _permit = self.requests.acquire().await;
        let answer = timeout(self.timeout, self.ask_over_any(request)).await;
        answer.unwrap_or(Err(ClientError::Late(self.timeout)))
    }

    async fn ask_over_any(&self, request: Request<Full<Bytes>>) -> Result<HttpAnswer, ClientError> {
        while let Some(kept) = self.kept() {
            // The server may have closed it at any moment since.
            if let Ok(answer) = self.ask_over(kept, request.clone()).await {
                return Ok(answer);
            }
        }
        self.ask_over(connect(&self.server).await?, request).await
    }

    async fn ask_over(
        &self,
        mut connection: Connection,
        request: Request<Full<Bytes>>,
    ) -> Result<HttpAnswer, ClientError> {
        connection.ready().await.map_err(ClientError::Broken)?;
        let response = connection.send_request(request).await;
        let answer = HttpAnswer::read(response.map_err(ClientError::Broken)?).await?;
        if !connection.is_closed() {
            self.idle().push(connection);
        }
        Ok(answer)
    }

    /// One that seems to be open still; those that are not go.
    fn kept(&self) -> Option<Connection> {
        let mut idle = self.idle();
        while let Some(connection) = idle.pop() {
            if !connection.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
