//! Which handler answers which path, on each listener.

use std::sync::Arc;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::{Method, Request};
use uuid::Uuid;

use super::handlers::{Operators, PostTicket, Probes, TicketState};
use super::pending::{PendingResponse, State};
use super::problem;
use super::response::unread_body;
use crate::metrics::HttpMetrics;

/// The routes of one listener, and what counts their responses; one for each worker.
pub(crate) struct Router {
    routes: Vec<Route>,
    metrics: Arc<HttpMetrics>,
}

struct Route {
    path: Path,
    endpoint: Endpoint,
}

enum Path {
    /// This path.
    Exact(&'static str),
    /// This prefix, and a UUID behind it.
    WithId(&'static str),
}

enum Endpoint {
    PostTicket(Arc<PostTicket>),
    TicketState(TicketState),
    Live(Probes),
    Ready(Probes),
    Metrics(Probes, Operators),
}

/// What `LISTEN` answers: tickets, what became of them if there is a database to
/// ask, probes, and what is the operator's unless another listener has that.
pub(crate) fn public(
    post_ticket: PostTicket,
    ticket_state: Option<TicketState>,
    probes: &Probes,
    operators: Option<Operators>,
) -> Router {
    let metrics = post_ticket.metrics.clone();
    let post_ticket = Endpoint::PostTicket(Arc::new(post_ticket));
    let mut routes = vec![Route::exact("/ticket", post_ticket)];
    routes.extend(ticket_state.map(|handler| Route {
        path: Path::WithId("/ticket/"),
        endpoint: Endpoint::TicketState(handler),
    }));
    routes.extend(probe_routes(probes));
    routes.extend(operators.map(|operators| operator_route(probes, operators)));
    Router { routes, metrics }
}

/// What `ADMIN_LISTEN` answers: probes, and what is the operator's.
pub(crate) fn admin(probes: &Probes, metrics: Arc<HttpMetrics>) -> Router {
    let mut routes = Vec::from(probe_routes(probes));
    routes.push(operator_route(probes, Operators::Anyone));
    Router { routes, metrics }
}

fn operator_route(probes: &Probes, operators: Operators) -> Route {
    Route::exact("/metrics", Endpoint::Metrics(probes.clone(), operators))
}

fn probe_routes(probes: &Probes) -> [Route; 3] {
    [
        Route::exact("/livez", Endpoint::Live(probes.clone())),
        Route::exact("/readyz", Endpoint::Ready(probes.clone())),
        // An older name of /readyz.
        Route::exact("/healthz", Endpoint::Ready(probes.clone())),
    ]
}

impl Router {
    /// What counts the responses.
    pub(crate) fn metrics(&self) -> &Arc<HttpMetrics> {
        &self.metrics
    }

    /// Starts to answer a request.
    pub(crate) fn respond(&self, request: Request<Incoming>) -> PendingResponse {
        let started = Instant::now();
        PendingResponse::new(self.metrics.clone(), started, self.route(request))
    }

    fn route(&self, request: Request<Incoming>) -> State {
        let path = request.uri().path();
        let mut matches = self.routes.iter();
        let Some(route) = matches.find(|route| route.path.matches(path)) else {
            return State::known(unread_body(request.body(), problem::no_such_path()));
        };
        if !route.endpoint.takes(request.method()) {
            let problem = problem::method_not_allowed(route.endpoint.allowed());
            return State::known(unread_body(request.body(), problem));
        }
        route.endpoint.start(request)
    }
}

impl Route {
    fn exact(path: &'static str, endpoint: Endpoint) -> Self {
        Self {
            path: Path::Exact(path),
            endpoint,
        }
    }
}

impl Path {
    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => *exact == path,
            Self::WithId(prefix) => path.strip_prefix(prefix).and_then(id).is_some(),
        }
    }
}

impl Endpoint {
    /// The methods it takes, as `Allow` lists them (RFC 9110 section 10.2.1).
    fn allowed(&self) -> &'static str {
        match self {
            Self::PostTicket(_) => "POST",
            _ => "GET, HEAD",
        }
    }

    fn takes(&self, method: &Method) -> bool {
        match self {
            Self::PostTicket(_) => method == Method::POST,
            _ => method == Method::GET || method == Method::HEAD,
        }
    }

    fn start(&self, request: Request<Incoming>) -> State {
        match self {
            Self::PostTicket(handler) => {
                let head = handler.head(&request);
                State::ReadBody(handler.clone(), head, request.into_body())
            }
            Self::TicketState(handler) => {
                let Ok(source) = handler.source(request.headers()) else {
                    return State::known(unread_body(request.body(), problem::unauthorized()));
                };
                match request.uri().path().rsplit('/').next().and_then(id) {
                    Some(id) => State::Boxed(Box::pin(handler.clone().get(id, source))),
                    None => State::known(problem::no_such_path()),
                }
            }
            Self::Live(probes) => State::known(probes.live()),
            Self::Ready(probes) => State::known(probes.ready()),
            Self::Metrics(probes, operators) => match operators.admit(request.headers()) {
                Ok(()) => State::known(probes.metrics()),
                Err(_) => State::known(unread_body(request.body(), problem::unauthorized())),
            },
        }
    }
}

fn id(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok()
}
