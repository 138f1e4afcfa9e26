//! A request's body, whole and within its limits.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Longest for a whole body, from its head on.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What bodies may hold while they are read.
pub struct Bodies {
    max: usize,
    /// For bodies that come in pieces, each counted at its largest: slow
    /// senders could otherwise hold that much on every connection.
    partial: Semaphore,
}

/// Why there is no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// It is, or says it is, larger than allowed.
    TooLarge,
    /// It did not come in time.
    TooSlow,
    /// The client hung up, or broke the framing.
    Broken,
    /// Too many others are being read.
    TooMany,
}

impl Bodies {
    /// Bodies of at most `max` bytes each, and `total` bytes of unfinished ones.
    pub fn new(max: usize, total: usize) -> Self {
        let partial = Semaphore::new((total / max.max(1)).max(1));
        Self { max, partial }
    }

    /// The largest body, in bytes.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Reads a body. One that came with its head is handed on as it lies in
    /// hyper's buffer.
    pub async fn read(&self, mut body: Incoming) -> Result<Bytes, Unread> {
        // What Content-Length promises is refused before any of it is read.
        if usize::try_from(body.size_hint().lower()).map_or(true, |length| length > self.max) {
            return Err(Unread::TooLarge);
        }
        let collected = timeout(BODY_TIMEOUT, self.collect(&mut body)).await;
        collected.unwrap_or(Err(Unread::TooSlow))
    }

    async fn collect(&self, body: &mut Incoming) -> Result<Bytes, Unread> {
        let Some(first) = data(body).await? else {
            return Ok(Bytes::new());
        };
        if first.len() > self.max {
            return Err(Unread::TooLarge);
        }
        if body.is_end_stream() {
            return Ok(first);
        }
        let _place = self
            .partial
            .try_acquire()
            .map_err(|_full| Unread::TooMany)?;
        let mut whole = BytesMut::from(first);
        while let Some(next) = data(body).await? {
            if whole.len() + next.len() > self.max {
                return Err(Unread::TooLarge);
            }
            whole.extend_from_slice(&next);
        }
        Ok(whole.freeze())
    }
}

/// The next piece; trailers are passed over.
async fn data(body: &mut Incoming) -> Result<Option<Bytes>, Unread> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(|_broken| Unread::Broken)?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}
