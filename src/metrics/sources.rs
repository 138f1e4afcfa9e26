//! What is counted of each source.

use std::collections::BTreeMap;

use ::metrics::{Counter, counter};

use super::{LastTicket, registered};
use crate::config::OTHER_SOURCES;

/// Sources that have counters of their own: each costs a scrape three lines.
const SOURCES_MAX: usize = 1_000;

/// The counters of sources, made as these become known and kept until the process ends.
pub(crate) struct SourceCounters {
    own: BTreeMap<String, SourceMetrics>,
    /// What all others share.
    others: SourceMetrics,
}

/// What is counted of a source.
#[derive(Clone)]
pub(crate) struct SourceMetrics {
    accepted: Counter,
    last: LastTicket,
    /// Tickets not answered 202.
    pub rejected: Counter,
}

impl SourceCounters {
    /// Makes those that all others share.
    pub(crate) fn new() -> Self {
        Self {
            own: BTreeMap::new(),
            others: SourceMetrics::new(OTHER_SOURCES),
        }
    }

    /// Those of a source. Its name has no character that would need escaping in a label.
    pub(crate) fn of(&mut self, source: &str) -> SourceMetrics {
        if let Some(known) = self.own.get(source) {
            return known.clone();
        }
        if self.own.len() >= SOURCES_MAX {
            return self.others.clone();
        }
        let new = SourceMetrics::new(source);
        self.own.insert(source.to_owned(), new.clone());
        new
    }
}

impl SourceMetrics {
    fn new(source: &str) -> Self {
        let name = || source.to_owned();
        Self {
            last: LastTicket::of(source),
            accepted: registered(counter!("ticketd_source_accepted_total", "source" => name())),
            rejected: registered(counter!("ticketd_source_rejected_total", "source" => name())),
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics_exporter_prometheus::PrometheusBuilder;

    #[test]
    fn a_thousand_sources_have_their_own_and_the_rest_share() {
        let recorder = PrometheusBuilder::new().build_recorder();
        ::metrics::with_local_recorder(&recorder, || {
            let mut counters = SourceCounters::new();
            for n in 0..SOURCES_MAX + 2 {
                counters.of(&format!("shop-{n}")).accepted(7_000_000);
            }
            counters.of("shop-0").accepted(8_000_000);
        });
        let text = recorder.handle().render();
        let series = |source, count| {
            format!("ticketd_source_accepted_total{{source=\"{source}\"}} {count}\n")
        };
        assert!(text.contains(&series("shop-0", 2)));
        assert!(text.contains(&series("shop-999", 1)));
        assert!(text.contains(&series("other", 2)));
        assert!(!text.contains("shop-1000"));
        let last = |source, second| {
            format!("ticketd_last_ticket_timestamp_seconds{{source=\"{source}\"}} {second}\n")
        };
        assert!(text.contains(&last("shop-0", 8)));
        assert!(text.contains(&last("other", 7)));
    }
}
