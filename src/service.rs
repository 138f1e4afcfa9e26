//! The parts of a role: started in the order of the flow, and drained in it.
//!
//! A [`Service`] listens from the beginning and connects to nothing; [`Service::run`]
//! starts the parts and, at shutdown, stops them:
//!
//! 1. not ready, though tickets are accepted for as long as a load balancer needs
//!    to notice (`LAME_DUCK`), and the last responses close their connections;
//! 2. no new connections, and no new tickets;
//! 3. requests in progress get their responses, so every publish its confirm;
//! 4. the consumer stores and acknowledges what it has begun.

mod accept;
mod check;
mod listen;
mod senders;
mod supervisor;

pub use check::check_files;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::broker::Broker;
use crate::config::{
    AcceptSettings, CONSUMER_ADMIN_LISTEN, CommonSettings, ConsumeRole, ConsumeSettings,
    DatabaseConfig, PageSwitch, PartitionSettings, ServeSettings, StoreSettings,
};
use crate::consumer;
use crate::health::Health;
use crate::http::{Hosts, Listener, Page, Probes, RejectionLog, Stored, TicketState, admin};
use crate::metrics::{Draining, HttpMetrics, Prometheus, UPKEEP_EVERY};
use crate::store::{check_tls, watch_dead_tickets, watch_partitions};
use crate::thread::Threads;
use accept::Accept;
use listen::Listening;
use senders::KnownSenders;
use supervisor::Supervisor;

/// The last part of the lame duck, in which responses close their connections:
/// before, their clients would only reconnect here.
const CLOSING_SHARE: f64 = 1.0 / 3.0;

/// How much of the grace requests and their confirms may use.
const HTTP_SHARE: f64 = 0.6;

/// The parts of a role, listening but not yet running.
pub struct Service {
    common: CommonSettings,
    broker: Broker,
    accept: Option<Accept>,
    consume: Option<Consume>,
    admin: Option<Listener>,
    listening: Listening,
    credentials: KnownSenders,
    prometheus: Prometheus,
    supervisor: Supervisor,
}

/// What stores them.
struct Consume {
    database: DatabaseConfig,
    settings: StoreSettings,
    partitions: PartitionSettings,
}

impl Service {
    /// Both roles in one process. Fails if an address cannot be listened on, as the
    /// others do; neither RabbitMQ nor PostgreSQL needs to be there.
    pub fn serve(settings: ServeSettings, prometheus: Prometheus) -> anyhow::Result<Self> {
        let consume = Consume::new(settings.consume)?;
        let accept = Accept::new(settings.accept, Some(consume.database.clone()))?;
        let mut service = Self::accepting(settings.common, accept, prometheus)?;
        service.consume = Some(consume);
        Ok(service)
    }

    /// Accepts tickets and publishes them.
    pub fn accept(settings: AcceptSettings, prometheus: Prometheus) -> anyhow::Result<Self> {
        let database = settings.database.config().transpose();
        let database = database.map(checked).transpose()?;
        let accept = Accept::new(settings.accept, database)?;
        Self::accepting(settings.common, accept, prometheus)
    }

    /// Stores published tickets.
    pub fn consume(settings: ConsumeSettings, prometheus: Prometheus) -> anyhow::Result<Self> {
        let consume = Consume::new(settings.consume)?;
        let listening = Listening::read(&settings.tls, None)?;
        let admin = match settings.admin_listen {
            Some(address) => Some(listening.admin(address)?),
            None => listening
                .admin(CONSUMER_ADMIN_LISTEN)
                .inspect_err(|error| {
                    warn!(error = %format_args!("{error:#}"), "no metrics, and no health check");
                })
                .ok(),
        };
        let mut service = Self::new(settings.common, listening, prometheus)?;
        service.admin = admin;
        service.consume = Some(consume);
        Ok(service)
    }

    fn new(
        common: CommonSettings,
        listening: Listening,
        prometheus: Prometheus,
    ) -> anyhow::Result<Self> {
        let broker = Broker::new(&common.broker).map_err(anyhow::Error::msg);
        Ok(Self {
            broker: broker.context("AMQP_URL")?,
            common,
            accept: None,
            consume: None,
            admin: None,
            listening,
            credentials: KnownSenders::default(),
            prometheus,
            supervisor: Supervisor::new(),
        })
    }

    fn accepting(
        common: CommonSettings,
        accept: Accept,
        prometheus: Prometheus,
    ) -> anyhow::Result<Self> {
        let mut service = Self::new(common, accept.listening.clone(), prometheus)?;
        let address = accept.settings.http.listen.admin_listen;
        service.admin = address
            .map(|address| service.listening.admin(address))
            .transpose()?;
        service.credentials = accept.credentials.clone();
        service.accept = Some(accept);
        Ok(service)
    }

    /// Whether SIGHUP has a meaning: there are files that may be read again, see [`Self::run`], or a
    /// supervisor that may ask for it.
    pub fn heeds_hangups(&self) -> bool {
        let reads_files = self.listening.reads_files() || self.credentials.reads_files();
        reads_files || self.supervisor.is_there()
    }

    /// Runs until `shutdown` resolves, for the lame duck after that, and until
    /// everything in progress is finished. Fails if that takes longer than the grace,
    /// or shuts down by itself if it can never do its work: the database cannot hold
    /// tickets, or RabbitMQ does not let it declare what it needs. Reads its files
    /// again each time that `read_again` says so.
    pub async fn run(
        self,
        shutdown: impl Future<Output = ()>,
        read_again: Arc<Notify>,
    ) -> anyhow::Result<()> {
        let health = Arc::new(Health::new(self.accept.is_some(), self.consume.is_some()));
        let draining = Draining::new();
        let probes = Probes {
            health: health.clone(),
            prometheus: self.prometheus,
        };
        let grace = self.common.shutdown.shutdown_grace;
        // Nobody sends a consumer anything that could go elsewhere.
        let lame_duck = self
            .accept
            .as_ref()
            .map_or(Duration::ZERO, |accept| accept.settings.http.lame_duck);
        let mut http = Part::new("requests and confirms");
        let mut consumer = Part::new("batches");
        let mut background = JoinSet::new();
        let threads = Threads::new();
        background.spawn(upkeep(probes.prometheus.clone()));
        let files = (self.listening, self.credentials);
        background.spawn(follow(read_again, files, self.supervisor.clone()));

        let rejections = RejectionLog::default();
        let logging = rejections.clone().run();
        background.spawn(async { match logging.await {} });

        let mut stored = None;
        if let Some(accept) = self.accept {
            let listen = &accept.settings.http.listen;
            let hosts = Hosts::new(&listen.page_hosts);
            let page = (listen.page == PageSwitch::On).then(|| Page::new(false, false));
            let reader = accept.start(
                &self.broker,
                &probes,
                &rejections,
                &threads,
                &mut http,
                &mut background,
            )?;
            stored = reader.map(|reader| Stored {
                state: TicketState {
                    reader,
                    senders: None,
                },
                listed: Some(hosts),
                page,
            });
        }
        if let Some(listener) = self.admin {
            let router = admin(&probes, stored, Arc::new(HttpMetrics::new()));
            // Never told to stop: health and metrics answer until the process ends.
            background.spawn(listener.serve(Arc::new(router), CancellationToken::new()));
        }
        let (fail, failed) = oneshot::channel();
        if let Some(role) = self.consume {
            role.watch(&mut background);
            let part = (&threads, &mut consumer);
            start_consumer(role, self.broker, health.clone(), fail, part)?;
        }
        let telling = self.supervisor.clone().tell_state(health.clone(), threads);
        background.spawn(async { match telling.await {} });

        let fatal = why_to_end(shutdown, failed, &health).await;
        draining.begin();
        background.spawn(self.supervisor.tell_end(lame_duck + grace));
        be_lame_duck(&health, lame_duck).await;
        health.drain();
        let drained = drain(http, consumer, grace).await;
        rejections.flush();
        drained?;
        fatal.map_or(Ok(()), Err)
    }
}

impl Consume {
    fn new(settings: ConsumeRole) -> anyhow::Result<Self> {
        Ok(Self {
            database: checked(settings.database.config())?,
            settings: settings.store,
            partitions: settings.partitions,
        })
    }

    /// Starts what looks at the tables, for as long as the process is there.
    fn watch(&self, background: &mut JoinSet<()>) {
        let watched = watch_dead_tickets(self.database.clone());
        background.spawn(async { match watched.await {} });
        let watched = watch_partitions(self.database.clone(), self.partitions.clone());
        background.spawn(async { match watched.await {} });
    }
}

/// The way to the database, whose files are there and can be used.
fn checked(database: Result<DatabaseConfig, String>) -> anyhow::Result<DatabaseConfig> {
    let database = database.map_err(anyhow::Error::msg);
    let database = database.context("DATABASE_URL")?;
    check_tls(&database).context("DATABASE_URL")?;
    Ok(database)
}

/// Starts the consumer, on a thread of its own: reading and encoding a full batch
/// takes several milliseconds at a stretch, for which no connection could be
/// accepted here.
fn start_consumer(
    role: Consume,
    broker: Broker,
    health: Arc<Health>,
    fail: oneshot::Sender<anyhow::Error>,
    (threads, consumer): (&Threads, &mut Part),
) -> anyhow::Result<()> {
    let Consume {
        database, settings, ..
    } = role;
    let run = consumer::run(broker, database, settings, health, consumer.stop.clone());
    let part = async move {
        if let Err(error) = run.await {
            // Nobody receives it once the process is shutting down anyway.
            let _unheard = fail.send(anyhow::Error::new(error).context("DATABASE_URL"));
        }
    };
    let ended = threads.run("consumer", part)?;
    consumer.tasks.spawn(async {
        if ended.await.is_err() {
            warn!("the consumer's thread panicked");
        }
    });
    Ok(())
}

/// Waits until the process has to end; returns why, unless it was told to.
async fn why_to_end(
    shutdown: impl Future<Output = ()>,
    failed: oneshot::Receiver<anyhow::Error>,
    health: &Health,
) -> Option<anyhow::Error> {
    let fatal = tokio::select! {
        () = shutdown => None,
        Ok(error) = failed => Some(error),
        error = health.given_up() => Some(anyhow::Error::msg(error).context("AMQP_URL")),
    };
    if let Some(error) = &fatal {
        error!("{error:#}");
    }
    fatal
}

/// Not ready, but accepting tickets: a load balancer has to notice first.
async fn be_lame_duck(health: &Health, duration: Duration) {
    if duration.is_zero() {
        return;
    }
    info!(lame_duck = ?duration, "shutting down: not ready, tickets are still accepted");
    health.lame_duck();
    let closing = duration.mul_f64(CLOSING_SHARE);
    sleep(duration - closing).await;
    health.close_connections();
    sleep(closing).await;
}

/// Lets requests get their confirms, then the consumer store what it has begun.
/// Fails if that takes longer than the grace.
async fn drain(mut http: Part, mut consumer: Part, grace: Duration) -> anyhow::Result<()> {
    info!(?grace, "shutting down: draining");
    let started = Instant::now();
    // A client must not use up the time in which the batch is stored.
    let answered = http.stop(grace.mul_f64(HTTP_SHARE)).await;
    let left = grace.saturating_sub(started.elapsed());
    let stored = consumer.stop(left).await;
    ensure!(
        answered && stored,
        "SHUTDOWN_GRACE ran out; what was not finished will be redelivered"
    );
    Ok(())
}

/// A part that is told to stop, and waited for.
struct Part {
    name: &'static str,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Part {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Stops it; false if that takes longer than the grace.
    async fn stop(&mut self, grace: Duration) -> bool {
        let started = Instant::now();
        self.stop.cancel();
        let stopped = timeout(grace, async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Err(error) = ended {
                    warn!(part = self.name, %error, "a task failed");
                }
            }
        });
        let in_time = stopped.await.is_ok();
        info!(part = self.name, elapsed = ?started.elapsed(), in_time, "drained");
        in_time
    }
}

/// Reads the files again each time that it is told to, where that may take its time: they may be far
/// away.
async fn follow(
    told: Arc<Notify>,
    (listening, credentials): (Listening, KnownSenders),
    supervisor: Supervisor,
) {
    loop {
        told.notified().await;
        supervisor.tell_reload().await;
        let (listening, credentials) = (listening.clone(), credentials.clone());
        let read = spawn_blocking(move || {
            listening.read_again();
            credentials.read_again();
        });
        if let Err(error) = read.await {
            error!(%error, "reading the files again failed");
        }
        supervisor.tell_reloaded().await;
    }
}

async fn upkeep(prometheus: Prometheus) {
    let mut tick = interval(UPKEEP_EVERY);
    loop {
        tick.tick().await;
        prometheus.run_upkeep();
    }
}
