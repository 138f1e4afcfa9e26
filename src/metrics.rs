//! Every metric's name, labels and buckets; nothing else names a metric, but for `process_*`, which a
//! library has.
//!
//! Names follow Prometheus' practice (<https://prometheus.io/docs/practices/naming/>):
//! base units, `_total` for counters, labels of a few fixed values. Handles are
//! made once and kept by the part that counts, so the hot paths look nothing up.

mod descriptions;
mod labels;
mod last_ticket;
mod link_guard;
mod prometheus;
mod route;
mod sources;
mod uncertain;

pub(crate) use labels::{FlushFailed, Handshake, PublishFailed, QueueLabel, Rejected, RouteLabel};
use last_ticket::LastTicket;
pub(crate) use link_guard::LinkGuard;
pub(crate) use prometheus::Prometheus;
pub(crate) use route::RouteMetrics;
pub(crate) use sources::{SourceCounters, SourceMetrics};
pub(crate) use uncertain::{Draining, UncertainGauge};

use std::time::Duration;

use ::metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};

use crate::config::{REVISION, VERSION};

/// How often histograms are folded into their buckets, so that they do not grow between scrapes.
pub(crate) const UPKEEP_EVERY: Duration = Duration::from_secs(1);

/// From a fast answer on loopback to the confirm deadline.
const LATENCY_SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
];
/// From a ticket that is stored at once to one that waited for PostgreSQL, which may take longer than
/// `HOLD_MAX`.
const END_TO_END_SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
    300.0, 1800.0,
];
/// Tickets in one message or transaction: powers of four.
const COUNTS: &[f64] = &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0];

/// The status codes of http's responses, each with a counter made at start.
const CODES: [u16; 14] = [
    200, 202, 400, 401, 403, 404, 405, 408, 413, 415, 429, 431, 500, 503,
];

/// Installs the process-wide recorder; fails if there is one already.
pub fn install() -> Result<Prometheus, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), LATENCY_SECONDS)?
        .set_buckets_for_metric(
            Matcher::Full("ticketd_end_to_end_seconds".into()),
            END_TO_END_SECONDS,
        )?
        .set_buckets_for_metric(Matcher::Suffix("_size".into()), COUNTS)?
        .set_buckets_for_metric(Matcher::Suffix("_rows".into()), COUNTS)?
        .install_recorder()?;
    descriptions::describe();
    gauge!("ticketd_build_info", "version" => VERSION, "revision" => REVISION).set(1.0);
    Ok(Prometheus::new(handle))
}

/// What http counts.
pub(crate) struct HttpMetrics {
    accepted: Counter,
    last: LastTicket,
    /// In the order of [`Rejected::ALL`].
    rejected: Vec<Counter>,
    /// In the order of [`Handshake::ALL`].
    handshakes: Vec<Counter>,
}

impl HttpMetrics {
    /// Makes the handles.
    pub(crate) fn new() -> Self {
        let rejected = |reason: &Rejected| {
            registered(counter!("ticketd_rejected_total", "reason" => reason.as_str()))
        };
        let shaken = |result: &Handshake| {
            let counter = counter!("ticketd_tls_handshakes_total", "result" => result.as_str());
            counter.increment(0);
            counter
        };
        Self {
            accepted: counter!("ticketd_accepted_total"),
            last: LastTicket::of_all(),
            rejected: Rejected::ALL.iter().map(rejected).collect(),
            handshakes: Handshake::ALL.iter().map(shaken).collect(),
        }
    }

    /// Counts a ticket that is answered 202 at this time, in µs since the Unix epoch.
    pub(crate) fn accepted(&self, now_us: i64) {
        self.accepted_many(1, now_us);
    }

    /// Counts tickets that are answered together.
    pub(crate) fn accepted_many(&self, tickets: u64, now_us: i64) {
        self.accepted.increment(tickets);
        self.last.note(now_us);
    }

    /// Counts a ticket that was not answered 202.
    pub(crate) fn rejected(&self, reason: Rejected) {
        self.rejected_many(1, reason);
    }

    /// Counts tickets that were not answered 202 together.
    pub(crate) fn rejected_many(&self, tickets: u64, reason: Rejected) {
        if let Some(counter) = self.rejected.get(reason as usize) {
            counter.increment(tickets);
        }
    }

    /// Counts a TLS handshake.
    pub(crate) fn shaken(&self, result: Handshake) {
        if let Some(counter) = self.handshakes.get(result as usize) {
            counter.increment(1);
        }
    }
}

/// A counter that is there before anything is counted.
fn registered(counter: Counter) -> Counter {
    counter.increment(0);
    counter
}

/// What the publisher counts.
pub(crate) struct PublishMetrics {
    /// Messages published.
    pub groups: Counter,
    /// Tickets in one message.
    pub group_size: Histogram,
    /// From publishing to confirm.
    pub confirm: Histogram,
    /// Tickets between arrival and confirm.
    pub inflight: Gauge,
    /// Links up.
    pub connected: Gauge,
    /// Links blocked.
    pub blocked: Gauge,
    /// In the order of [`PublishFailed::ALL`].
    failed: Vec<Counter>,
}

impl PublishMetrics {
    /// Makes the handles.
    pub(crate) fn new() -> Self {
        let failed = |reason: &PublishFailed| {
            registered(counter!("ticketd_publish_failed_total", "reason" => reason.as_str()))
        };
        Self {
            failed: PublishFailed::ALL.iter().map(failed).collect(),
            groups: counter!("ticketd_publish_groups_total"),
            group_size: histogram!("ticketd_publish_group_size"),
            confirm: histogram!("ticketd_publish_confirm_seconds"),
            inflight: gauge!("ticketd_inflight"),
            connected: gauge!("ticketd_amqp_connected", "role" => "publish"),
            blocked: gauge!("ticketd_amqp_blocked"),
        }
    }

    /// Counts a message that was not confirmed.
    pub(crate) fn failed(&self, reason: PublishFailed) {
        if let Some(counter) = self.failed.get(reason as usize) {
            counter.increment(1);
        }
    }
}

/// What the consumer and its writers count.
#[derive(Clone)]
pub(crate) struct StoreMetrics {
    /// New rows of valid tickets.
    pub valid: Counter,
    /// New rows of invalid tickets.
    pub invalid: Counter,
    /// Tickets that were stored before.
    pub duplicate: Counter,
    /// Tickets that went to `dead_tickets`.
    pub dead: Counter,
    /// Tickets in one transaction.
    pub batch_rows: Histogram,
    /// Reading tickets and building rows.
    pub encode: Histogram,
    /// COPY of the tickets.
    pub copy: Histogram,
    /// Products and dead tickets into their tables.
    pub merge: Histogram,
    /// COMMIT.
    pub commit: Histogram,
    /// From arrival to commit.
    pub end_to_end: Histogram,
    /// Connections up.
    pub pg_connected: Gauge,
    pg_refusing: Gauge,
    /// Links up.
    pub amqp_connected: Gauge,
    /// In the order of [`FlushFailed::ALL`].
    failed: Vec<Counter>,
}

impl StoreMetrics {
    /// Makes the handles.
    pub(crate) fn new() -> Self {
        let failed = |reason: &FlushFailed| {
            registered(counter!("ticketd_flush_failed_total", "reason" => reason.as_str()))
        };
        let stored = |result: &'static str| counter!("ticketd_stored_total", "result" => result);
        let stage = |stage: &'static str| histogram!("ticketd_flush_seconds", "stage" => stage);
        Self {
            failed: FlushFailed::ALL.iter().map(failed).collect(),
            valid: stored("valid"),
            invalid: stored("invalid"),
            duplicate: stored("duplicate"),
            dead: stored("dead"),
            batch_rows: histogram!("ticketd_batch_rows"),
            encode: stage("encode"),
            copy: stage("copy"),
            merge: stage("merge"),
            commit: stage("commit"),
            end_to_end: histogram!("ticketd_end_to_end_seconds"),
            pg_connected: gauge!("ticketd_pg_connected"),
            pg_refusing: gauge!("ticketd_pg_refusing"),
            amqp_connected: gauge!("ticketd_amqp_connected", "role" => "consume"),
        }
    }

    /// So many tickets more or less are held because the tables refuse them.
    pub(crate) fn refusing(&self, before: u32, now: u32) {
        self.pg_refusing
            .increment(f64::from(now) - f64::from(before));
    }

    /// Counts an attempt to store a batch that failed and is repeated.
    pub(crate) fn failed(&self, reason: FlushFailed) {
        if let Some(counter) = self.failed.get(reason as usize) {
            counter.increment(1);
        }
    }
}

/// How many messages wait in the queues of a consumer.
#[derive(Clone)]
pub(crate) struct QueueMetrics {
    /// In the order of [`QueueLabel::ALL`].
    waiting: Vec<Gauge>,
}

impl QueueMetrics {
    /// Makes the handles; nothing is known yet.
    pub(crate) fn new() -> Self {
        let waiting =
            |queue: &QueueLabel| gauge!("ticketd_queue_messages", "queue" => queue.as_str());
        let metrics = Self {
            waiting: QueueLabel::ALL.iter().map(waiting).collect(),
        };
        metrics.unknown();
        metrics
    }

    /// Takes note of how many messages each queue holds, where that is known.
    pub(crate) fn waiting(&self, messages: [Option<u32>; QueueLabel::ALL.len()]) {
        for (gauge, messages) in self.waiting.iter().zip(messages) {
            gauge.set(messages.map_or(f64::NAN, f64::from));
        }
    }

    /// Nobody can tell any more.
    pub(crate) fn unknown(&self) {
        self.waiting([None; QueueLabel::ALL.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a scrape shows after this.
    fn rendered(count: impl FnOnce(&HttpMetrics)) -> String {
        let recorder = PrometheusBuilder::new().build_recorder();
        ::metrics::with_local_recorder(&recorder, || count(&HttpMetrics::new()));
        recorder.handle().render()
    }

    #[test]
    fn every_reason_has_its_counter() {
        for (count, reason) in (1..).zip(Rejected::ALL) {
            let text = rendered(|metrics| (0..count).for_each(|_| metrics.rejected(*reason)));
            let series = |reason: &Rejected, count: u32| {
                format!(
                    "ticketd_rejected_total{{reason=\"{}\"}} {count}\n",
                    reason.as_str()
                )
            };
            for other in Rejected::ALL {
                let count = if other == reason { count } else { 0 };
                assert!(text.contains(&series(other, count)), "{other:?}: {text}");
            }
        }
    }
}
