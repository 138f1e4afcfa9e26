//! What a request tells of itself besides what it asks for: nothing, for most.

use hyper::header::HeaderMap;

use super::encoding::{UnknownCoding, coding_of};
use super::request_id::RequestId;
use crate::coding::Coding;
use crate::message::{TRACEPARENT, Traceparent};

/// The trace of a request, where it tells a well-formed one, and one only.
pub(crate) type Trace = Option<Box<Traceparent>>;

/// Its id, its trace, and the form of its body.
pub(crate) struct RequestContext {
    /// Its id.
    pub request_id: Option<Box<RequestId>>,
    /// Its trace.
    pub trace: Trace,
    /// The form of its body.
    pub coding: Result<Coding, UnknownCoding>,
}

impl RequestContext {
    /// What a head tells. Boxed, so that a request without it waits in as few bytes as it can.
    pub(super) fn of(headers: &HeaderMap) -> Option<Box<Self>> {
        let request_id = RequestId::of(headers);
        let trace = trace(headers);
        let coding = coding_of(headers);
        let is_plain = coding.is_ok_and(Coding::is_plain);
        let is_told = request_id.is_some() || trace.is_some() || !is_plain;
        is_told.then(|| {
            Box::new(Self {
                request_id,
                trace,
                coding,
            })
        })
    }
}

fn trace(headers: &HeaderMap) -> Trace {
    let mut traces = headers.get_all(TRACEPARENT).iter();
    let trace = traces.next()?;
    let is_alone = traces.next().is_none();
    Traceparent::parse(trace.as_bytes()).filter(|_| is_alone)
}
