//! One measurement: a server started afresh, loaded, checked and ended.

use std::cell::Cell;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use ticketd_testing::metrics;

use super::access::{self, Certificates};
use super::outcome::Outcome;
use super::pages::Pages;
use super::process::{self, Load, Server};
use super::scratch::{Place, Scratch};
use super::target::Target;
use crate::client::Endpoint;

/// What a baseline pipeline is taken to store before one was measured.
const BASELINE_PER_SECOND: f64 = 1000.0;

/// Tickets that each connection sends to it at least, so that the last one takes part too.
const BASELINE_TICKETS_MIN: u64 = 2;

/// What to do in one measurement.
#[derive(Clone, Copy)]
pub(super) struct Job {
    pub(super) target: Target,
    pub(super) connections: u32,
    pub(super) seconds: f64,
    /// Tickets per second of an open loop.
    pub(super) rate: Option<f64>,
    /// Maximum number of tickets to send.
    pub(super) tickets: Option<u64>,
}

/// What every measurement needs.
pub(super) struct Rig {
    pub(super) ticketd: PathBuf,
    /// This program, for the load generator and the two servers in it.
    pub(super) loadtest: PathBuf,
    pub(super) amqp_url: String,
    /// The processes of PostgreSQL and RabbitMQ.
    pub(super) stack: Vec<(String, u32)>,
    pub(super) scratch: Scratch,
    pub(super) certificates: Certificates,
    /// A folder for logs.
    pub(super) logs: PathBuf,
    places_made: Cell<usize>,
    baseline_per_second: Cell<f64>,
}

/// A target that is up.
pub(super) struct Running {
    pub(super) servers: Vec<Server>,
    /// Where tickets go.
    pub(super) address: String,
    /// Where /metrics is, of the accepting and of the storing process.
    pub(super) accept_admin: Endpoint,
    pub(super) store_admin: Endpoint,
    /// The process of the load generator, once it runs.
    pub(super) generator: Cell<Option<u32>>,
}

impl Rig {
    /// With nothing measured yet.
    pub(super) fn new(
        programs: (PathBuf, PathBuf),
        amqp_url: String,
        stack: Vec<(String, u32)>,
        (scratch, certificates): (Scratch, Certificates),
        logs: PathBuf,
    ) -> Self {
        Self {
            ticketd: programs.0,
            loadtest: programs.1,
            amqp_url,
            stack,
            scratch,
            certificates,
            logs,
            places_made: Cell::new(0),
            baseline_per_second: Cell::new(BASELINE_PER_SECOND),
        }
    }

    /// Does something in a new place, which is taken away again whatever came of it.
    pub(super) async fn in_place<T>(
        &self,
        work: impl AsyncFnOnce(&Place) -> Result<T>,
    ) -> Result<T> {
        self.places_made.set(self.places_made.get() + 1);
        let place = self.scratch.place(self.places_made.get()).await?;
        let done = work(&place).await;
        let removed = self.scratch.remove(&place.name).await;
        let done = done?;
        removed?;
        Ok(done)
    }

    /// Does a job from the start of its servers to the removal of what they made.
    pub(super) async fn measure(&self, job: &Job) -> Result<Outcome> {
        let outcome = self
            .in_place(async |place| {
                let running = self.start(job.target, place).await?;
                let pages =
                    (job.target == Target::Watched).then(|| Pages::open(&running.store_admin));
                let mut outcome = self.load(job, place, &running).await?;
                pages.map_or(Ok(()), Pages::close)?;
                self.look_closer(job.target, &mut outcome, place, &running)
                    .await?;
                for server in running.servers {
                    server.end().await?;
                }
                Ok(outcome)
            })
            .await?;
        outcome.check()?;
        Ok(outcome)
    }

    /// What is to be learnt or checked while the servers are still up.
    async fn look_closer(
        &self,
        target: Target,
        outcome: &mut Outcome,
        place: &Place,
        running: &Running,
    ) -> Result<()> {
        match target {
            Target::Accept => self.check_accepted(outcome, place, running).await?,
            Target::EndToEnd => {
                let page = process::get(&running.store_admin, "/metrics").await?;
                let bound = metrics::quantile_bound(&page, "ticketd_end_to_end_seconds", 0.99);
                outcome.committed_p99_ms = bound.map(|seconds| seconds * 1e3);
            }
            Target::Baseline => self.baseline_per_second.set(outcome.per_second),
            _ => {}
        }
        Ok(())
    }

    /// Loads a target that is up.
    pub(super) async fn load(
        &self,
        job: &Job,
        place: &Place,
        running: &Running,
    ) -> Result<Outcome> {
        let tickets = match job.target {
            // It accepts far more than it stores, and would be waited for long after.
            Target::Baseline => {
                let storable = (self.baseline_per_second.get() * job.seconds) as u64;
                Some(storable.max(u64::from(job.connections) * BASELINE_TICKETS_MIN))
            }
            _ => job.tickets,
        };
        let load = Load {
            sender: access::arguments(job.target, &running.address, &self.certificates.ca()),
            connections: job.connections,
            seconds: job.seconds,
            rate: job.rate,
            tickets,
            database: job
                .target
                .table()
                .map(|table| (place.database_url.as_str(), table)),
            parts: self.parts(job.target, &running.servers),
            pid: &running.generator,
        };
        Outcome::of_load(&load.run(&self.loadtest, &self.logs).await?)
    }

    /// The processes whose costs are wanted: what the others do meanwhile is not for the target.
    pub(super) fn parts(&self, target: Target, servers: &[Server]) -> Vec<(String, u32)> {
        let own = servers
            .iter()
            .map(|server| (server.name.to_owned(), server.pid()));
        let stack = self.stack.iter().filter(|(name, _)| match target {
            Target::Bare => false,
            Target::Accept => name == "rabbitmq",
            _ => true,
        });
        own.chain(stack.cloned()).collect()
    }

    /// Starts a target's servers and waits until they are ready.
    pub(super) async fn start(&self, target: Target, place: &Place) -> Result<Running> {
        let address = process::free_address()?;
        let mut servers = Vec::new();
        let mut accept_admin = self.endpoint(target, &address)?;
        let mut store_admin = accept_admin.clone();
        match target {
            Target::Bare => {
                let listen = ["bare", "--listen", &address];
                servers.push(self.own("bare", &listen, &[]).await?);
            }
            Target::Baseline => {
                let arguments = ["baseline", "--listen", &address, "--queue", &place.name];
                let environment = [
                    ("AMQP_URL", self.amqp_url.as_str()),
                    ("DATABASE_URL", &place.database_url),
                ];
                servers.push(self.own("baseline", &arguments, &environment).await?);
            }
            Target::Accept => {
                let server = self.ticketd(("accept", target), place, &address).await?;
                accept_admin = server.1;
                servers.push(server.0);
            }
            Target::Split => {
                let store = self.ticketd(("consume", target), place, &address).await?;
                let accept = self.ticketd(("accept", target), place, &address).await?;
                (accept_admin, store_admin) = (accept.1, store.1);
                servers.extend([accept.0, store.0]);
            }
            _ => {
                let server = self.ticketd(("serve", target), place, &address).await?;
                (accept_admin, store_admin) = (server.1.clone(), server.1);
                servers.push(server.0);
            }
        }
        Ok(Running {
            servers,
            address,
            accept_admin,
            store_admin,
            generator: Cell::new(None),
        })
    }

    /// How a target is spoken to at this address.
    pub(super) fn endpoint(&self, target: Target, address: &str) -> Result<Endpoint> {
        let address = address.parse()?;
        match target {
            Target::Https => {
                access::settings(target, &self.certificates)?;
                Endpoint::encrypted(address, access::HOST, &self.certificates.ca())
            }
            _ => Ok(Endpoint::plain(address)),
        }
    }

    async fn own(
        &self,
        name: &'static str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Server> {
        let address = arguments.get(2).copied().unwrap_or_default();
        let mut server = Server::start(name, &self.loadtest, arguments, environment, &self.logs)?;
        server
            .ready(&Endpoint::plain(address.parse()?), None)
            .await?;
        Ok(server)
    }

    /// A role of ticketd that is ready, and where its metrics are.
    async fn ticketd(
        &self,
        of: (&'static str, Target),
        place: &Place,
        address: &str,
    ) -> Result<(Server, Endpoint)> {
        let (mut server, admin) = self.spawn_ticketd(of, place, address)?;
        server.ready(&admin, Some("/readyz")).await?;
        Ok((server, admin))
    }

    /// A role of ticketd that is about to start, as a target has it, and where its metrics will be.
    pub(super) fn spawn_ticketd(
        &self,
        (role, target): (&'static str, Target),
        place: &Place,
        address: &str,
    ) -> Result<(Server, Endpoint)> {
        let admin = process::free_address()?;
        let settings = access::settings(target, &self.certificates)?;
        let mut environment = vec![
            ("AMQP_URL", self.amqp_url.as_str()),
            ("QUEUE", &place.name),
            ("ADMIN_LISTEN", &admin),
            ("LAME_DUCK", "0"),
        ];
        environment.extend(settings.iter().map(|(name, value)| (*name, value.as_str())));
        if role != "consume" {
            environment.push(("LISTEN", address));
        }
        if role != "accept" {
            environment.push(("DATABASE_URL", &place.database_url));
        }
        let server = Server::start(role, &self.ticketd, &[role], &environment, &self.logs)?;
        Ok((server, self.endpoint(target, &admin)?))
    }

    /// Without a consumer, every accepted ticket must be counted as such and every group be in the queue.
    async fn check_accepted(
        &self,
        outcome: &Outcome,
        place: &Place,
        running: &Running,
    ) -> Result<()> {
        let page = process::get(&running.accept_admin, "/metrics").await?;
        let accepted = metrics::counter(&page, "ticketd_accepted_total");
        ensure!(
            accepted == outcome.accepted,
            "{} answers of 202 were seen, ticketd counts {accepted}",
            outcome.accepted
        );
        let groups = metrics::counter(&page, "ticketd_publish_groups_total");
        self.scratch.expect_messages(&place.name, groups).await
    }
}
