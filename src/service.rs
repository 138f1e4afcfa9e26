//! The parts of a role: started in the order of the flow, and stopped in it.
//!
//! [`Service::bind`] listens and connects to nothing; [`Service::run`] starts the
//! parts and, when told to end, stops them:
//!
//! 1. not ready, though tickets are taken for as long as a load balancer needs to
//!    notice, and the last answers end their connections;
//! 2. no new connections, and no new tickets;
//! 3. requests under way get their answers, so every publish its confirm;
//! 4. the consumer stores and acknowledges what it has begun.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::broker::Broker;
use crate::config::{
    AcceptSettings, BrokerSettings, CONSUMER_ADMIN_LISTEN, ConsumeSettings, INFLIGHT_BYTES_MAX,
    PublishSettings, ServeSettings, StoreSettings,
};
use crate::consumer;
use crate::health::Health;
use crate::http;
use crate::http::{Bodies, Server, Workers};
use crate::metrics::{HttpMetrics, UPKEEP_EVERY};
use crate::publisher::{Limits, Publisher, publishers};
use crate::store::{Status, status};
use crate::thread::run_apart;

/// The last part of the lame duck, in which answers end their connections:
/// before, their clients would only come back here.
const SEEING_OFF_SHARE: f64 = 1.0 / 3.0;

/// How much of the grace requests and their confirms may use.
const HTTP_SHARE: f64 = 0.6;

/// What to run: one of the roles, or both, with the settings of each part.
#[derive(Debug)]
pub struct Parts {
    broker: BrokerSettings,
    accept: Option<Accept>,
    consume: Option<Consume>,
    admin: Option<AdminListen>,
    lame_duck: Duration,
    grace: Duration,
}

#[derive(Debug)]
struct Accept {
    listen: SocketAddr,
    database: Option<tokio_postgres::Config>,
    publish: PublishSettings,
}

/// Where metrics and health answer besides.
#[derive(Debug, Clone, Copy)]
enum AdminListen {
    /// Here.
    At(SocketAddr),
    /// Here, unless another process does so already.
    IfFree(SocketAddr),
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
            lame_duck: settings.publish.lame_duck,
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
            admin: settings.listen.admin_listen.map(AdminListen::At),
            grace: settings.shutdown.shutdown_grace,
        }
    }
}

impl From<AcceptSettings> for Parts {
    fn from(settings: AcceptSettings) -> Self {
        Self {
            lame_duck: settings.publish.lame_duck,
            broker: settings.broker,
            accept: Some(Accept {
                listen: settings.listen.listen,
                database: settings.database_url,
                publish: settings.publish,
            }),
            consume: None,
            admin: settings.listen.admin_listen.map(AdminListen::At),
            grace: settings.shutdown.shutdown_grace,
        }
    }
}

impl From<ConsumeSettings> for Parts {
    fn from(settings: ConsumeSettings) -> Self {
        let admin = settings.admin_listen.map(AdminListen::At);
        Self {
            broker: settings.broker,
            accept: None,
            consume: Some(Consume {
                database: settings.database.database_url,
                store: settings.store,
            }),
            admin: admin.or(Some(AdminListen::IfFree(CONSUMER_ADMIN_LISTEN))),
            // Nobody sends it anything that could go elsewhere.
            lame_duck: Duration::ZERO,
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
    lame_duck: Duration,
    grace: Duration,
    prometheus: PrometheusHandle,
}

impl Service {
    /// Listens on every address; fails if one cannot be had. Neither RabbitMQ
    /// nor PostgreSQL needs to be there.
    pub fn bind(parts: Parts, prometheus: PrometheusHandle) -> anyhow::Result<Self> {
        let accept = parts
            .accept
            .map(|accept| anyhow::Ok((bind("LISTEN", accept.listen)?, accept)))
            .transpose()?;
        let admin = match parts.admin {
            None => None,
            Some(AdminListen::At(address)) => Some(bind("ADMIN_LISTEN", address)?),
            Some(AdminListen::IfFree(address)) => bind("ADMIN_LISTEN", address)
                .inspect_err(|why| warn!("no metrics, and no answer to a health check: {why:#}"))
                .ok(),
        };
        Ok(Self {
            broker: Broker::new(&parts.broker)
                .map_err(anyhow::Error::msg)
                .context("AMQP_URL")?,
            accept,
            consume: parts.consume,
            admin,
            lame_duck: parts.lame_duck,
            grace: parts.grace,
            prometheus,
        })
    }

    /// Runs until `shutdown` resolves, for the lame duck after that, and until
    /// everything under way is finished. Fails if that takes longer than the grace,
    /// or ends by itself if it can never do its work: the database cannot hold tickets,
    /// or RabbitMQ does not let it declare what it needs.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let workers = match self.accept {
            Some(_) => available_parallelism().map_or(1, usize::from),
            None => 0,
        };
        let shared = Shared {
            health: Arc::new(Health::new(self.accept.is_some(), self.consume.is_some())),
            prometheus: self.prometheus,
        };
        let mut http = Part::new("requests and confirms");
        let mut consumer = Part::new("the batch under way");
        let (fail, failed) = oneshot::channel();
        let mut aside = JoinSet::new();
        aside.spawn(upkeep(shared.prometheus.clone()));

        if let Some((server, accept)) = self.accept {
            let status = accept.database.map(|database| {
                let (status, task) = status(database);
                aside.spawn(task);
                status
            });
            let services = shared.accepting(&self.broker, &accept.publish, workers, status);
            let workers = Workers::start(services, &http.stop)?;
            http.tasks
                .spawn(server.serve_on(workers, http.stop.clone()));
        }
        if let Some(server) = self.admin {
            let service = Arc::new(shared.service(None, None, Bodies::new(0, 0)));
            // Never told to end: health and metrics answer until the process does.
            aside.spawn(server.serve(service, CancellationToken::new()));
        }
        if let Some(consume) = self.consume {
            let (health, stop) = (shared.health.clone(), consumer.stop.clone());
            let Consume { database, store } = consume;
            let run = consumer::run(self.broker, database, store, health, stop);
            let part = async move {
                if let Err(why) = run.await {
                    // Nobody hears it once the process is ending anyway.
                    let _unheard = fail.send(why);
                }
            };
            // Reading and encoding a full batch takes several milliseconds at a
            // stretch, for which no connection could be accepted here.
            let ended = run_apart("consumer", part)?;
            consumer.tasks.spawn(async {
                if ended.await.is_err() {
                    warn!("the consumer's thread failed");
                }
            });
        }

        let refused = tokio::select! {
            () = shutdown => None,
            Ok(why) = failed => Some(anyhow::Error::new(why).context("DATABASE_URL")),
            why = shared.health.given_up() => Some(anyhow::Error::msg(why).context("AMQP_URL")),
        };
        if let Some(why) = &refused {
            error!("{why:#}");
        }
        be_lame_duck(&shared.health, self.lame_duck).await;
        info!("ending: nothing new is taken");
        shared.health.drain();
        let draining = Instant::now();
        // A client must not use up the time in which the batch is stored.
        let answered = http.end(self.grace.mul_f64(HTTP_SHARE)).await;
        let left = self.grace.saturating_sub(draining.elapsed());
        let stored = consumer.end(left).await;
        ensure!(
            answered && stored,
            "SHUTDOWN_GRACE ran out; what was not finished will be delivered again"
        );
        refused.map_or(Ok(()), Err)
    }
}

fn bind(setting: &str, address: SocketAddr) -> anyhow::Result<Server> {
    let server =
        Server::bind(address).with_context(|| format!("cannot listen on {setting} {address}"))?;
    info!("{setting} {}", server.address()?);
    Ok(server)
}

/// Not ready, but taking tickets: who deals them round has to notice first.
async fn be_lame_duck(health: &Health, lasts: Duration) {
    if lasts.is_zero() {
        return;
    }
    info!("not ready any more; tickets are taken for another {lasts:?} (LAME_DUCK)");
    health.lame_duck();
    let seeing_off = lasts.mul_f64(SEEING_OFF_SHARE);
    sleep(lasts - seeing_off).await;
    health.see_off();
    sleep(seeing_off).await;
}

/// What every part of the process looks at.
struct Shared {
    health: Arc<Health>,
    prometheus: PrometheusHandle,
}

impl Shared {
    /// A service for each worker, with the task that belongs beside it.
    fn accepting(
        &self,
        broker: &Broker,
        publish: &PublishSettings,
        workers: usize,
        status: Option<Status>,
    ) -> impl Iterator<Item = (Arc<http::Service>, impl Future<Output = ()> + Send + use<>)> {
        let limits = limits(publish);
        let bodies = Bodies::new(publish.body_max as usize, limits.inflight_bytes);
        let publishers = publishers(broker.clone(), limits, self.health.clone(), workers);
        publishers.map(move |(publisher, task)| {
            let service = self.service(Some(publisher), status.clone(), bodies.clone());
            (Arc::new(service), task)
        })
    }

    fn service(
        &self,
        publisher: Option<Publisher>,
        status: Option<Status>,
        bodies: Bodies,
    ) -> http::Service {
        http::Service {
            publisher,
            status,
            bodies,
            health: self.health.clone(),
            prometheus: self.prometheus.clone(),
            metrics: HttpMetrics::new(),
        }
    }
}

/// A part that is told to end, and waited for.
struct Part {
    what: &'static str,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Part {
    fn new(what: &'static str) -> Self {
        Self {
            what,
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Ends it; false if that takes too long.
    async fn end(&mut self, grace: Duration) -> bool {
        let started = Instant::now();
        self.stop.cancel();
        let ended = timeout(grace, async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Err(error) = ended {
                    warn!("{}: {error}", self.what);
                }
            }
        });
        let in_time = ended.await.is_ok();
        info!(elapsed = ?started.elapsed(), in_time, "finished {}", self.what);
        in_time
    }
}

fn limits(publish: &PublishSettings) -> Limits {
    Limits {
        group: publish.publish_group_max as usize,
        inflight: publish.inflight_max as usize,
        inflight_bytes: INFLIGHT_BYTES_MAX,
        confirm_timeout: publish.confirm_timeout,
    }
}

async fn upkeep(prometheus: PrometheusHandle) {
    let mut tick = interval(UPKEEP_EVERY);
    loop {
        tick.tick().await;
        prometheus.run_upkeep();
    }
}
