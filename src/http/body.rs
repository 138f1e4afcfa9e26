//! A request's body, whole and within its limits.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::timeout;

/// Longest for a whole body, from its head on.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// It is, or says it is, larger than allowed.
    TooLarge,
    /// It did not come in time.
    TooSlow,
    /// The client hung up, or broke the framing.
    Broken,
}

/// Reads a body of at most `max` bytes. One that came with its head is handed
/// on as it lies in hyper's buffer.
pub async fn read(mut body: Incoming, max: usize) -> Result<Bytes, Unread> {
    // What Content-Length promises is refused before any of it is read.
    if usize::try_from(body.size_hint().lower()).map_or(true, |length| length > max) {
        return Err(Unread::TooLarge);
    }
    timeout(BODY_TIMEOUT, collect(&mut body, max))
        .await
        .unwrap_or(Err(Unread::TooSlow))
}

async fn collect(body: &mut Incoming, max: usize) -> Result<Bytes, Unread> {
    let Some(first) = data(body).await? else {
        return Ok(Bytes::new());
    };
    if first.len() > max {
        return Err(Unread::TooLarge);
    }
    if body.is_end_stream() {
        return Ok(first);
    }
    let mut whole = BytesMut::from(first);
    while let Some(next) = data(body).await? {
        if whole.len() + next.len() > max {
            return Err(Unread::TooLarge);
        }
        whole.extend_from_slice(&next);
    }
    Ok(whole.freeze())
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
