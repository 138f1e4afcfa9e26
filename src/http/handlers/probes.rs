//! GET /livez, /readyz, /metrics and /version.

use std::sync::Arc;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderValue};
use tracing::debug;

use crate::config::{REVISION, VERSION};
use crate::health::{Health, Readiness};
use crate::http::auth::{Senders, Unauthorized};
use crate::http::freshness::{acceptable_age, aged};
use crate::http::response::{FullResponse, JSON, response};
use crate::metrics::Prometheus;

const PROMETHEUS: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Answers what watches the process.
#[derive(Clone)]
pub(crate) struct Probes {
    /// What /readyz answers from.
    pub health: Arc<Health>,
    /// What /metrics answers from.
    pub prometheus: Prometheus,
}

/// Who may see what is the operator's, on one listener.
#[derive(Clone)]
pub(crate) enum Operators {
    /// Whoever reaches the listener.
    Anyone,
    /// Who has an operator's token.
    Known(Arc<Senders>),
}

impl Operators {
    /// Whether whoever sends this head is one of them.
    pub(crate) fn admit(&self, headers: &HeaderMap) -> Result<(), Unauthorized> {
        let Self::Known(senders) = self else {
            return Ok(());
        };
        let operator = senders.operator(headers);
        operator.inspect_err(|Unauthorized(why)| debug!(why, "not an operator"))
    }
}

impl Probes {
    /// GET /livez: the process answers, so it is alive.
    pub(crate) fn live(&self) -> FullResponse {
        let body = Bytes::from_static(b"{\"status\":\"alive\"}");
        response(StatusCode::OK, JSON, body)
    }

    /// GET /readyz: whether the process can do its work, and what it lacks.
    pub(crate) fn ready(&self) -> FullResponse {
        ready(self.health.readiness())
    }

    /// GET /metrics: Prometheus' text format.
    pub(crate) fn metrics(&self, headers: &HeaderMap) -> FullResponse {
        let (text, age) = self.prometheus.render_within(acceptable_age(headers));
        aged(response(StatusCode::OK, PROMETHEUS, text), age)
    }
}

/// GET /version: which ticketd this is.
pub(crate) fn version() -> FullResponse {
    let json = format!("{{\"version\":\"{VERSION}\",\"revision\":\"{REVISION}\"}}");
    response(StatusCode::OK, JSON, json.into())
}

fn ready(readiness: Readiness) -> FullResponse {
    let (code, status) = match readiness {
        _ if readiness.is_ready() => (StatusCode::OK, "ready"),
        Readiness {
            shutting_down: true,
            ..
        } => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    let refusing = if readiness.refusing { "refusing" } else { "up" };
    let parts = [
        ("publishing", readiness.publishing, "up"),
        ("consuming", readiness.consuming, "up"),
        ("database", readiness.database, refusing),
    ];
    let checks: Vec<_> = parts
        .iter()
        .filter_map(|(name, up, word)| {
            up.map(|up| format!("\"{name}\":\"{}\"", if up { word } else { "down" }))
        })
        .collect();
    let json = format!(
        "{{\"status\":\"{status}\",\"checks\":{{{}}}}}",
        checks.join(",")
    );
    response(code, JSON, json.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_names_what_is_missing() {
        let readiness = Readiness {
            publishing: None,
            consuming: Some(true),
            database: Some(false),
            refusing: false,
            shutting_down: false,
        };
        assert_eq!(ready(readiness).status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
