//! What a scrape gets.

use metrics_exporter_prometheus::PrometheusHandle;
use metrics_process::Collector;

/// Renders the metrics in Prometheus' text format.
#[derive(Clone)]
pub struct Prometheus {
    metrics: PrometheusHandle,
    process: Collector,
}

impl Prometheus {
    /// Renders what is recorded for this handle, and adds `process_*` to it.
    pub(super) fn new(metrics: PrometheusHandle) -> Self {
        let process = Collector::default();
        process.describe();
        Self { metrics, process }
    }

    /// All metrics as they are now.
    pub(crate) fn render(&self) -> String {
        // Only here: with thousands of connections, counting open files takes milliseconds.
        self.process.collect();
        self.metrics.render()
    }

    /// Folds histograms into their buckets.
    pub(crate) fn run_upkeep(&self) {
        self.metrics.run_upkeep();
    }
}
