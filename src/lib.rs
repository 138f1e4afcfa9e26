//! ticketd takes sales receipts over HTTP and puts each one into PostgreSQL
//! exactly once, through RabbitMQ.
//!
//! ```text
//! POST /ticket -> http -> publisher -> RabbitMQ -> consumer -> batch -> parser -> copy -> store -> PostgreSQL
//!      202 <- confirm ----'                            ack <- COMMIT ------------------------'
//! ```
//!
//! A ticket is answered 202 only once RabbitMQ has confirmed it, and taken off
//! RabbitMQ only once PostgreSQL has committed it. Whatever lies between may
//! happen twice; the ticket's id, given before all that, makes it count once.
//!
//! [`Service::bind`] listens and connects to nothing; [`Service::run`] starts the
//! parts and, when told to end, stops them in the order of the flow:
//!
//! 1. not ready, and no new connections;
//! 2. requests under way get their answers, so every publish its confirm;
//! 3. the consumer stores and acknowledges what it has begun.

mod backoff;
mod batch;
mod broker;
mod check;
mod clock;
pub mod config;
mod consumer;
pub mod copy;
mod dead;
mod health;
mod healthcheck;
mod http;
pub mod message;
mod metrics;
pub mod parser;
mod publisher;
mod status;
mod store;
pub mod ticket;

pub use check::check;
pub use dead::dead;
pub use healthcheck::healthcheck;
pub use metrics::install as install_metrics;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use broker::Broker;
use config::{
    AcceptSettings, BrokerSettings, ConsumeSettings, DatabaseSettings, INFLIGHT_BYTES_MAX,
    PublishSettings, ServeSettings, StoreSettings,
};
use health::Health;
use http::{Server, Workers};
use metrics::{HttpMetrics, UPKEEP_EVERY};
use publisher::{Limits, publisher};
use status::{Status, status};

/// What to run: one of the roles, or both, with the settings of each part.
#[derive(Debug)]
pub struct Parts {
    broker: BrokerSettings,
    accept: Option<Accept>,
    consume: Option<Consume>,
    admin_listen: Option<SocketAddr>,
    grace: Duration,
}

#[derive(Debug)]
struct Accept {
    listen: SocketAddr,
    database: Option<tokio_postgres::Config>,
    publish: PublishSettings,
}

#[derive(Debug)]
struct Consume {
    database: tokio_postgres::Config,
    store: StoreSettings,
}

impl From<ServeSettings> for Parts {
    fn from(settings: ServeSettings) -> Self {
        let database = settings.database.database_url;
        Self {
            broker: settings.broker,
            accept: Some(Accept {
                listen: settings.listen.listen,
                database: Some(database.clone()),
                publish: settings.publish,
            }),
            consume: Some(Consume {
                database,
                store: settings.store,
            }),
            admin_listen: settings.listen.admin_listen,
            grace: settings.shutdown.shutdown_grace,
        }
    }
}

impl From<AcceptSettings> for Parts {
    fn from(settings: AcceptSettings) -> Self {
        Self {
            broker: settings.broker,
            accept: Some(Accept {
                listen: settings.listen.listen,
                database: settings.database_url,
                publish: settings.publish,
            }),
            consume: None,
            admin_listen: settings.listen.admin_listen,
            grace: settings.shutdown.shutdown_grace,
        }
    }
}

impl From<ConsumeSettings> for Parts {
    fn from(settings: ConsumeSettings) -> Self {
        Self {
            broker: settings.broker,
            accept: None,
            consume: Some(Consume {
                database: settings.database.database_url,
                store: settings.store,
            }),
            admin_listen: settings.admin_listen,
            grace: settings.shutdown.shutdown_grace,
        }
    }
}

/// The parts, listening but not yet running.
pub struct Service {
    broker: Broker,
    accept: Option<(Server, Accept)>,
    consume: Option<Consume>,
    admin: Option<Server>,
    grace: Duration,
    prometheus: PrometheusHandle,
}

impl Service {
    /// Listens on every address; fails if one cannot be had. Neither RabbitMQ
    /// nor PostgreSQL needs to be there.
    pub fn bind(parts: Parts, prometheus: PrometheusHandle) -> anyhow::Result<Self> {
        let bind = |setting: &str, address: SocketAddr| {
            let server = Server::bind(address)
                .with_context(|| format!("cannot listen on {setting} {address}"))?;
            info!("{setting} {}", server.address()?);
            anyhow::Ok(server)
        };
        let accept = parts
            .accept
            .map(|accept| anyhow::Ok((bind("LISTEN", accept.listen)?, accept)))
            .transpose()?;
        let admin = parts
            .admin_listen
            .map(|address| bind("ADMIN_LISTEN", address))
            .transpose()?;
        Ok(Self {
            broker: Broker::new(&parts.broker)
                .map_err(anyhow::Error::msg)
                .context("AMQP_URL")?,
            accept,
            consume: parts.consume,
            admin,
            grace: parts.grace,
            prometheus,
        })
    }

    /// Runs until `shutdown` resolves and everything under way is finished.
    /// Fails if that takes longer than the grace.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let workers = if self.accept.is_some() {
            available_parallelism().map_or(1, usize::from)
        } else {
            0
        };
        let health = Arc::new(Health::new(u32::try_from(workers)?, self.consume.is_some()));
        let (stop_http, stop_consumer) = (CancellationToken::new(), CancellationToken::new());

        let mut aside = JoinSet::new();
        aside.spawn(upkeep(self.prometheus.clone()));
        let mut http = JoinSet::new();
        if let Some((server, accept)) = self.accept {
            let state = accept.database.clone().map(|database| {
                let (status, task) = status(database);
                aside.spawn(task);
                status
            });
            let services = (0..workers).map(|_| {
                let limits = limits(&accept.publish, workers);
                let (publisher, task) = publisher(self.broker.clone(), limits, health.clone());
                let mut service = service(&health, &self.prometheus, state.clone());
                service.publisher = Some(publisher);
                service.body_max = accept.publish.body_max as usize;
                (Arc::new(service), task)
            });
            let workers = Workers::start(services, &stop_http)?;
            http.spawn(server.serve_on(workers, stop_http.clone()));
        }
        if let Some(server) = self.admin {
            let service = Arc::new(service(&health, &self.prometheus, None));
            // Never told to end: health and metrics answer until the process does.
            aside.spawn(server.serve(service, CancellationToken::new()));
        }
        let mut consumer = JoinSet::new();
        if let Some(consume) = self.consume {
            consumer.spawn(consumer::run(
                self.broker.clone(),
                consume.database,
                consume.store,
                health.clone(),
                stop_consumer.clone(),
            ));
        }

        shutdown.await;
        info!("ending: nothing new is taken");
        health.drain();
        let drain = async {
            stop(&stop_http, &mut http, "requests and confirms").await;
            stop(&stop_consumer, &mut consumer, "the batch under way").await;
        };
        if timeout(self.grace, drain).await.is_err() {
            bail!("SHUTDOWN_GRACE ran out; what was not finished will be delivered again");
        }
        Ok(())
    }
}

/// Ends a part and waits for it.
async fn stop(signal: &CancellationToken, part: &mut JoinSet<()>, what: &str) {
    let started = Instant::now();
    signal.cancel();
    while let Some(ended) = part.join_next().await {
        if let Err(error) = ended {
            warn!("{what}: {error}");
        }
    }
    info!(elapsed = ?started.elapsed(), "finished {what}");
}

fn limits(publish: &PublishSettings, workers: usize) -> Limits {
    Limits {
        group: publish.publish_group_max as usize,
        inflight: (publish.inflight_max as usize).div_ceil(workers),
        inflight_bytes: INFLIGHT_BYTES_MAX / workers,
        confirm_timeout: publish.confirm_timeout,
    }
}

fn service(
    health: &Arc<Health>,
    prometheus: &PrometheusHandle,
    status: Option<Status>,
) -> http::Service {
    http::Service {
        publisher: None,
        status,
        body_max: 0,
        health: health.clone(),
        prometheus: prometheus.clone(),
        metrics: HttpMetrics::new(),
    }
}

async fn upkeep(prometheus: PrometheusHandle) {
    let mut tick = interval(UPKEEP_EVERY);
    loop {
        tick.tick().await;
        prometheus.run_upkeep();
    }
}

/// Creates the tables, or brings them up to date.
pub async fn migrate(settings: &DatabaseSettings) -> anyhow::Result<()> {
    store::migrate(&settings.database_url)
        .await
        .context("DATABASE_URL")
}
