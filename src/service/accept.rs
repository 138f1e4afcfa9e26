//! What accepts tickets: its listener, who may send, and what is shown beside.

use std::sync::Arc;
use std::thread::available_parallelism;

use tokio::task::JoinSet;
use tracing::warn;

use super::Part;
use super::listen::Listening;
use super::senders::KnownSenders;
use crate::broker::Broker;
use crate::config::{AcceptRole, DatabaseConfig, PageSwitch};
use crate::http::{
    Bodies, BulkLimits, Hosts, Listener, Operators, Page, PostTicket, Probes, RejectionLog, Stored,
    TicketState, Workers, public,
};
use crate::metrics::HttpMetrics;
use crate::publisher::{PublishLimits, publishers};
use crate::store::TicketReader;
use crate::thread::Threads;

/// What accepts tickets.
pub(super) struct Accept {
    listener: Listener,
    /// What the listeners speak.
    pub(super) listening: Listening,
    /// Who may send.
    pub(super) credentials: KnownSenders,
    /// Where what became of tickets is looked up.
    database: Option<DatabaseConfig>,
    /// All of them.
    pub(super) settings: AcceptRole,
}

impl Accept {
    /// Listens, and reads who may send. Neither RabbitMQ nor PostgreSQL needs to be there.
    pub(super) fn new(
        settings: AcceptRole,
        database: Option<DatabaseConfig>,
    ) -> anyhow::Result<Self> {
        let listen = &settings.http.listen;
        let client_ca = settings.http.client_ca();
        let credentials = KnownSenders::read(&settings.auth, client_ca.is_some())?;
        let listening = Listening::read(&listen.tls, client_ca)?;
        if credentials.senders.is_none() && !listen.listen.ip().is_loopback() {
            warn!(
                "whoever reaches LISTEN may send tickets: neither CREDENTIALS_FILE nor CREDENTIALS nor TLS_CLIENT_CA is set"
            );
        }
        Ok(Self {
            listener: listening.public(listen.listen)?,
            listening,
            credentials,
            database,
            settings,
        })
    }

    /// Starts a worker for each core. Returns what asks about stored tickets.
    pub(super) fn start(
        self,
        broker: &Broker,
        probes: &Probes,
        rejections: &RejectionLog,
        threads: &Threads,
        http: &mut Part,
        background: &mut JoinSet<()>,
    ) -> anyhow::Result<Option<TicketReader>> {
        let (operators, listed, page) = (self.operators(), self.listed(), self.page());
        let reader = self.database.map(|database| {
            let (reader, task) = TicketReader::new(database);
            background.spawn(task);
            reader
        });
        let stored = reader.clone().map(|reader| Stored {
            state: TicketState {
                reader,
                senders: self.credentials.senders.clone(),
            },
            listed,
            page,
        });
        let limits = PublishLimits::of(&self.settings.publish);
        let body_bytes_max = self.settings.http.body_max as usize;
        let bodies = Bodies::new(body_bytes_max, limits.inflight_bytes);
        let bulk = BulkLimits::new(self.settings.http.bulk_max as usize);
        let workers = available_parallelism().map_or(1, usize::from);
        let health = probes.health.clone();
        let publishers = publishers(broker.clone(), limits, health.clone(), workers);
        let routers = publishers.map(|(publisher, task)| {
            let post_ticket = PostTicket {
                publisher,
                bodies: bodies.for_worker(),
                senders: self.credentials.senders.clone(),
                has_ticket_state: stored.is_some(),
                health: health.clone(),
                metrics: Arc::new(HttpMetrics::new()),
                rejections: rejections.clone(),
            };
            let (bulk, stored) = (bulk.clone(), stored.clone());
            let router = public(post_ticket, bulk, stored, probes, operators.clone());
            (router, task)
        });
        let workers = Workers::start(routers, &http.stop, threads)?;
        let stop = http.stop.clone();
        http.tasks.spawn(self.listener.serve_on(workers, stop));
        Ok(reader)
    }

    /// By which names tickets are listed on `LISTEN`: not where that is for whoever reaches it and
    /// more than this machine does, nor for anyone where there is a listener for operators.
    fn listed(&self) -> Option<Hosts> {
        let listen = &self.settings.http.listen;
        let is_local = listen.admin_listen.is_none() && listen.listen.ip().is_loopback();
        let hosts = Hosts::new(&listen.page_hosts);
        (is_local || self.credentials.senders.is_some()).then_some(hosts)
    }

    /// The page of `LISTEN`, where what it shows is there as well.
    fn page(&self) -> Option<Page> {
        let listen = &self.settings.http.listen;
        let is_here = listen.page == PageSwitch::On && listen.admin_listen.is_none();
        is_here.then(|| Page::new(true, self.credentials.senders.is_some()))
    }

    /// Who may see on `LISTEN` what is the operator's; none where that has a listener of its own.
    fn operators(&self) -> Option<Operators> {
        let has_admin = self.settings.http.listen.admin_listen.is_some();
        (!has_admin).then(|| self.credentials.operators())
    }
}
