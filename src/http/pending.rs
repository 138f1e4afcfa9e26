//! The hand-written response future.
//!
//! Thousands of tickets wait for their confirms at a time, and what each of them
//! holds should fit a few cache lines: an async block would hold the whole
//! request until its end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use hyper::body::Incoming;

use super::context::{RequestContext, Trace};
use super::handlers::{PostTicket, Progress, Submitted, TicketHead};
use super::problem;
use super::response::FullResponse;
use crate::coding::Coding;
use crate::metrics::RouteMetrics;

/// The response to one request, counted and timed when it is there.
pub(crate) struct PendingResponse {
    metrics: Arc<RouteMetrics>,
    started: Instant,
    state: State,
    /// What the request tells of itself.
    context: Option<Box<RequestContext>>,
}

/// What a response waits for.
pub(crate) enum State {
    /// A ticket's body, which was not looked at yet: hyper hands a request over
    /// before what came of its body, and has that when the response is polled.
    ReadBody(Arc<PostTicket>, TicketHead, Incoming),
    /// The confirm of this ticket.
    AwaitConfirm(Arc<PostTicket>, Submitted),
    /// Everything that is rare.
    Boxed(Pin<Box<dyn Future<Output = FullResponse> + Send>>),
    /// Nothing: it is taken out, or was returned.
    Done,
}

impl State {
    /// A response that is known already.
    pub(crate) fn known(response: FullResponse) -> Self {
        Self::Boxed(Box::pin(std::future::ready(response)))
    }

    /// Looks at a ticket's body, if that is what is next.
    fn start(&mut self, context: Option<&mut RequestContext>) {
        if !matches!(self, Self::ReadBody(..)) {
            return;
        }
        if let Self::ReadBody(handler, head, body) = std::mem::replace(self, Self::Done) {
            let (trace, coding): (Trace, _) = match context {
                Some(context) => (context.trace.take(), context.coding),
                None => (None, Ok(Coding::default())),
            };
            *self = match handler.start(head, trace, coding, body) {
                Progress::AwaitConfirm(submitted) => Self::AwaitConfirm(handler, submitted),
                Progress::ReadBody(response) => Self::Boxed(response),
                Progress::Rejected(response) => Self::known(response),
            };
        }
    }
}

impl PendingResponse {
    /// The response to a request that was received at this time.
    pub(crate) fn new(
        metrics: Arc<RouteMetrics>,
        started: Instant,
        context: Option<Box<RequestContext>>,
        state: State,
    ) -> Self {
        Self {
            metrics,
            started,
            state,
            context,
        }
    }
}

impl Future for PendingResponse {
    type Output = FullResponse;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<FullResponse> {
        let this = self.get_mut();
        this.state.start(this.context.as_deref_mut());
        let response = match &mut this.state {
            State::AwaitConfirm(handler, submitted) => {
                let outcome = ready!(Pin::new(&mut submitted.outcome).poll(cx));
                handler.finish(submitted, outcome)
            }
            State::Boxed(response) => ready!(response.as_mut().poll(cx)),
            State::ReadBody(..) | State::Done => return Poll::Pending,
        };
        let response = problem::identified(
            response,
            this.context.take().and_then(|context| context.request_id),
        );
        let code = response.status().as_u16();
        this.metrics.responded(code, this.started.elapsed());
        Poll::Ready(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_small() {
        let bytes = size_of::<PendingResponse>();
        assert!(bytes <= 128, "{bytes}");
    }
}
