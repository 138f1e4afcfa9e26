//! The responses of one route.

use std::time::Duration;

use ::metrics::{Counter, Histogram, counter, histogram};

use super::{CODES, RouteLabel, registered};

/// What is counted of the responses of one route; made once, so that a request looks nothing up.
pub(crate) struct RouteMetrics {
    route: RouteLabel,
    /// In the order of [`CODES`].
    requests: [Counter; CODES.len()],
    duration: Histogram,
}

impl RouteMetrics {
    /// Makes the handles.
    pub(crate) fn new(route: RouteLabel) -> Self {
        Self {
            route,
            requests: CODES.map(|code| requests(code, route)),
            duration: histogram!("ticketd_http_request_duration_seconds", "route" => route.as_str()),
        }
    }

    /// Counts a response, and how long it took from the request's head on.
    pub(crate) fn responded(&self, code: u16, took: Duration) {
        self.answered(code);
        self.duration.record(took);
    }

    /// Counts a response to what was not a whole request.
    pub(crate) fn answered(&self, code: u16) {
        let known = CODES.iter().position(|&known| known == code);
        match known.and_then(|at| self.requests.get(at)) {
            Some(counter) => counter.increment(1),
            None => requests(code, self.route).increment(1),
        }
    }
}

fn requests(code: u16, route: RouteLabel) -> Counter {
    let (code, route) = (code.to_string(), route.as_str());
    registered(counter!("ticketd_http_requests_total", "code" => code, "route" => route))
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics_exporter_prometheus::PrometheusBuilder;

    /// What a scrape shows after one response of each route.
    fn rendered(code: u16) -> String {
        let recorder = PrometheusBuilder::new().build_recorder();
        ::metrics::with_local_recorder(&recorder, || {
            for (took, route) in (1..).zip(RouteLabel::ALL) {
                RouteMetrics::new(*route).responded(code, Duration::from_secs(took));
            }
        });
        recorder.handle().render()
    }

    #[test]
    fn each_route_counts_and_times_its_own() {
        for code in [&CODES[..], &[418]].concat() {
            let text = rendered(code);
            for (took, route) in (1..).zip(RouteLabel::ALL) {
                let route = route.as_str();
                let requests = format!("requests_total{{code=\"{code}\",route=\"{route}\"}} 1\n");
                assert!(text.contains(&requests), "{requests}: {text}");
                let sum = format!("duration_seconds_sum{{route=\"{route}\"}} {took}\n");
                assert!(text.contains(&sum), "{sum}: {text}");
            }
        }
    }
}
