//! A request's body, complete and within its limits.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::task::yield_now;
use tokio::time::timeout;

use crate::coding::{BrokenBody, Coding, DecodeError, Decoder};

/// The maximum time for a body, from its head on.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The maximum time that a body waits to be decoded, and is decoded.
const DECODE_TIMEOUT: Duration = Duration::from_secs(10);

/// The memory that bodies may hold while they are read or wait to be decoded; all clones share one
/// budget.
#[derive(Clone)]
pub(crate) struct Bodies {
    bytes_max: usize,
    /// The bytes left for bodies that come in pieces: slow senders could otherwise
    /// hold the largest body on every connection.
    budget: Arc<Semaphore>,
    /// Held while a body is decoded: one after the other, they hold the memory of one on each worker.
    decoding: Arc<Mutex<()>>,
}

/// The received part of a body, charged to the budget until it is dropped.
struct Partial<'a> {
    budget: &'a Semaphore,
    charge: SemaphorePermit<'a>,
    bytes: BytesMut,
}

/// How much of a body is there at first.
pub(crate) enum BodyStart {
    /// All of it.
    Complete(Bytes),
    /// This much.
    Partial(Bytes),
}

/// Why there is no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// It is, or says it is, larger than allowed.
    TooLarge,
    /// It did not arrive in time.
    Timeout,
    /// The client hung up, or broke the framing.
    Incomplete,
    /// Unfinished bodies hold all that they may together.
    TooMany,
    /// It is not in the coding that its head says.
    Broken(BrokenBody),
}

impl Bodies {
    /// Bodies of at most `bytes_max` each, and `total` bytes of unfinished ones.
    pub(crate) fn new(bytes_max: usize, total: usize) -> Self {
        Self {
            bytes_max,
            budget: Arc::new(Semaphore::new(total.min(Semaphore::MAX_PERMITS))),
            decoding: Arc::default(),
        }
    }

    /// The same for another worker: the budget is one, but each decodes by itself.
    pub(crate) fn for_worker(&self) -> Self {
        Self {
            decoding: Arc::default(),
            ..self.clone()
        }
    }

    /// The largest body, in bytes.
    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// What is there of a body. One that came with its head is complete, as it
    /// lies in hyper's buffer.
    pub(crate) fn start(&self, body: &mut Incoming) -> Result<BodyStart, BodyError> {
        // A Content-Length that is too large is rejected before any of it is read.
        if usize::try_from(body.size_hint().lower()).map_or(true, |length| length > self.bytes_max)
        {
            return Err(BodyError::TooLarge);
        }
        match data(body).now_or_never() {
            Some(Ok(Some(first))) if !body.is_end_stream() => {
                self.fitting(first).map(BodyStart::Partial)
            }
            Some(whole) => self
                .fitting(whole?.unwrap_or_default())
                .map(BodyStart::Complete),
            None => Ok(BodyStart::Partial(Bytes::new())),
        }
    }

    /// Waits for the rest of a body.
    pub(crate) async fn finish(&self, first: Bytes, rest: Incoming) -> Result<Bytes, BodyError> {
        let collected = timeout(BODY_TIMEOUT, self.collect(first, rest)).await;
        collected.unwrap_or(Err(BodyError::Timeout))
    }

    /// A body as UTF-8, which it is already if its form is plain. Others are served between its pieces,
    /// and it waits for those that came before it.
    pub(crate) async fn decode(&self, coding: Coding, body: Bytes) -> Result<Bytes, BodyError> {
        if coding.is_plain() {
            return Ok(body);
        }
        let decoded = timeout(DECODE_TIMEOUT, self.decode_in_turn(coding, &body)).await;
        decoded.unwrap_or(Err(BodyError::TooMany))
    }

    async fn decode_in_turn(&self, coding: Coding, body: &[u8]) -> Result<Bytes, BodyError> {
        let _charge = charge(&self.budget, body.len())?;
        let _turn = self.decoding.lock().await;
        let mut decoder = Decoder::new(coding, self.bytes_max);
        let (mut rest, mut out) = (body, Vec::new());
        loop {
            let step = decoder.push(rest, &mut out)?;
            rest = rest.get(step.read..).unwrap_or_default();
            if rest.is_empty() && !step.has_more {
                break;
            }
            yield_now().await;
        }
        decoder.finish()?;
        Ok(out.into())
    }

    async fn collect<B>(&self, mut first: Bytes, mut rest: B) -> Result<Bytes, BodyError>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        if first.is_empty() {
            match data(&mut rest).await? {
                Some(data) if !rest.is_end_stream() => first = self.fitting(data)?,
                whole => return self.fitting(whole.unwrap_or_default()),
            }
        }
        let mut partial = Partial::new(&self.budget)?;
        partial.add(&first)?;
        // It would keep the whole of hyper's buffer.
        drop(first);
        while let Some(next) = data(&mut rest).await? {
            if partial.bytes.len() + next.len() > self.bytes_max {
                return Err(BodyError::TooLarge);
            }
            partial.add(&next)?;
        }
        Ok(partial.bytes.freeze())
    }

    fn fitting(&self, data: Bytes) -> Result<Bytes, BodyError> {
        if data.len() > self.bytes_max {
            return Err(BodyError::TooLarge);
        }
        Ok(data)
    }
}

impl<'a> Partial<'a> {
    fn new(budget: &'a Semaphore) -> Result<Self, BodyError> {
        let charge = charge(budget, 0)?;
        let bytes = BytesMut::new();
        Ok(Self {
            budget,
            charge,
            bytes,
        })
    }

    fn add(&mut self, piece: &[u8]) -> Result<(), BodyError> {
        self.charge.merge(charge(self.budget, piece.len())?);
        self.bytes.extend_from_slice(piece);
        Ok(())
    }
}

/// Takes so many bytes from the budget.
fn charge(budget: &Semaphore, bytes: usize) -> Result<SemaphorePermit<'_>, BodyError> {
    let bytes = u32::try_from(bytes).map_err(|_huge| BodyError::TooLarge)?;
    let charge = budget.try_acquire_many(bytes);
    charge.map_err(|_full| BodyError::TooMany)
}

impl From<DecodeError> for BodyError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::TooLarge => Self::TooLarge,
            DecodeError::Broken(broken) => Self::Broken(broken),
        }
    }
}

/// The next piece; trailers are passed over.
pub(super) async fn data<B>(body: &mut B) -> Result<Option<Bytes>, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
{
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(|_broken| BodyError::Incomplete)?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coding::ContentCoding;
    use futures_util::stream::{Stream, iter};
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use std::convert::Infallible;

    /// Pieces of these lengths, and then no end.
    fn unfinished(
        lengths: &[usize],
    ) -> StreamBody<impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Unpin + use<>> {
        let piece = |&length: &usize| Ok(Frame::data(Bytes::from(vec![b'x'; length])));
        let pieces: Vec<_> = lengths.iter().map(piece).collect();
        StreamBody::new(futures_util::StreamExt::chain(
            iter(pieces),
            futures_util::stream::pending(),
        ))
    }

    #[tokio::test]
    async fn a_body_is_charged_what_has_come_until_it_ends_or_is_given_up() {
        let bodies = Bodies::new(100, 250);
        let read = |lengths| Box::pin(bodies.collect(Bytes::new(), unfinished(lengths)));
        let mut stalled = read(&[60, 39]);
        assert!((&mut stalled).now_or_never().is_none());
        assert_eq!(bodies.budget.available_permits(), 151);
        drop(stalled);
        assert_eq!(bodies.budget.available_permits(), 250);
        let whole = http_body_util::Full::new(Bytes::from_static(b"whole"));
        let read = bodies.collect(Bytes::from_static(b"the "), whole).await;
        assert_eq!(read, Ok(Bytes::from_static(b"the whole")));
        assert_eq!(bodies.budget.available_permits(), 250);
    }

    #[tokio::test]
    async fn unfinished_bodies_are_bounded_together_over_all_workers() {
        let bodies = Bodies::new(100, 250);
        let workers = [bodies.clone(), bodies];
        let read = |worker: usize, lengths| {
            Box::pin(workers[worker].collect(Bytes::new(), unfinished(lengths)))
        };
        let (mut one, mut two) = (read(0, &[100]), read(1, &[50, 50]));
        assert!((&mut one).now_or_never().is_none());
        assert!((&mut two).now_or_never().is_none());
        let mut over = read(0, &[50, 1]);
        assert_eq!((&mut over).now_or_never(), Some(Err(BodyError::TooMany)));
        let mut fits = read(1, &[49, 1]);
        assert!((&mut fits).now_or_never().is_none());
        let mut none_left = read(0, &[1]);
        assert_eq!(
            (&mut none_left).now_or_never(),
            Some(Err(BodyError::TooMany))
        );
        drop(one);
        assert!(read(0, &[60, 40]).now_or_never().is_none());
    }

    /// A body that becomes 1 MiB takes many steps, between which everything else goes on, and others
    /// wait for it at the cost of what they are before.
    #[tokio::test]
    async fn bodies_are_decoded_in_turn_and_in_steps() {
        let coding = Coding {
            content: Some(ContentCoding::Zstd),
            ..Coding::default()
        };
        let text = vec![b'x'; 1 << 20];
        let body = Bytes::from(zstd::encode_all(&text[..], 1).expect("memory"));
        let bodies = Bodies::new(text.len(), 2 * body.len() + 1);
        let decode = |bodies: Bodies| {
            let body = body.clone();
            Box::pin(async move { bodies.decode(coding, body).await })
        };
        let (mut one, mut two) = (decode(bodies.clone()), decode(bodies.clone()));
        assert!((&mut one).now_or_never().is_none());
        for _ in 0..32 {
            assert!((&mut two).now_or_never().is_none());
            assert!((&mut one).now_or_never().is_none());
        }
        assert_eq!(bodies.budget.available_permits(), 1);
        let over = decode(bodies.for_worker()).await;
        assert_eq!(over, Err(BodyError::TooMany));
        assert_eq!(one.await.as_deref(), Ok(&text[..]));
        assert_eq!(two.await.as_deref(), Ok(&text[..]));
        assert_eq!(bodies.budget.available_permits(), 2 * body.len() + 1);
    }

    #[tokio::test]
    async fn the_largest_body_is_exact() {
        let bodies = Bodies::new(100, 1000);
        for (lengths, read) in [
            (&[50, 50][..], None),
            (&[50, 51], Some(Err(BodyError::TooLarge))),
            (&[101], Some(Err(BodyError::TooLarge))),
        ] {
            let body = Box::pin(bodies.collect(Bytes::new(), unfinished(lengths)));
            assert_eq!(body.now_or_never(), read, "{lengths:?}");
        }
    }
}
