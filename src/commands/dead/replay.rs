//! Dead tickets published again.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::timeout;
use tracing::info;
use uuid::Uuid;

use crate::broker::Broker;
use crate::clock::unix_us;
use crate::config::{BrokerSettings, INFLIGHT_BYTES_MAX};
use crate::message::{self, GroupVersion, RECORDS_MAX, Record};
use crate::publisher::{PublishLimits, Publisher};
use crate::source::{Origin, SourceRef};
use crate::store::{DeadTickets, Identity, TakenTicket};
use crate::ticket::text;

/// Maximum time to publish one ticket again.
const REPLAY_TIMEOUT: Duration = Duration::from_secs(10);

/// What came of a replay.
pub(super) enum Replayed {
    /// It is published, or was stored already, under these ids; none if it is off the list already.
    As(Vec<Uuid>),
    /// It is on the list still, for this reason.
    Impossible(&'static str),
}

/// What publishes dead tickets again, connected once there is one that has to be.
pub(super) struct Replay<'a> {
    settings: &'a BrokerSettings,
    publisher: Option<Publisher>,
}

impl<'a> Replay<'a> {
    /// Not connected yet.
    pub(super) fn new(settings: &'a BrokerSettings) -> Self {
        let publisher = None;
        Self {
            settings,
            publisher,
        }
    }

    /// Publishes a dead ticket again and takes it off the list; returns its id, or those of the
    /// tickets of a group.
    ///
    /// It is off the list before it is published, and stays off only if RabbitMQ
    /// confirms it: whoever finds meanwhile that it must die again waits for the
    /// row's end and adds a new one, instead of finding it on the list and leaving
    /// it at that. After a crash between the two it is published and on the list,
    /// and replaying it again changes nothing.
    pub(super) async fn replay(
        &mut self,
        tickets: &mut DeadTickets,
        number: i64,
    ) -> anyhow::Result<Replayed> {
        let taken = tickets.take(number).await?;
        let Some(taken) = taken else {
            return Ok(Replayed::As(Vec::new()));
        };
        let (mut ids, mut unsent) = (Vec::new(), Vec::new());
        for record in records(&taken)? {
            match taken.identify(record.id, record.body).await? {
                Identity::Stored(id) => {
                    info!("the ticket is stored already, as {id}");
                    ids.push(id);
                }
                Identity::Free(id) => {
                    unsent.push(Record { id, ..record });
                    ids.push(id);
                }
                Identity::Taken => {
                    return Ok(Replayed::Impossible(
                        "both ids that it could have belong to other tickets",
                    ));
                }
            }
        }
        if !unsent.is_empty() {
            self.publish(&unsent).await?;
        }
        let committed = taken.commit().await;
        committed.context("the ticket was published, but is still on the list")?;
        Ok(Replayed::As(ids))
    }

    async fn publish(&mut self, records: &[Record<'_>]) -> anyhow::Result<()> {
        let published = async {
            let publisher = self.connected().await?;
            let submit = |record: &Record<'_>| publisher.submit(*record, None);
            let confirms: Result<Vec<_>, _> = records.iter().map(submit).collect();
            for confirm in confirms? {
                confirm.await.context("the publisher has ended")??;
            }
            anyhow::Ok(())
        };
        match timeout(REPLAY_TIMEOUT, published).await {
            Ok(published) => published.context("RabbitMQ did not accept the ticket"),
            Err(_elapsed) => bail!("RabbitMQ did not answer in time"),
        }
    }

    async fn connected(&mut self) -> anyhow::Result<&Publisher> {
        let publisher = match self.publisher.take() {
            Some(publisher) => publisher,
            None => connect(self.settings).await?,
        };
        Ok(self.publisher.insert(publisher))
    }
}

async fn connect(settings: &BrokerSettings) -> anyhow::Result<Publisher> {
    let limits = PublishLimits {
        group: 1,
        version: GroupVersion::V1,
        inflight: RECORDS_MAX,
        inflight_bytes: INFLIGHT_BYTES_MAX,
        confirm_timeout: REPLAY_TIMEOUT,
    };
    let broker = Broker::new(settings).map_err(anyhow::Error::msg);
    Ok(Publisher::connect(broker.context("AMQP_URL")?, limits).await?)
}

/// What was set aside: a ticket, or a whole group of a version that the consumer could not read.
fn records<'a>(taken: &'a TakenTicket<'_>) -> anyhow::Result<Vec<Record<'a>>> {
    let version = GroupVersion::V2;
    // What a sender may choose is text, and is never taken for a group.
    if text(&taken.body).is_err() && message::count(version, &taken.body).is_ok() {
        return Ok(message::records(version, &taken.body).collect());
    }
    let source = taken.source.as_deref().map(str::as_bytes);
    let source = source.map(SourceRef::parse).transpose();
    let record = Record {
        id: taken.ticket_id,
        received_at_us: unix_us(taken.received_at),
        origin: Origin {
            source: source.context("the dead ticket's source")?,
            issued_at_us: taken.issued_at.map(unix_us),
        },
        body: &taken.body,
    };
    Ok(vec![record])
}
