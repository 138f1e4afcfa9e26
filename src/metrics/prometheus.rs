//! What a scrape gets.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use metrics_exporter_prometheus::PrometheusHandle;
use metrics_process::Collector;

/// How old `process_*` may be. With thousands of connections, counting open files takes milliseconds,
/// and any number of pages may be open that ask every second.
const PROCESS_AGE_MAX: Duration = Duration::from_millis(900);

/// Renders the metrics in Prometheus' text format.
#[derive(Clone)]
pub struct Prometheus {
    metrics: PrometheusHandle,
    process: Collector,
    /// When that was looked at.
    looked: Arc<Mutex<Option<Instant>>>,
    /// What was last given to those whom something older suffices, and when it was rendered.
    recent: Arc<Mutex<Option<(Instant, Bytes)>>>,
}

impl Prometheus {
    /// Renders what is recorded for this handle, and adds `process_*` to it.
    pub(super) fn new(metrics: PrometheusHandle) -> Self {
        let process = Collector::default();
        process.describe();
        Self {
            metrics,
            process,
            looked: Arc::default(),
            recent: Arc::default(),
        }
    }

    /// All metrics as they are now; `process_*` as they were within a second.
    pub(crate) fn render(&self) -> String {
        if self.is_to_look() {
            self.process.collect();
        }
        self.metrics.render()
    }

    /// All metrics as they were at most `age` ago, and how long ago that was: however many ask, they are
    /// rendered once in that time.
    pub(crate) fn render_within(&self, age: Duration) -> (Bytes, Duration) {
        if age.is_zero() {
            return (self.render().into(), age);
        }
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, text)) = recent.as_ref().filter(|(at, _)| at.elapsed() <= age) {
            return (text.clone(), at.elapsed());
        }
        let text = Bytes::from(self.render());
        *recent = Some((Instant::now(), text.clone()));
        (text, Duration::ZERO)
    }

    fn is_to_look(&self) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = looked.is_none_or(|at| at.elapsed() > PROCESS_AGE_MAX);
        if is_old {
            *looked = Some(Instant::now());
        }
        is_old
    }

    /// Folds histograms into their buckets.
    pub(crate) fn run_upkeep(&self) {
        self.metrics.run_upkeep();
    }
}
