//! What RabbitMQ itself gave up delivering, moved to `dead_tickets`, where it is listed, shown and
//! replayed like everything that died.

use std::time::Duration;

use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicGetOptions};
use lapin::types::{AMQPValue, ShortString};
use lapin::{Channel, message::BasicGetMessage};

use super::delivery::DeliveredMessage;
use crate::broker::{Broker, BrokerError, within};
use crate::clock::now_us;
use crate::config::DatabaseConfig;
use crate::metrics::StoreMetrics;
use crate::store::{Dead, Rows, Store, StoreError};

/// Maximum of messages that are stored at once.
const MESSAGES_MAX: usize = 200;

/// Bytes of messages from which on no more are read before they are stored.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// The header in which RabbitMQ says why it gave up
/// (<https://www.rabbitmq.com/docs/dlx#effects>).
const FIRST_REASON: &str = "x-first-death-reason";

/// Why no more could be moved. What was moved is in the table; the rest is in the queue.
#[derive(Debug)]
pub(crate) enum CollectError {
    /// RabbitMQ failed.
    Broker(BrokerError),
    /// PostgreSQL failed.
    Store(StoreError),
}

/// Some messages off the queue, which are back on it unless they are acknowledged.
#[derive(Default)]
struct Portion {
    messages: Vec<(DeliveredMessage, String)>,
    bytes: usize,
}

/// Moves all that is in the queue. Each portion is acknowledged once it is committed: a process that
/// is killed in between leaves it in both places, and the next time it is found in the table already.
/// Says after each how many messages it had.
pub(crate) async fn collect_dead_letters(
    broker: &Broker,
    database: &DatabaseConfig,
    mut moved: impl FnMut(usize),
) -> Result<(), CollectError> {
    let store = Store::open(database, StoreMetrics::new()).await;
    let mut store = store.map_err(CollectError::Store)?;
    let link = broker.connect("dead").await.map_err(CollectError::Broker)?;
    let channel = link.channel().await.map_err(CollectError::Broker)?;
    let [.., queue] = broker.all_queues();
    loop {
        let portion = read(&channel, &queue).await;
        let portion = portion.map_err(CollectError::Broker)?;
        let Some((last, _)) = portion.messages.last() else {
            link.close().await;
            return Ok(());
        };
        let tag = last.tag;
        let rows = portion.rows();
        let stored = store.flush(&rows.finish(), &[], Duration::ZERO).await;
        stored.map_err(CollectError::Store)?;
        let acknowledged = within(channel.basic_ack(tag, BasicAckOptions { multiple: true })).await;
        acknowledged.map_err(CollectError::Broker)?;
        moved(portion.messages.len());
    }
}

async fn read(channel: &Channel, queue: &ShortString) -> Result<Portion, BrokerError> {
    let mut portion = Portion::default();
    while portion.messages.len() < MESSAGES_MAX && portion.bytes < BYTES_MAX {
        let next = channel.basic_get(queue.clone(), BasicGetOptions::default());
        let Some(BasicGetMessage { delivery, .. }) = within(next).await? else {
            break;
        };
        let why = format!("RabbitMQ gave up delivering it{}", first_reason(&delivery));
        portion.bytes += delivery.data.len();
        let message = DeliveredMessage::new(delivery, now_us());
        portion.messages.push((message, why));
    }
    Ok(portion)
}

/// Why RabbitMQ first gave up, in its own word.
fn first_reason(delivery: &Delivery) -> String {
    let headers = delivery.properties.headers().as_ref();
    let reason = headers.and_then(|headers| headers.inner().get(FIRST_REASON));
    match reason {
        Some(AMQPValue::LongString(reason)) => {
            format!(": {}", String::from_utf8_lossy(reason.as_bytes()))
        }
        _ => String::new(),
    }
}

impl Portion {
    fn rows(&self) -> Rows<'_> {
        let records = || {
            let messages = self.messages.iter();
            messages.flat_map(|(message, why)| message.records().map(move |record| (record, why)))
        };
        let has_origins = records().any(|((record, _), _)| record.origin.is_known());
        let mut rows = Rows::new(0, has_origins);
        for ((record, unreadable), why) in records() {
            let reason = match unreadable {
                Some(unreadable) => format!("{why}; {unreadable}"),
                None => why.clone(),
            };
            rows.dead(Dead {
                ticket_id: record.id,
                received_at_us: record.received_at_us,
                origin: record.origin,
                reason,
                body: record.body,
            });
        }
        rows
    }
}
