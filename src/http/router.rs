//! Which handler answers which path, on each listener.

use std::sync::Arc;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::{Method, Request};
use uuid::Uuid;

use super::context::RequestContext;
use super::freshness::acceptable_age;
use super::handlers::{
    BulkLimits, CheckTicket, Operators, Page, PostTicket, PostTickets, Probes, TicketList,
    TicketState, openapi, version,
};
use super::host::Hosts;
use super::pending::{PendingResponse, State};
use super::problem;
use super::response::{FullResponse, unread_body};
use crate::metrics::{HttpMetrics, RouteLabel, RouteMetrics};
use crate::tls::ClientIdentity;

/// The routes of one listener, and what counts their responses; one for each worker.
pub(crate) struct Router {
    routes: Vec<Route>,
    metrics: Arc<HttpMetrics>,
    /// What counts the responses that are of no route.
    other: Arc<RouteMetrics>,
}

struct Route {
    path: Path,
    endpoint: Endpoint,
    metrics: Arc<RouteMetrics>,
}

enum Path {
    /// This path.
    Exact(&'static str),
    /// This prefix, and a UUID behind it.
    WithId(&'static str),
}

enum Endpoint {
    PostTicket(Arc<PostTicket>),
    PostTickets(PostTickets),
    TicketState(TicketState),
    TicketList(TicketList, Hosts),
    Page(Page, Hosts),
    CheckTicket(CheckTicket),
    OpenApi,
    Live(Probes),
    Ready(Probes),
    Metrics(Probes, Operators),
    Version(Operators),
}

/// What is told of stored tickets on one listener.
#[derive(Clone)]
pub(crate) struct Stored {
    /// One by one.
    pub state: TicketState,
    /// As lists, to who asks by one of these names; no lists if there are none.
    pub listed: Option<Hosts>,
    /// To people, where there are lists.
    pub page: Option<Page>,
}

/// What `LISTEN` answers: tickets, what became of them if there is a database to
/// ask, probes, and what is the operator's unless another listener has that.
pub(crate) fn public(
    post_ticket: PostTicket,
    bulk: BulkLimits,
    stored: Option<Stored>,
    probes: &Probes,
    operators: Option<Operators>,
) -> Router {
    let metrics = post_ticket.metrics.clone();
    let check_ticket = Endpoint::CheckTicket(CheckTicket {
        bodies: post_ticket.bodies.clone(),
        senders: post_ticket.senders.clone(),
    });
    let ticket = Arc::new(post_ticket);
    let post_tickets = Endpoint::PostTickets(PostTickets {
        ticket: ticket.clone(),
        limits: bulk,
    });
    let mut routes = vec![
        Route::exact("/ticket", Endpoint::PostTicket(ticket)),
        Route::exact("/tickets", post_tickets),
    ];
    routes.extend(stored.into_iter().flat_map(Stored::routes));
    routes.push(Route::exact("/check", check_ticket));
    routes.push(Route::exact("/openapi.json", Endpoint::OpenApi));
    routes.extend(probe_routes(probes));
    routes.extend(
        operators
            .into_iter()
            .flat_map(|operators| operator_routes(probes, operators)),
    );
    Router::new(routes, metrics)
}

/// What `ADMIN_LISTEN` answers: probes, and what is the operator's.
pub(crate) fn admin(probes: &Probes, stored: Option<Stored>, metrics: Arc<HttpMetrics>) -> Router {
    let mut routes = Vec::from(probe_routes(probes));
    routes.extend(operator_routes(probes, Operators::Anyone));
    routes.extend(stored.into_iter().flat_map(Stored::routes));
    Router::new(routes, metrics)
}

impl Stored {
    fn routes(self) -> impl Iterator<Item = Route> {
        let Self {
            state,
            listed,
            page,
        } = self;
        let page = page.zip(listed.clone());
        let page = page.map(|(page, hosts)| Route::exact("/", Endpoint::Page(page, hosts)));
        let list = listed.map(|hosts| {
            let list = TicketList::new(state.clone());
            Route::exact("/tickets", Endpoint::TicketList(list, hosts))
        });
        let state = Route::new(Path::WithId("/ticket/"), Endpoint::TicketState(state));
        [state].into_iter().chain(list).chain(page)
    }
}

fn operator_routes(probes: &Probes, operators: Operators) -> [Route; 2] {
    let metrics = Endpoint::Metrics(probes.clone(), operators.clone());
    [
        Route::exact("/metrics", metrics),
        Route::exact("/version", Endpoint::Version(operators)),
    ]
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
    fn new(routes: Vec<Route>, metrics: Arc<HttpMetrics>) -> Self {
        Self {
            routes,
            metrics,
            other: Arc::new(RouteMetrics::new(RouteLabel::Other)),
        }
    }

    /// What counts tickets and handshakes.
    pub(crate) fn metrics(&self) -> &Arc<HttpMetrics> {
        &self.metrics
    }

    /// What counts the responses that are of no route.
    pub(crate) fn other(&self) -> &Arc<RouteMetrics> {
        &self.other
    }

    /// Starts to answer a request.
    pub(crate) fn respond(
        &self,
        request: Request<Incoming>,
        client: &ClientIdentity,
    ) -> PendingResponse {
        let started = Instant::now();
        let context = RequestContext::of(request.headers());
        let (metrics, state) = self.route(request, client);
        PendingResponse::new(metrics.clone(), started, context, state)
    }

    fn route(
        &self,
        request: Request<Incoming>,
        client: &ClientIdentity,
    ) -> (&Arc<RouteMetrics>, State) {
        let path = request.uri().path();
        let mut matches = self.routes.iter().filter(|route| route.path.matches(path));
        let takes = |route: &&Route| route.endpoint.takes(request.method());
        match matches.clone().find(takes) {
            Some(route) => (&route.metrics, route.endpoint.start(request, client)),
            None => {
                let problem = match (matches.next(), matches.next()) {
                    (None, _) => problem::no_such_path(),
                    // Whether there is a list here is told as of any other path.
                    (Some(route), None) if route.endpoint.would_list(request.method()) => {
                        problem::no_such_path()
                    }
                    (Some(route), None) => problem::method_not_allowed(route.endpoint.allowed()),
                    // A path has at most a route that reads and one that takes.
                    (Some(_), Some(_)) => problem::method_not_allowed("GET, HEAD, POST"),
                };
                self.rejected(&request, problem)
            }
        }
    }

    fn rejected(
        &self,
        request: &Request<Incoming>,
        problem: FullResponse,
    ) -> (&Arc<RouteMetrics>, State) {
        (
            &self.other,
            State::known(unread_body(request.body(), problem)),
        )
    }
}

impl Route {
    fn exact(path: &'static str, endpoint: Endpoint) -> Self {
        Self::new(Path::Exact(path), endpoint)
    }

    fn new(path: Path, endpoint: Endpoint) -> Self {
        let metrics = Arc::new(RouteMetrics::new(endpoint.label()));
        Self {
            path,
            endpoint,
            metrics,
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
    fn label(&self) -> RouteLabel {
        match self {
            Self::PostTicket(_) => RouteLabel::Ticket,
            Self::PostTickets(_) => RouteLabel::Tickets,
            Self::TicketState(_) => RouteLabel::TicketState,
            Self::TicketList(..) => RouteLabel::TicketList,
            Self::Page(..) => RouteLabel::Page,
            Self::CheckTicket(_) => RouteLabel::CheckTicket,
            Self::OpenApi => RouteLabel::OpenApi,
            Self::Live(_) => RouteLabel::Live,
            Self::Ready(_) => RouteLabel::Ready,
            Self::Metrics(..) => RouteLabel::Metrics,
            Self::Version(_) => RouteLabel::Version,
        }
    }

    /// The methods it takes, as `Allow` lists them (RFC 9110 section 10.2.1).
    fn allowed(&self) -> &'static str {
        match self {
            Self::PostTicket(_) | Self::PostTickets(_) | Self::CheckTicket(_) => "POST",
            _ => "GET, HEAD",
        }
    }

    fn takes(&self, method: &Method) -> bool {
        match self {
            Self::PostTicket(_) | Self::PostTickets(_) | Self::CheckTicket(_) => {
                method == Method::POST
            }
            _ => method == Method::GET || method == Method::HEAD,
        }
    }

    /// Whether another route of this path, which is not everywhere, takes this method.
    fn would_list(&self, method: &Method) -> bool {
        matches!(self, Self::PostTickets(_)) && (method == Method::GET || method == Method::HEAD)
    }

    fn start(&self, request: Request<Incoming>, client: &ClientIdentity) -> State {
        match self {
            Self::PostTicket(handler) => {
                let head = handler.head(&request, client);
                State::ReadBody(handler.clone(), head, request.into_body())
            }
            Self::PostTickets(handler) => {
                State::Boxed(Box::pin(handler.clone().post(request, client.clone())))
            }
            Self::TicketState(handler) => {
                let source = match handler.source(request.headers(), client) {
                    Ok(source) => source,
                    Err(problem) => return State::known(unread_body(request.body(), *problem)),
                };
                match request.uri().path().rsplit('/').next().and_then(id) {
                    Some(id) => State::Boxed(Box::pin(handler.clone().get(id, source))),
                    None => State::known(problem::no_such_path()),
                }
            }
            Self::TicketList(handler, hosts) => list(handler, hosts, &request, client),
            Self::Page(page, hosts) => State::known(match hosts.admit(request.headers()) {
                true => page.get(),
                false => unread_body(request.body(), problem::unknown_host()),
            }),
            Self::CheckTicket(handler) => {
                State::Boxed(Box::pin(handler.clone().post(request, client.clone())))
            }
            Self::OpenApi => State::known(openapi()),
            Self::Live(probes) => State::known(probes.live()),
            Self::Ready(probes) => State::known(probes.ready()),
            Self::Metrics(probes, operators) => match operators.admit(request.headers()) {
                Ok(()) => State::known(probes.metrics(request.headers())),
                Err(_) => State::known(unread_body(request.body(), problem::unauthorized())),
            },
            Self::Version(operators) => match operators.admit(request.headers()) {
                Ok(()) => State::known(version()),
                Err(_) => State::known(unread_body(request.body(), problem::unauthorized())),
            },
        }
    }
}

fn list(
    handler: &TicketList,
    hosts: &Hosts,
    request: &Request<Incoming>,
    client: &ClientIdentity,
) -> State {
    if !hosts.admit(request.headers()) {
        return State::known(unread_body(request.body(), problem::unknown_host()));
    }
    let source = match handler.source(request.headers(), client) {
        Ok(source) => source,
        Err(problem) => return State::known(unread_body(request.body(), *problem)),
    };
    let query = request.uri().query().map(str::to_owned);
    let age = acceptable_age(request.headers());
    State::Boxed(Box::pin(handler.clone().get(query, source, age)))
}

fn id(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok()
}
