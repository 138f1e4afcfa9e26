//! Deliveries into batches, batches to writers, and an acknowledgement when
//! they are committed.
//!
//! A delivery belongs to its batch until the batch's COMMIT. While PostgreSQL
//! is away deliveries are held, not sent back: prefetch bounds how many. A
//! subscription that fails is given up whole; what it had not acknowledged is
//! delivered again, and the store makes that harmless.

mod ack_window;
mod batch;
mod bisect;
mod dedup;
mod delivery;
mod evidence;
mod held;
mod job;
mod known_products;
mod received_at;
mod schema;
mod subscription;
mod writer;

pub use dedup::rows_of;
use delivery::Delivered;
pub use delivery::Message;
pub use known_products::KnownProducts;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::stream::{once, select_all};
use futures_util::{Stream, StreamExt};
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::backoff::Backoff;
use crate::broker::{Broker, BrokerError, Link, watch_depth, within};
use crate::config::{DatabaseConfig, StoreSettings};
use crate::health::Health;
use crate::metrics::{QueueMetrics, StoreMetrics};
use crate::store::StoreError;
use batch::{Batch, Limits};
use evidence::Evidence;
use job::{Event, Job, Stored};
use received_at::Oddities;
use subscription::Session;
use writer::Writer;

/// Messages held unacknowledged of the queue that is mostly empty.
const UNROUTED_PREFETCH: u16 = 8;

/// How often the age of unacknowledged deliveries is looked at.
const HOLD_TICK: Duration = Duration::from_millis(500);

/// Stores what comes out of RabbitMQ until `drain` is cancelled; then it
/// finishes what it has begun. Fails if the database can never hold tickets.
pub async fn run(
    broker: Broker,
    database: DatabaseConfig,
    settings: StoreSettings,
    health: Arc<Health>,
    drain: CancellationToken,
) -> Result<(), StoreError> {
    // Before any wait: that PostgreSQL was never there is seen in these, too.
    let _registered = StoreMetrics::new();
    match drain.run_until_cancelled(schema::ready(&database)).await {
        Some(ensured) => ensured?,
        None => return Ok(()),
    }
    let mut consumer = Consumer::new(broker, &database, settings, health, drain);
    consumer.run().await;
    consumer.writers.shutdown().await;
    Ok(())
}

/// Why a subscription ended.
enum End {
    /// Everything that was begun is acknowledged, and the process is ending.
    Drained,
    /// It failed, or held deliveries for too long.
    Failed(String),
}

struct Consumer {
    broker: Broker,
    settings: StoreSettings,
    health: Arc<Health>,
    metrics: StoreMetrics,
    queue_metrics: QueueMetrics,
    oddities: Oddities,
    drain: CancellationToken,
    writers: JoinSet<()>,
    jobs: Vec<mpsc::Sender<Job>>,
    /// Which writers are connected and have nothing to do.
    idle: Vec<bool>,
    events: mpsc::Receiver<Event>,
    /// Kept so that the events never end.
    _reports: mpsc::Sender<Event>,
    /// Counts subscriptions, to tell the work of one from another's.
    session: u64,
}

impl Consumer {
    fn new(
        broker: Broker,
        database: &DatabaseConfig,
        settings: StoreSettings,
        health: Arc<Health>,
        drain: CancellationToken,
    ) -> Self {
        let count = usize::from(settings.writers);
        let (reports, events) = mpsc::channel(2 * count);
        let known = KnownProducts::new(settings.product_refresh);
        let known = Arc::new(Mutex::new(known));
        let evidence = Arc::<Evidence>::default();
        let mut writers = JoinSet::new();
        let jobs = (0..count)
            .map(|index| {
                let (jobs, work) = mpsc::channel(1);
                writers.spawn(
                    Writer::new(
                        index,
                        database.clone(),
                        work,
                        reports.clone(),
                        health.clone(),
                        known.clone(),
                        evidence.clone(),
                    )
                    .run(),
                );
                jobs
            })
            .collect();
        let (metrics, idle) = (StoreMetrics::new(), vec![false; count]);
        Self {
            broker,
            settings,
            health,
            metrics,
            queue_metrics: QueueMetrics::new(),
            oddities: Oddities::default(),
            drain,
            writers,
            jobs,
            idle,
            events,
            _reports: reports,
            session: 0,
        }
    }

    async fn run(&mut self) {
        let (mut backoff, mut was_up) = (Backoff::new(), false);
        let drain = self.drain.clone();
        while let Some(opened) = drain.run_until_cancelled(self.open()).await {
            let failed = match opened {
                Ok((link, mut session, deliveries)) => {
                    was_up = true;
                    let end = self.serve(&link, &mut session, deliveries).await;
                    if session.worked() {
                        backoff.reset();
                    }
                    match end {
                        End::Drained => return link.close().await,
                        End::Failed(why) => why,
                    }
                }
                // A right that was never there will not come by itself; one that was may.
                Err(BrokerError::Forbidden(why)) if !was_up => return self.health.give_up(why),
                Err(error) => format!("{error:#}"),
            };
            warn!("consuming from RabbitMQ stopped: {failed}");
            drain.run_until_cancelled(sleep(backoff.next())).await;
        }
    }

    /// Subscribes, once there is a writer that could store what comes.
    async fn open(
        &mut self,
    ) -> Result<
        (
            Link,
            Session,
            impl Stream<Item = Delivered> + Unpin + Send + use<>,
        ),
        BrokerError,
    > {
        while !self.idle.contains(&true) {
            if let Some(event) = self.events.recv().await {
                self.note(event);
            }
        }
        let link = self.broker.connect("consume").await?;
        let channel = link.channel().await?;
        let mut streams = Vec::new();
        let prefetches = [self.settings.prefetch, UNROUTED_PREFETCH];
        for (at, (queue, prefetch)) in self.broker.queues().into_iter().zip(prefetches).enumerate()
        {
            within(channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
            let subscribed = channel.basic_consume(
                queue,
                "".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            );
            let consumer = within(subscribed).await?;
            // The stream of a consumer that RabbitMQ cancels just ends: say so.
            let ended = once(std::future::ready(Delivered::Ended(
                "RabbitMQ cancelled the subscription".into(),
            )));
            let delivered = consumer.map(move |delivery| Delivered::of(at, delivery));
            streams.push(delivered.chain(ended).boxed());
        }
        self.session += 1;
        let limits = Limits {
            rows: self.settings.batch_rows as usize,
            bytes: self.settings.batch_bytes as usize,
            age: self.settings.batch_age,
        };
        let session = Session::new(channel, limits, &prefetches);
        Ok((link, session, select_all(streams)))
    }

    async fn serve(
        &mut self,
        link: &Link,
        session: &mut Session,
        deliveries: impl Stream<Item = Delivered> + Unpin + Send,
    ) -> End {
        info!("consuming from RabbitMQ");
        self.health.consuming(true);
        self.metrics.amqp_connected.increment(1.0);
        let (queues, metrics) = (self.broker.all_queues(), self.queue_metrics.clone());
        let end = tokio::select! {
            end = self.pump(session, deliveries) => end,
            never = watch_depth(link, queues, &metrics) => match never {},
        };
        metrics.unknown();
        self.oddities.tell_now();
        self.metrics.amqp_connected.decrement(1.0);
        self.health.consuming(false);
        session.abandoned.store(true, Ordering::Relaxed);
        end
    }

    async fn pump(
        &mut self,
        session: &mut Session,
        mut deliveries: impl Stream<Item = Delivered> + Unpin + Send,
    ) -> End {
        let mut tick = interval(HOLD_TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let drain = self.drain.clone();
        loop {
            if let Err(why) = self.hand_out(session) {
                return End::Failed(why);
            }
            if session.draining && session.under_way.is_empty() && session.batch.begun().is_none() {
                return End::Drained;
            }
            let step = tokio::select! {
                Some(delivered) = deliveries.next(), if !session.draining && !session.batch.is_full() => session.take(delivered, &mut self.oddities),
                Some(event) = self.events.recv() => match self.note(event) {
                    Some(stored) if stored.session == self.session => session.acknowledge(&stored).await,
                    _ => Ok(()),
                },
                () = due(&session.batch), if self.idle.contains(&true) => Ok(()),
                _ = tick.tick() => {
                    self.oddities.tell(Instant::now());
                    session.check_age(self.settings.hold_max)
                }
                () = drain.cancelled(), if !session.draining => {
                    session.draining = true;
                    Ok(())
                }
            };
            if let Err(why) = step {
                return End::Failed(why);
            }
        }
    }

    /// Gives the batch to a writer, if it is due and one is idle.
    fn hand_out(&mut self, session: &mut Session) -> Result<(), String> {
        let Some(begun) = session.batch.begun() else {
            return Ok(());
        };
        let due = session.batch.due().is_some_and(|due| due <= Instant::now());
        let writer = self.idle.iter().position(|&idle| idle);
        let writer = writer.filter(|_| due || session.draining);
        let Some((jobs, idle)) = writer.and_then(|at| self.jobs.get(at).zip(self.idle.get_mut(at)))
        else {
            return Ok(());
        };
        *idle = false;
        session.last_batch += 1;
        session.under_way.insert(session.last_batch, begun);
        let job = Job {
            session: self.session,
            batch: session.last_batch,
            spread: session.batch.leeway(),
            messages: session.batch.take(),
            abandoned: session.abandoned.clone(),
        };
        jobs.try_send(job)
            .map_err(|_full| "a writer took no batch though it was idle".into())
    }

    /// Takes note of a writer's news; returns what it stored.
    fn note(&mut self, event: Event) -> Option<Stored> {
        match event {
            Event::Idle(writer) => {
                if let Some(idle) = self.idle.get_mut(writer) {
                    *idle = true;
                }
                None
            }
            Event::Stored(stored) => Some(stored),
        }
    }
}

/// Waits until the batch is due; for ever while it is empty.
async fn due(batch: &Batch<Message>) {
    match batch.due() {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
