//! COPY data in chunks, as fast as they are taken or paced over a time.
//!
//! PostgreSQL works on a chunk as soon as it comes. Where several thousand rows
//! come at once, it takes a whole core for many milliseconds, and whoever shares
//! that core waits. Paced, the same rows take the gaps that others leave.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Interval, interval};

/// Large enough to be passed on without another copy, small enough to flow
/// while the rest is sent.
const CHUNK_BYTES_MAX: usize = 256 * 1024;

/// About half a millisecond's work for PostgreSQL: smaller chunks would only be
/// more calls.
const PACED_BYTES_MIN: usize = 32 * 1024;

/// One paced chunk each; tokio's timer has no finer one.
const TICK: Duration = Duration::from_millis(1);

/// The chunks that are left.
pub(super) struct Chunks {
    rest: Bytes,
    bytes: usize,
    /// None: one chunk right after the other.
    ticks: Option<Interval>,
}

impl Chunks {
    /// Evenly over at most `pacing`; small data in less, down to no time at all.
    pub(super) fn new(data: Bytes, pacing: Duration) -> Self {
        let bytes = paced_bytes(data.len(), pacing);
        let ticks = bytes.map(|_| interval(TICK));
        Self {
            rest: data,
            bytes: bytes.unwrap_or(CHUNK_BYTES_MAX),
            ticks,
        }
    }

    /// The next chunk when its time has come; none after the last.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        if self.rest.is_empty() {
            return None;
        }
        if let Some(ticks) = &mut self.ticks {
            ticks.tick().await;
        }
        let bytes = self.rest.len().min(self.bytes);
        Some(self.rest.split_to(bytes))
    }
}

/// The size in which chunks of so much data, one a tick, fill at most `pacing`.
/// None if there is nothing to pace, or too much for it.
fn paced_bytes(data_bytes: usize, pacing: Duration) -> Option<usize> {
    let ticks = pacing.as_millis() / TICK.as_millis();
    let ticks = usize::try_from(ticks).ok().filter(|&ticks| ticks > 1)?;
    let bytes = data_bytes.div_ceil(ticks).max(PACED_BYTES_MIN);
    (bytes < data_bytes && bytes < CHUNK_BYTES_MAX).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const PACING: Duration = Duration::from_millis(20);

    #[test]
    fn chunks_fill_the_time_they_have_but_are_worth_a_call() {
        assert_eq!(paced_bytes(1_000_000, PACING), Some(50_000));
        assert_eq!(paced_bytes(1_000_001, PACING), Some(50_001));
        assert_eq!(paced_bytes(100_000, PACING), Some(PACED_BYTES_MIN));
    }

    #[test]
    fn nothing_is_paced_without_time_or_need() {
        for pacing in [Duration::ZERO, TICK] {
            assert_eq!(paced_bytes(1_000_000, pacing), None);
        }
        assert_eq!(paced_bytes(0, PACING), None);
        assert_eq!(paced_bytes(PACED_BYTES_MIN, PACING), None);
        assert_eq!(
            paced_bytes(PACED_BYTES_MIN + 1, PACING),
            Some(PACED_BYTES_MIN)
        );
        assert_eq!(paced_bytes(20 * CHUNK_BYTES_MAX, PACING), None);
        assert_eq!(
            paced_bytes(20 * (CHUNK_BYTES_MAX - 1), PACING),
            Some(CHUNK_BYTES_MAX - 1)
        );
    }

    /// How many chunks there are, and how long it took until the last one.
    async fn taken(data: &'static [u8], pacing: Duration) -> (usize, Duration) {
        let started = Instant::now();
        let mut chunks = Chunks::new(Bytes::from_static(data), pacing);
        let (mut count, mut joined) = (0, Vec::new());
        while let Some(chunk) = chunks.next().await {
            count += 1;
            joined.extend_from_slice(&chunk);
        }
        assert_eq!(joined, data);
        (count, started.elapsed())
    }

    #[tokio::test]
    async fn the_chunks_are_the_data_one_each_tick() {
        static DATA: [u8; 1_000_000] = {
            let mut data = [0; 1_000_000];
            data[600_000] = 1;
            data
        };
        let (count, time) = taken(&DATA, PACING).await;
        assert_eq!(count, 20);
        assert!(time >= 19 * TICK, "{time:?}");
        assert_eq!(taken(&DATA, Duration::ZERO).await.0, 4);
        assert_eq!(taken(&[], PACING).await.0, 0);
    }
}
