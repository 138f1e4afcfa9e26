//! One measurement: a server started afresh, loaded, checked and ended.

use std::cell::Cell;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::metrics;
use super::process::{self, Load, Server};
use super::scratch::{Place, Scratch};
use super::target::Target;

/// What a naive pipeline is taken to store before one was measured.
const NAIVE_PER_SECOND: f64 = 1000.0;

/// Tickets that each connection sends to it at least, so that the last one takes part too.
const NAIVE_TICKETS_MIN: u64 = 2;

/// What to do in one measurement.
#[derive(Clone, Copy)]
pub(super) struct Job {
    pub(super) target: Target,
    pub(super) connections: u32,
    pub(super) seconds: f64,
    /// Tickets per second of an open loop.
    pub(super) rate: Option<f64>,
    /// Most tickets to send.
    pub(super) tickets: Option<u64>,
}

/// What one part used.
#[derive(Clone)]
pub(super) struct PartCost {
    pub(super) name: String,
    pub(super) cpu_seconds_per_million: Option<f64>,
    pub(super) memory_mib: f64,
}

/// What came of a measurement.
#[derive(Clone)]
pub(super) struct Outcome {
    /// Tickets per second: stored ones where the target stores, else accepted ones.
    pub(super) per_second: f64,
    pub(super) accepted: u64,
    /// Requests that were not answered 202.
    pub(super) refused: u64,
    /// Arrivals of an open loop that found no free connection.
    pub(super) unsent: u64,
    /// Rows of the table and of `dead_tickets`; none where nothing is stored.
    pub(super) stored: Option<(i64, i64)>,
    pub(super) lost: i64,
    pub(super) twice: i64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) p999_ms: f64,
    /// Upper bound of the 99th percentile from received to committed, as ticketd's histogram tells it.
    pub(super) committed_p99_ms: Option<f64>,
    pub(super) costs: Vec<PartCost>,
}

impl Outcome {
    fn of_load(figures: &Value) -> Result<Self> {
        let number = |name: &str| {
            figures[name]
                .as_f64()
                .with_context(|| format!("the load generator does not tell {name}"))
        };
        let stored = &figures["stored"];
        let count = |name: &str| stored[name].as_i64().unwrap_or(0);
        let accepted = figures["accepted"].as_u64().unwrap_or(0);
        let sent = figures["sent"].as_u64().unwrap_or(0);
        let per_second = match stored {
            Value::Null => number("accepted_per_second")?,
            // Without this figure the rows never all came.
            stored => stored["per_second"].as_f64().unwrap_or(0.0),
        };
        let costs = figures["costs"].as_array().into_iter().flatten();
        Ok(Self {
            per_second,
            accepted,
            refused: sent.saturating_sub(accepted),
            unsent: figures["unsent"].as_u64().unwrap_or(0),
            stored: (!stored.is_null()).then(|| (count("valid") + count("invalid"), count("dead"))),
            lost: count("lost"),
            twice: count("duplicates"),
            p50_ms: number("latency_p50_ms")?,
            p99_ms: number("latency_p99_ms")?,
            p999_ms: number("latency_p999_ms")?,
            committed_p99_ms: None,
            costs: costs.filter_map(part_cost).collect(),
        })
    }

    /// Every accepted ticket must have been found once.
    pub(super) fn check(&self) -> Result<()> {
        ensure!(
            self.accepted > 0 && self.lost == 0 && self.twice == 0,
            "{} accepted, {} lost, {} stored twice",
            self.accepted,
            self.lost,
            self.twice
        );
        Ok(())
    }

    /// The peak resident memory of a part.
    pub(super) fn memory_mib(&self, part: &str) -> Option<f64> {
        let cost = self.costs.iter().find(|cost| cost.name == part)?;
        Some(cost.memory_mib)
    }
}

fn part_cost(cost: &Value) -> Option<PartCost> {
    Some(PartCost {
        name: cost["name"].as_str()?.to_owned(),
        cpu_seconds_per_million: cost["cpu_seconds_per_million"].as_f64(),
        memory_mib: cost["memory_bytes"].as_f64()? / 1048576.0,
    })
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
    naive_per_second: Cell<f64>,
}

/// A target that is up.
pub(super) struct Running {
    pub(super) servers: Vec<Server>,
    /// Where tickets go.
    pub(super) address: String,
    /// Where /metrics is, of the accepting and of the storing process.
    pub(super) accept_admin: String,
    pub(super) store_admin: String,
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
            naive_per_second: Cell::new(NAIVE_PER_SECOND),
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
            Target::Naive => self.naive_per_second.set(outcome.per_second),
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
            Target::Naive => {
                let storable = (self.naive_per_second.get() * job.seconds) as u64;
                Some(storable.max(u64::from(job.connections) * NAIVE_TICKETS_MIN))
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
        };
        Outcome::of_load(&load.run(&self.loadtest, &self.logs).await?)
    }

    /// The processes whose costs are wanted: what the others do meanwhile is not for the target.
    pub(super) fn parts(&self, target: Target, servers: &[Server]) -> Vec<(String, u32)> {
        let own = servers
            .iter()
            .filter_map(|server| Some((server.name.to_owned(), server.pid()?)));
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
            Target::Naive => {
                let arguments = ["naive", "--listen", &address, "--queue", &place.name];
                let environment = [
                    ("AMQP_URL", self.amqp_url.as_str()),
                    ("DATABASE_URL", &place.database_url),
                ];
                servers.push(self.own("naive", &arguments, &environment).await?);
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn figures(stored: &Value) -> Value {
        json!({
            "sent": 12, "accepted": 10, "accepted_per_second": 50.0, "unsent": 0, "stored": stored,
            "latency_p50_ms": 1.0, "latency_p99_ms": 2.0, "latency_p999_ms": 3.0,
            "costs": [{"name": "serve", "cpu_seconds_per_million": 4.0, "memory_bytes": 2_097_152}],
        })
    }

    #[test]
    fn a_rate_is_of_stored_tickets_where_they_are_stored() {
        let outcome = Outcome::of_load(&figures(&Value::Null)).unwrap();
        assert_eq!((outcome.per_second, outcome.refused), (50.0, 2));
        assert_eq!(outcome.memory_mib("serve"), Some(2.0));
        let stored = json!({"valid": 9, "invalid": 0, "dead": 1, "lost": 0, "duplicates": 0, "per_second": 40.0});
        let outcome = Outcome::of_load(&figures(&stored)).unwrap();
        assert_eq!((outcome.per_second, outcome.stored), (40.0, Some((9, 1))));
        assert!(outcome.check().is_ok());
    }

    #[test]
    fn a_lost_or_doubled_ticket_is_not_sound() {
        for (lost, duplicates) in [(1, 0), (0, 1)] {
            let stored = json!({"valid": 10, "lost": lost, "duplicates": duplicates});
            assert!(
                Outcome::of_load(&figures(&stored))
                    .unwrap()
                    .check()
                    .is_err()
            );
        }
    }
}
