//! When a batch is written: limits in rows, bytes and age. Pure, no clock of its own.

use std::time::{Duration, Instant};

/// A batch of fewer rows than this says that load is low, and the next one does not wait to fill:
/// there is nothing to gain by it.
const LOW_LOAD_ROWS: usize = 256;

/// The bounds of one batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchLimits {
    /// Maximum of rows.
    pub rows: usize,
    /// Maximum of bytes of tickets.
    pub bytes: usize,
    /// Maximum wait to fill while tickets keep coming.
    pub age: Duration,
}

/// What is gathered for the next transaction. The first item always fits.
#[derive(Debug)]
pub(super) struct Batch<T> {
    limits: BatchLimits,
    items: Vec<T>,
    rows: usize,
    bytes: usize,
    since: Option<Instant>,
    last_rows: usize,
    complete: bool,
}

impl<T> Batch<T> {
    /// An empty batch.
    pub(super) fn new(limits: BatchLimits) -> Self {
        Self {
            limits,
            items: Vec::new(),
            rows: 0,
            bytes: 0,
            since: None,
            last_rows: 0,
            complete: false,
        }
    }

    /// Adds an item that stands for so many rows and bytes.
    pub(super) fn push(&mut self, item: T, rows: usize, bytes: usize, now: Instant) {
        self.since.get_or_insert(now);
        self.items.push(item);
        self.rows += rows;
        self.bytes += bytes;
    }

    /// Whether no more should be added before it is taken.
    pub(super) fn is_full(&self) -> bool {
        self.rows >= self.limits.rows || self.bytes >= self.limits.bytes
    }

    /// Sets whether nothing more can be delivered before something is stored: then there is nothing
    /// to wait for.
    pub(super) fn complete(&mut self, complete: bool) {
        self.complete = complete;
    }

    /// When its first item came; none while it is empty.
    pub(super) fn begun(&self) -> Option<Instant> {
        self.since
    }

    /// When it should be written; none while it is empty. A time that has passed means now.
    pub(super) fn due(&self) -> Option<Instant> {
        let since = self.since?;
        if self.cannot_grow() || self.last_rows < LOW_LOAD_ROWS {
            return Some(since);
        }
        Some(since + self.limits.age)
    }

    /// How much longer than necessary its COPY may take: not at all when it cannot grow, as more is
    /// waiting then; else half the age, which under load is less than the next batch takes to fill.
    pub(super) fn pacing_budget(&self) -> Duration {
        if self.cannot_grow() {
            Duration::ZERO
        } else {
            self.limits.age / 2
        }
    }

    fn cannot_grow(&self) -> bool {
        self.complete || self.is_full()
    }

    /// Takes what was gathered, and starts over.
    pub(super) fn take(&mut self) -> Vec<T> {
        self.last_rows = self.rows;
        self.rows = 0;
        self.bytes = 0;
        self.since = None;
        std::mem::take(&mut self.items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_millis(10);

    fn batch() -> Batch<u32> {
        Batch::new(BatchLimits {
            rows: 1000,
            bytes: 100_000,
            age: AGE,
        })
    }

    #[test]
    fn an_empty_batch_is_never_due() {
        assert_eq!(batch().due(), None);
    }

    #[test]
    fn at_low_load_it_is_due_at_once() {
        let now = Instant::now();
        let mut batch = batch();
        batch.push(1, 1, 100, now);
        assert_eq!(batch.due(), Some(now));
    }

    #[test]
    fn at_high_load_it_waits_for_its_age_or_a_limit() {
        let now = Instant::now();
        let mut batch = batch();
        batch.push(1, LOW_LOAD_ROWS, 100, now);
        assert_eq!(batch.take(), [1]);

        batch.push(2, 1, 100, now);
        assert_eq!(batch.due(), Some(now + AGE));
        batch.push(3, 1, 100, now + AGE / 2);
        assert_eq!(batch.due(), Some(now + AGE), "the age is the oldest item's");

        batch.push(4, 998, 100, now + AGE / 2);
        assert!(batch.is_full());
        assert_eq!(batch.due(), Some(now));
    }

    #[test]
    fn only_a_batch_that_is_not_full_is_paced() {
        let mut batch = batch();
        batch.push(1, 999, 100, Instant::now());
        assert_eq!(batch.pacing_budget(), AGE / 2);
        batch.push(2, 1, 100, Instant::now());
        assert_eq!(batch.pacing_budget(), Duration::ZERO);
    }

    #[test]
    fn a_batch_does_not_wait_for_what_cannot_come() {
        let now = Instant::now();
        let mut batch = batch();
        batch.push(1, LOW_LOAD_ROWS, 100, now);
        assert_eq!(batch.take(), [1]);

        batch.push(2, 1, 100, now);
        batch.complete(true);
        assert_eq!(
            (batch.due(), batch.pacing_budget()),
            (Some(now), Duration::ZERO)
        );
        assert!(!batch.is_full(), "more may be added, should it come");

        batch.complete(false);
        assert_eq!(
            (batch.due(), batch.pacing_budget()),
            (Some(now + AGE), AGE / 2)
        );
        batch.complete(true);
        assert_eq!(batch.take(), [2]);
        assert_eq!(batch.due(), None, "nothing is in it");
    }

    #[test]
    fn its_limits_are_exact() {
        for (rows, bytes, is_full) in [(999, 99_999, false), (1000, 1, true), (1, 100_000, true)] {
            let mut batch = batch();
            batch.push(1, rows - 1, bytes - 1, Instant::now());
            batch.push(2, 1, 1, Instant::now());
            assert_eq!(batch.is_full(), is_full, "{rows} rows, {bytes} bytes");
        }
    }

    #[test]
    fn load_is_high_from_256_rows_on() {
        for (rows, waits) in [(255, false), (256, true)] {
            let now = Instant::now();
            let mut batch = batch();
            batch.push(1, rows, 100, now);
            assert_eq!(batch.take(), [1]);
            batch.push(2, 1, 100, now);
            assert_eq!(batch.due() == Some(now + AGE), waits, "{rows}");
        }
    }

    #[test]
    fn bytes_are_a_limit_too_and_the_first_item_always_fits() {
        let mut batch = batch();
        batch.push(1, 1, 500_000, Instant::now());
        assert!(batch.is_full());
        assert_eq!(batch.take(), [1]);
        assert!(!batch.is_full());
        assert_eq!(batch.due(), None);
    }
}
