//! What is answered.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::Response;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};

use super::ClientError;

/// The longest body that is read, in bytes: a ticket's state with all that was set aside is a tenth of it.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// The longest time that a server may ask to be left alone: its clock or its words may be wrong.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// An answer, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpAnswer {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: Bytes,
    /// Whether that is a problem document, as ticketd's own errors are.
    pub is_problem: bool,
    /// How long not to ask again, where it says so in seconds.
    pub retry_after: Option<Duration>,
}

impl HttpAnswer {
    pub(super) async fn read(response: Response<Incoming>) -> Result<Self, ClientError> {
        let (head, body) = response.into_parts();
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
        Ok(Self {
            status: head.status.as_u16(),
            body: body.map_err(unread)?.to_bytes(),
            is_problem: is_problem(&head.headers),
            retry_after: retry_after(&head.headers),
        })
    }

    /// The detail of a problem document, or else the status, for people.
    pub(crate) fn detail(&self) -> String {
        let problem = self
            .is_problem
            .then(|| serde_json::from_slice::<serde_json::Value>(&self.body).ok());
        let detail = problem
            .flatten()
            .and_then(|problem| problem.get("detail")?.as_str().map(printable));
        match detail {
            Some(detail) => format!("{} {detail}", self.status),
            None => self.status.to_string(),
        }
    }
}

/// Nothing of it that a terminal would obey.
fn printable(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

fn unread(error: Box<dyn std::error::Error + Send + Sync>) -> ClientError {
    match error.downcast::<hyper::Error>() {
        Ok(error) => ClientError::Broken(*error),
        Err(_length_limit) => ClientError::TooLarge(BODY_BYTES_MAX),
    }
}

fn is_problem(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(|kind| kind.as_bytes());
    kind.is_some_and(|kind| kind.starts_with(b"application/problem+json"))
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let is_number = !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit());
    // More digits than that are more than the maximum.
    let seconds = is_number.then(|| seconds.parse().unwrap_or(u64::MAX))?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn after(value: &'static str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static(value));
        retry_after(&headers)
    }

    #[test]
    fn a_server_may_ask_for_some_minutes() {
        assert_eq!(after("0"), Some(Duration::ZERO));
        assert_eq!(after("5"), Some(Duration::from_secs(5)));
        for long in ["301", "99999999999999999999999"] {
            assert_eq!(after(long), Some(RETRY_AFTER_MAX), "{long}");
        }
        for none in ["", "-1", "+1", "1.5", "Fri, 27 Nov 2026 11:00:00 GMT"] {
            assert_eq!(after(none), None, "{none}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }

    #[test]
    fn the_detail_is_that_of_a_problem_only() {
        let answer = |is_problem, body: &'static str| HttpAnswer {
            status: 400,
            body: Bytes::from_static(body.as_bytes()),
            is_problem,
            retry_after: None,
        };
        let document = r#"{"detail":"the ticket\n is empty"}"#;
        let detail = answer(true, document).detail();
        assert_eq!(detail, "400 the ticket\u{fffd} is empty");
        assert_eq!(answer(false, document).detail(), "400");
        for none in ["", "{", "[]", r#"{"detail":1}"#] {
            assert_eq!(answer(true, none).detail(), "400", "{none}");
        }
    }
}
