//! A request's body, whole and within its limits.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
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

/// How much of a body has come.
pub enum Begun {
    /// All of it.
    Whole(Bytes),
    /// This much.
    Partly(Bytes),
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

    /// What is there of a body. One that came with its head is all there, as it
    /// lies in hyper's buffer.
    pub fn begin(&self, body: &mut Incoming) -> Result<Begun, Unread> {
        // What Content-Length promises is refused before any of it is read.
        if usize::try_from(body.size_hint().lower()).map_or(true, |length| length > self.max) {
            return Err(Unread::TooLarge);
        }
        match data(body).now_or_never() {
            Some(Ok(Some(first))) if !body.is_end_stream() => {
                self.fitting(first).map(Begun::Partly)
            }
            Some(whole) => self.fitting(whole?.unwrap_or_default()).map(Begun::Whole),
            None => Ok(Begun::Partly(Bytes::new())),
        }
    }

    /// Waits for the rest of a body.
    pub async fn finish(&self, first: Bytes, rest: Incoming) -> Result<Bytes, Unread> {
        let collected = timeout(BODY_TIMEOUT, self.collect(first, rest)).await;
        collected.unwrap_or(Err(Unread::TooSlow))
    }

    async fn collect(&self, mut first: Bytes, mut rest: Incoming) -> Result<Bytes, Unread> {
        if first.is_empty() {
            match data(&mut rest).await? {
                Some(data) if !rest.is_end_stream() => first = self.fitting(data)?,
                whole => return self.fitting(whole.unwrap_or_default()),
            }
        }
        let _place = self
            .partial
            .try_acquire()
            .map_err(|_full| Unread::TooMany)?;
        let mut whole = BytesMut::from(first);
        while let Some(next) = data(&mut rest).await? {
            if whole.len() + next.len() > self.max {
                return Err(Unread::TooLarge);
            }
            whole.extend_from_slice(&next);
        }
        Ok(whole.freeze())
    }

    fn fitting(&self, data: Bytes) -> Result<Bytes, Unread> {
        if data.len() > self.max {
            return Err(Unread::TooLarge);
        }
        Ok(data)
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
