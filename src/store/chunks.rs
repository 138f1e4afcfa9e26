//! COPY data in pieces, as fast as they are taken or spread over a time.
//!
//! PostgreSQL works on a piece as soon as it comes. Where several thousand rows
//! come at once, it takes a whole core for many milliseconds, and whoever shares
//! that core waits. Spread out, the same rows take the gaps that others leave.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Interval, interval};

/// Large enough to be passed on without another copy, small enough to flow
/// while the rest is sent.
const BYTES_MAX: usize = 256 * 1024;

/// About half a millisecond's work for PostgreSQL: smaller pieces would only be
/// more calls.
const SPREAD_BYTES_MIN: usize = 32 * 1024;

/// One piece each; tokio's timer has no finer one.
const SPREAD_INTERVAL: Duration = Duration::from_millis(1);

/// The pieces that are left.
pub struct Pieces {
    rest: Bytes,
    bytes: usize,
    /// None: one piece right after the other.
    turns: Option<Interval>,
}

impl Pieces {
    /// Evenly over at most `spread`; small data in less, down to no time at all.
    pub fn new(data: Bytes, spread: Duration) -> Self {
        let bytes = piece_bytes(data.len(), spread);
        let turns = bytes.map(|_| interval(SPREAD_INTERVAL));
        Self {
            rest: data,
            bytes: bytes.unwrap_or(BYTES_MAX),
            turns,
        }
    }

    /// The next piece when its time has come; none after the last.
    pub async fn next(&mut self) -> Option<Bytes> {
        if self.rest.is_empty() {
            return None;
        }
        if let Some(turns) = &mut self.turns {
            turns.tick().await;
        }
        let bytes = self.rest.len().min(self.bytes);
        Some(self.rest.split_to(bytes))
    }
}

/// The size in which pieces of so much data, one an interval, fill at most
/// `spread`. None if there is nothing to spread, or too much for it.
fn piece_bytes(data_bytes: usize, spread: Duration) -> Option<usize> {
    let turns = spread.as_millis() / SPREAD_INTERVAL.as_millis();
    let turns = usize::try_from(turns).ok().filter(|&turns| turns > 1)?;
    let bytes = data_bytes.div_ceil(turns).max(SPREAD_BYTES_MIN);
    (bytes < data_bytes && bytes < BYTES_MAX).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const SPREAD: Duration = Duration::from_millis(20);

    #[test]
    fn pieces_fill_the_time_they_have_but_are_worth_a_call() {
        assert_eq!(piece_bytes(1_000_000, SPREAD), Some(50_000));
        assert_eq!(piece_bytes(1_000_001, SPREAD), Some(50_001));
        assert_eq!(piece_bytes(100_000, SPREAD), Some(SPREAD_BYTES_MIN));
    }

    #[test]
    fn nothing_is_spread_without_time_or_need() {
        for spread in [Duration::ZERO, SPREAD_INTERVAL] {
            assert_eq!(piece_bytes(1_000_000, spread), None);
        }
        assert_eq!(piece_bytes(0, SPREAD), None);
        assert_eq!(piece_bytes(SPREAD_BYTES_MIN, SPREAD), None);
        assert_eq!(
            piece_bytes(SPREAD_BYTES_MIN + 1, SPREAD),
            Some(SPREAD_BYTES_MIN)
        );
        assert_eq!(piece_bytes(20 * BYTES_MAX, SPREAD), None);
        assert_eq!(
            piece_bytes(20 * (BYTES_MAX - 1), SPREAD),
            Some(BYTES_MAX - 1)
        );
    }

    /// How many pieces there are, and how long it took until the last one.
    async fn taken(data: &'static [u8], spread: Duration) -> (usize, Duration) {
        let started = Instant::now();
        let mut pieces = Pieces::new(Bytes::from_static(data), spread);
        let (mut count, mut joined) = (0, Vec::new());
        while let Some(piece) = pieces.next().await {
            count += 1;
            joined.extend_from_slice(&piece);
        }
        assert_eq!(joined, data);
        (count, started.elapsed())
    }

    #[tokio::test]
    async fn the_pieces_are_the_data_one_each_turn() {
        static DATA: [u8; 1_000_000] = {
            let mut data = [0; 1_000_000];
            data[600_000] = 1;
            data
        };
        let (count, time) = taken(&DATA, SPREAD).await;
        assert_eq!(count, 20);
        assert!(time >= 19 * SPREAD_INTERVAL, "{time:?}");
        assert_eq!(taken(&DATA, Duration::ZERO).await.0, 4);
        assert_eq!(taken(&[], SPREAD).await.0, 0);
    }
}
