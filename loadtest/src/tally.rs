//! What came of the requests: counts, latencies, and the tickets whose outcome the client does not know.

use std::collections::BTreeMap;

use anyhow::Result;
use hdrhistogram::Histogram;

use crate::tickets::numbers_of;

/// The finest latency told apart, and the longest recorded; longer ones count as the longest.
const LATENCY_NANOS_MIN: u64 = 1_000;
const LATENCY_NANOS_MAX: u64 = 600_000_000_000;

/// The counts of one worker, or of all.
pub(crate) struct Tally {
    /// Requests written.
    pub(crate) sent: u64,
    /// Requests answered 202.
    pub(crate) accepted: u64,
    /// All answers, by status code.
    pub(crate) statuses: BTreeMap<u16, u64>,
    /// Failures of connections, by kind.
    pub(crate) errors: BTreeMap<&'static str, u64>,
    /// Arrivals of an open loop for which no connection was free before the end.
    pub(crate) unsent: u64,
    /// Numbers of the tickets that were sent and not answered 202: they may have been stored or not.
    pub(crate) doubtful: Vec<u64>,
    /// Nanoseconds from the time a request was due to its 202, of requests due after the warm-up.
    pub(crate) latency_nanos: Histogram<u64>,
    /// Nanoseconds from the start to the last answer.
    pub(crate) last_answer_nanos: u64,
}

impl Tally {
    /// All zero.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            sent: 0,
            accepted: 0,
            statuses: BTreeMap::new(),
            errors: BTreeMap::new(),
            unsent: 0,
            doubtful: Vec::new(),
            latency_nanos: Histogram::new_with_bounds(LATENCY_NANOS_MIN, LATENCY_NANOS_MAX, 3)?,
            last_answer_nanos: 0,
        })
    }

    /// Counts one answer to a ticket, that came at `now_nanos`; its latency only if that is to be counted.
    pub(crate) fn answered(
        &mut self,
        status: u16,
        number: u64,
        latency_nanos: Option<u64>,
        now_nanos: u64,
    ) {
        self.last_answer_nanos = now_nanos;
        if status == 202 {
            self.accepted += 1;
            if let Some(nanos) = latency_nanos {
                self.latency_nanos.saturating_record(nanos);
            }
        } else {
            self.doubtful.push(number);
        }
        *self.statuses.entry(status).or_default() += 1;
    }

    /// The same in tickets, of requests that had so many each.
    pub(crate) fn of_tickets(mut self, tickets: u64) -> Self {
        self.sent *= tickets;
        self.accepted *= tickets;
        self.unsent *= tickets;
        let doubtful = std::mem::take(&mut self.doubtful).into_iter();
        self.doubtful = doubtful
            .flat_map(|request| numbers_of(request, tickets))
            .collect();
        self
    }

    /// Counts one failure of a connection.
    pub(crate) fn failed(&mut self, kind: &'static str) {
        *self.errors.entry(kind).or_default() += 1;
    }

    /// Adds another worker's counts.
    pub(crate) fn add(&mut self, other: &Self) -> Result<()> {
        self.sent += other.sent;
        self.accepted += other.accepted;
        self.unsent += other.unsent;
        self.doubtful.extend_from_slice(&other.doubtful);
        self.last_answer_nanos = self.last_answer_nanos.max(other.last_answer_nanos);
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        for (kind, count) in &other.errors {
            *self.errors.entry(kind).or_default() += count;
        }
        self.latency_nanos.add(&other.latency_nanos)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_warm_up_counts_but_has_no_latency() -> Result<()> {
        let mut tally = Tally::new()?;
        tally.answered(202, 1, None, 5_000_000);
        assert_eq!((tally.accepted, tally.latency_nanos.len()), (1, 0));
        tally.answered(202, 2, Some(2_000_000), 7_000_000);
        assert_eq!((tally.accepted, tally.latency_nanos.len()), (2, 1));
        assert_eq!(tally.last_answer_nanos, 7_000_000);
        Ok(())
    }
}
