//! The consumer's run loop: subscribes, dispatches batches, acknowledges what is stored.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::select_all;
use tokio::time::{self, MissedTickBehavior, interval_at, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::backlog::Backlog;
use super::batch::BatchLimits;
use super::dead_log::DeadLog;
use super::error::SubscriptionError;
use super::received_at::AnomalyLog;
use super::schema;
use super::subscription::{Deliveries, PURPOSE, Subscription, subscribe};
use super::writer_pool::WriterPool;
use crate::backoff::Backoff;
use crate::broker::{Broker, BrokerError, Link, watch_depth};
use crate::config::{DatabaseConfig, StoreSettings};
use crate::health::Health;
use crate::metrics::{LinkGuard, QueueMetrics, StoreMetrics};
use crate::store::StoreError;

/// Maximum of messages held unacknowledged of the queue that is mostly empty.
const UNROUTED_PREFETCH: u16 = 8;

/// How often the age of unacknowledged deliveries is checked.
const HOLD_TICK: Duration = Duration::from_millis(500);

/// Stores what comes out of RabbitMQ until `drain` is cancelled; then it finishes what it has
/// begun. Fails if the database can never hold tickets.
pub(crate) async fn run(
    broker: Broker,
    database: DatabaseConfig,
    settings: StoreSettings,
    health: Arc<Health>,
    drain: CancellationToken,
) -> Result<(), StoreError> {
    // Before any wait: that PostgreSQL was never there is seen in these, too.
    let metrics = StoreMetrics::new();
    let backlog = Backlog::new();
    let dead = DeadLog::default();
    match drain.run_until_cancelled(schema::ready(&database)).await {
        Some(ready) => ready?,
        None => return Ok(()),
    }
    let mut consumer = Consumer {
        writers: WriterPool::start(
            settings.writers,
            settings.product_refresh,
            &database,
            &health,
            dead.clone(),
        ),
        broker,
        settings,
        health,
        metrics,
        queue_metrics: QueueMetrics::new(),
        backlog: backlog.clone(),
        anomalies: AnomalyLog::default(),
        drain,
        subscriptions: 0,
    };
    tokio::select! {
        () = consumer.run() => {}
        never = backlog.watch() => match never {},
        never = dead.clone().run() => match never {},
    }
    consumer.writers.shutdown().await;
    dead.flush();
    Ok(())
}

struct Consumer {
    broker: Broker,
    settings: StoreSettings,
    health: Arc<Health>,
    metrics: StoreMetrics,
    queue_metrics: QueueMetrics,
    backlog: Backlog,
    anomalies: AnomalyLog,
    drain: CancellationToken,
    writers: WriterPool,
    /// How many there have been, to tell the batches of one from another's.
    subscriptions: u64,
}

impl Consumer {
    async fn run(&mut self) {
        let (mut backoff, mut was_up) = (Backoff::new(), false);
        let drain = self.drain.clone();
        while let Some(opened) = drain.run_until_cancelled(self.open()).await {
            let error = match opened {
                Ok((link, mut subscription, deliveries)) => {
                    was_up = true;
                    let served = self.serve(&link, &mut subscription, deliveries).await;
                    self.backlog.disconnected(subscription.oldest_us());
                    if subscription.worked() {
                        backoff.reset();
                    }
                    match served {
                        Ok(()) => return link.close().await,
                        Err(error) => error,
                    }
                }
                // A right that was never there will not come by itself; one that was may.
                Err(BrokerError::Forbidden(why)) if !was_up => return self.health.give_up(why),
                Err(error) => error.into(),
            };
            warn!(error = %format_args!("{error:#}"), "consuming from RabbitMQ stopped");
            drain.run_until_cancelled(sleep(backoff.next())).await;
        }
    }

    /// Subscribes, once there is a writer that could store what is delivered.
    async fn open(&mut self) -> Result<(Link, Subscription, Deliveries), BrokerError> {
        self.writers.wait_for_idle().await;
        let link = self.broker.connect(PURPOSE).await?;
        let channel = link.channel().await?;
        let mut streams = Vec::new();
        let prefetches = [self.settings.prefetch, UNROUTED_PREFETCH];
        for (at, (queue, prefetch)) in self.broker.queues().into_iter().zip(prefetches).enumerate()
        {
            streams.push(subscribe(&channel, queue, prefetch, at).await?);
        }
        self.subscriptions += 1;
        let limits = BatchLimits {
            rows: self.settings.batch_rows as usize,
            bytes: self.settings.batch_bytes as usize,
            age: self.settings.batch_age,
        };
        let subscription = Subscription::new(self.subscriptions, channel, limits, &prefetches);
        Ok((link, subscription, select_all(streams)))
    }

    /// Ok: everything that was begun is acknowledged, and the process is shutting down.
    async fn serve(
        &mut self,
        link: &Link,
        subscription: &mut Subscription,
        deliveries: Deliveries,
    ) -> Result<(), SubscriptionError> {
        info!("consuming from RabbitMQ");
        let _up = self.link_up();
        let (queues, metrics) = (self.broker.all_queues(), self.queue_metrics.clone());
        let served = tokio::select! {
            served = self.consume(subscription, deliveries) => served,
            never = watch_depth(link, queues, &metrics) => match never {},
        };
        self.anomalies.flush();
        served
    }

    /// From now on, and for as long as the guard lives, the process is consuming.
    fn link_up(&self) -> LinkGuard {
        let (health, depths) = (self.health.clone(), self.queue_metrics.clone());
        LinkGuard::new(self.metrics.amqp_connected.clone(), move |up| {
            health.consuming(up);
            if !up {
                depths.unknown();
            }
        })
    }

    async fn consume(
        &mut self,
        subscription: &mut Subscription,
        mut deliveries: Deliveries,
    ) -> Result<(), SubscriptionError> {
        // Not at once: what an earlier subscription left is delivered first.
        let mut tick = interval_at(time::Instant::now() + HOLD_TICK, HOLD_TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let drain = self.drain.clone();
        loop {
            self.dispatch(subscription)?;
            if subscription.is_drained() {
                return Ok(());
            }
            tokio::select! {
                Some(delivered) = deliveries.next(), if subscription.has_room() => {
                    subscription.take(delivered, &mut self.anomalies)?;
                }
                stored = self.writers.next_event() => if let Some(stored) = stored {
                    subscription.acknowledge(&stored).await?;
                },
                () = subscription.due(), if self.writers.has_idle() => {}
                _ = tick.tick() => {
                    self.anomalies.log(Instant::now());
                    self.backlog.set(subscription.oldest_us());
                    subscription.check_age(self.settings.hold_max)?;
                }
                () = drain.cancelled(), if !subscription.is_draining() => subscription.drain(),
            }
        }
    }

    /// Gives the batch to a writer, if it is due and one is idle.
    fn dispatch(&mut self, subscription: &mut Subscription) -> Result<(), SubscriptionError> {
        if !self.writers.has_idle() {
            return Ok(());
        }
        match subscription.take_due(Instant::now()) {
            Some(job) => self.writers.dispatch(job),
            None => Ok(()),
        }
    }
}
