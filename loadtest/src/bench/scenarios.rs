//! One measurement: a server started afresh, loaded, checked and ended.

use std::cell::Cell;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use ticketd_testing::metrics;

use super::outcome::Outcome;
use super::process::{self, Load, Server};
use super::scratch::{Place, Scratch};
use super::target::Target;

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
    pub(super) accept_admin: String,
    pub(super) store_admin: String,
    /// The process of the load generator, once it runs.
    pub(super) generator: Cell<Option<u32>>,
}

impl Rig {
    /// With nothing measured yet.
    pub(super) fn new(
        programs: (PathBuf, PathBuf),
        amqp_url: String,
        stack: Vec<(String, u32)>,
        scratch: Scratch,
        logs: PathBuf,
    ) -> Self {
        Self {
            ticketd: programs.0,
            loadtest: programs.1,
            amqp_url,
            stack,
            scratch,
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
                let mut outcome = self.load(job, place, &running).await?;
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
            Target::Bare | Target::Split | Target::Ungrouped => {}
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
            address: &running.address,
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
        let mut accept_admin = address.clone();
        let mut store_admin = address.clone();
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
                let server = self.ticketd("accept", place, &address, &[]).await?;
                accept_admin = server.1;
                servers.push(server.0);
            }
            Target::EndToEnd | Target::Ungrouped => {
                let group_max = match target {
                    Target::Ungrouped => &[("PUBLISH_GROUP_MAX", "1")] as &[_],
                    _ => &[],
                };
                let server = self.ticketd("serve", place, &address, group_max).await?;
                (accept_admin, store_admin) = (server.1.clone(), server.1);
                servers.push(server.0);
            }
            Target::Split => {
                let store = self.ticketd("consume", place, &address, &[]).await?;
                let accept = self.ticketd("accept", place, &address, &[]).await?;
                (accept_admin, store_admin) = (accept.1, store.1);
                servers.extend([accept.0, store.0]);
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

    async fn own(
        &self,
        name: &'static str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Server> {
        let address = arguments.get(2).copied().unwrap_or_default();
        let mut server = Server::start(name, &self.loadtest, arguments, environment, &self.logs)?;
        server.ready(address, None).await?;
        Ok(server)
    }

    /// A role of ticketd that is ready, and where its metrics are.
    async fn ticketd(
        &self,
        role: &'static str,
        place: &Place,
        address: &str,
        more: &[(&str, &str)],
    ) -> Result<(Server, String)> {
        let (mut server, admin) = self.spawn_ticketd(role, place, address, more)?;
        server.ready(&admin, Some("/readyz")).await?;
        Ok((server, admin))
    }

    /// A role of ticketd that is about to start, and where its metrics will be.
    pub(super) fn spawn_ticketd(
        &self,
        role: &'static str,
        place: &Place,
        address: &str,
        more: &[(&str, &str)],
    ) -> Result<(Server, String)> {
        let admin = process::free_address()?;
        let mut environment = vec![
            ("AMQP_URL", self.amqp_url.as_str()),
            ("QUEUE", &place.name),
            ("ADMIN_LISTEN", &admin),
            ("LAME_DUCK", "0"),
        ];
        environment.extend_from_slice(more);
        if role != "consume" {
            environment.push(("LISTEN", address));
        }
        if role != "accept" {
            environment.push(("DATABASE_URL", &place.database_url));
        }
        let server = Server::start(role, &self.ticketd, &[role], &environment, &self.logs)?;
        Ok((server, admin))
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
