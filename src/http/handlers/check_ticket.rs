//! POST /check: the verdict on a ticket that is not taken.

use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode};
use serde_json::json;

use super::asker::asker;
use crate::http::auth::Senders;
use crate::http::body::{Bodies, BodyError, BodyStart};
use crate::http::encoding::coding_of;
use crate::http::problem;
use crate::http::response::{FullResponse, JSON, closing, response, unread_body};
use crate::publisher::PublishError;
use crate::ticket::{Diagnosis, parse, text};
use crate::tls::ClientIdentity;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// What a ticket is called in a message about it.
const NAME: &str = "ticket";

/// Answers POST /check.
#[derive(Clone)]
pub(crate) struct CheckTicket {
    /// Reads bodies.
    pub bodies: Bodies,
    /// Who may ask; anyone may where there are none.
    pub senders: Option<Arc<Senders>>,
}

impl CheckTicket {
    /// Whether the ticket in the body would be valid. Counts against its source's limit as if it were
    /// taken: it costs as much.
    pub(crate) async fn post(
        self,
        request: Request<Incoming>,
        client: ClientIdentity,
    ) -> FullResponse {
        let (head, mut body) = request.into_parts();
        let coding = match coding_of(&head.headers) {
            Ok(coding) => coding,
            Err(unknown) => return unread_body(&body, problem::unknown_coding(unknown)),
        };
        if let Some(refused) = self.refused(&head.headers, &client) {
            return unread_body(&body, refused);
        }
        let body = match self.bodies.start(&mut body) {
            Ok(BodyStart::Complete(body)) => Ok(body),
            Ok(BodyStart::Partial(first)) => self.bodies.finish(first, body).await,
            Err(error) => Err(error),
        };
        let body = match body {
            Ok(body) => self.bodies.decode(coding, body).await,
            Err(error) => Err(error),
        };
        match body {
            Ok(body) => verdict(&body, wants_text(&head.headers)),
            Err(error) => self.no_body(error),
        }
    }

    fn refused(&self, headers: &HeaderMap, client: &ClientIdentity) -> Option<FullResponse> {
        match asker(self.senders.as_ref(), client, headers) {
            Ok(sender) => sender?.admit().err().map(problem::rate_limited),
            Err(problem) => Some(*problem),
        }
    }

    fn no_body(&self, error: BodyError) -> FullResponse {
        match error {
            BodyError::TooLarge => problem::too_large(self.bodies.bytes_max()),
            BodyError::Timeout => problem::body_timeout(),
            BodyError::Incomplete => problem::incomplete_body(),
            BodyError::Broken(broken) => problem::bad_request(broken.detail()),
            BodyError::TooMany => closing(problem::not_published(PublishError::Overloaded)),
        }
    }
}

/// Whether a message for people is asked for, and not JSON.
fn wants_text(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.trim_start().starts_with("text/plain"))
}

fn verdict(body: &Bytes, as_text: bool) -> FullResponse {
    let text = match text(body) {
        Ok(text) => text,
        Err(error) => return problem::bad_request(&error.to_string()),
    };
    let invalid = parse(text, &mut Vec::new()).invalid;
    let diagnosis = invalid.map(|invalid| Diagnosis::new(text, invalid));
    let (content_type, verdict) = match (diagnosis, as_text) {
        (None, true) => (TEXT, "valid\n".to_owned()),
        (Some(diagnosis), true) => (TEXT, diagnosis.message(NAME) + "\n"),
        (None, false) => (JSON, json!({ "valid": true }).to_string()),
        (Some(diagnosis), false) => (JSON, diagnosis.json().to_string()),
    };
    response(StatusCode::OK, content_type, verdict.into())
}
