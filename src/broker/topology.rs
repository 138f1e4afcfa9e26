//! Exchanges, queues and bindings. The only place that declares.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ReplyCode, ShortString};
use lapin::{Channel, Connection, ExchangeKind};

use super::error::BrokerError;
use super::refusal::{self, Need};
use crate::config;

/// Far more deliveries than a ticket can need: RabbitMQ 4 would give up after 20, and each restart
/// of a consumer counts. No number would mean those 20.
const DELIVERY_LIMIT: i64 = 1_000_000;

/// The reply code of access-refused (AMQP 0-9-1, section 1.2).
const NOT_ALLOWED: ReplyCode = 403;

/// The reply code of not-found.
const NOT_FOUND: ReplyCode = 404;

/// The reply code of precondition-failed: it exists with other arguments.
const PRECONDITION_FAILED: ReplyCode = 406;

/// The queue argument that names where undeliverable messages go.
const DEAD_LETTERS: &str = "x-dead-letter-exchange";

/// The exchange argument that names where unroutable messages go.
const ALTERNATE: &str = "alternate-exchange";

/// What things are called in RabbitMQ.
#[derive(Debug, Clone)]
pub(super) struct Topology {
    /// Where tickets are published to.
    pub exchange: ShortString,
    /// Where they wait to be stored.
    pub queue: ShortString,
    /// Where they wait while that queue or its binding is missing.
    pub unrouted: ShortString,
    /// Where RabbitMQ puts what it gives up delivering.
    pub dead: ShortString,
}

impl Topology {
    /// Declares what is needed or, where others declare it, checks that it exists.
    pub(super) async fn ensure(
        &self,
        connection: &Connection,
        topology: config::TopologyMode,
    ) -> Result<(), BrokerError> {
        match topology {
            config::TopologyMode::Declare => self.declare(connection).await,
            config::TopologyMode::Existing => self.check(connection).await,
        }
    }

    /// Exchanges and queues, all durable:
    ///
    /// ```text
    /// exchange tickets -> queue tickets           (direct)
    ///    |                  '-> dead letters -> exchange and queue tickets.dead
    ///    '-> unroutable -> exchange and queue tickets.unrouted
    /// ```
    async fn declare(&self, connection: &Connection) -> Result<(), BrokerError> {
        let dead = Named(&self.dead, "DEAD_QUEUE");
        ensure_exchange(connection, dead, ExchangeKind::Fanout, None).await?;
        ensure_queue(connection, dead, quorum()).await?;
        bind(connection, &self.dead, &self.dead).await?;

        let unrouted = Named(&self.unrouted, "UNROUTED_QUEUE");
        ensure_exchange(connection, unrouted, ExchangeKind::Fanout, None).await?;
        ensure_queue(connection, unrouted, self.kept()).await?;
        bind(connection, &self.unrouted, &self.unrouted).await?;

        let exchange = Named(&self.exchange, "EXCHANGE");
        let alternate = Some(&self.unrouted);
        ensure_exchange(connection, exchange, ExchangeKind::Direct, alternate).await?;
        ensure_queue(connection, Named(&self.queue, "QUEUE"), self.kept()).await?;
        bind(connection, &self.queue, &self.exchange).await
    }

    /// Checks only that what tickets are published to and read from exists: AMQP tells no more, and
    /// RabbitMQ 4.3 tells not even that to a user without the right to configure it.
    async fn check(&self, connection: &Connection) -> Result<(), BrokerError> {
        let exchange = on_channel(connection, async |channel| {
            let options = ExchangeDeclareOptions {
                passive: true,
                ..Default::default()
            };
            let (kind, none) = (ExchangeKind::Direct, FieldTable::default());
            let name = self.exchange.clone();
            channel.exchange_declare(name, kind, options, none).await
        });
        existing(
            "exchange",
            Named(&self.exchange, "EXCHANGE"),
            exchange.await,
        )?;
        for queue in [
            Named(&self.queue, "QUEUE"),
            Named(&self.unrouted, "UNROUTED_QUEUE"),
        ] {
            let checked = on_channel(connection, async |channel| {
                let options = QueueDeclareOptions {
                    passive: true,
                    ..Default::default()
                };
                let declared =
                    channel.queue_declare(queue.0.clone(), options, FieldTable::default());
                declared.await.map(drop)
            });
            existing("queue", queue, checked.await)?;
        }
        Ok(())
    }

    /// The arguments of a queue that tickets answered 202 wait in.
    fn kept(&self) -> FieldTable {
        let mut arguments = quorum();
        arguments.insert(DEAD_LETTERS.into(), long_string(&self.dead));
        // Dead letters leave the queue only once they are safe in the next one, which RabbitMQ does
        // only together with reject-publish.
        arguments.insert(
            "x-dead-letter-strategy".into(),
            AMQPValue::LongString("at-least-once".into()),
        );
        arguments.insert(
            "x-overflow".into(),
            AMQPValue::LongString("reject-publish".into()),
        );
        arguments.insert(
            "x-delivery-limit".into(),
            AMQPValue::LongLongInt(DELIVERY_LIMIT),
        );
        arguments
    }
}

/// A name, and the setting it comes from.
#[derive(Clone, Copy)]
struct Named<'a>(&'a ShortString, &'static str);

/// Declares an exchange; fails if one exists that would send tickets elsewhere.
async fn ensure_exchange(
    connection: &Connection,
    Named(name, setting): Named<'_>,
    kind: ExchangeKind,
    alternate: Option<&ShortString>,
) -> Result<(), BrokerError> {
    let mut arguments = FieldTable::default();
    let mut needs = vec![Need::new("exchange", name, "configure")];
    if let Some(alternate) = alternate {
        arguments.insert(ALTERNATE.into(), long_string(alternate));
        needs = vec![
            Need::new("exchange", name, "configure or read"),
            Need::new("exchange", alternate, "write"),
        ];
    }
    let options = ExchangeDeclareOptions {
        durable: true,
        ..Default::default()
    };
    let declared = on_channel(connection, async |channel| {
        channel
            .exchange_declare(name.clone(), kind.clone(), options, arguments.clone())
            .await
    });
    declared.await.map_err(|refused| match refused {
        DeclareError::Refused(NOT_ALLOWED, why) => refusal::forbidden(&needs, &why),
        DeclareError::Refused(_, why) => BrokerError::Unsafe(format!(
            "the exchange {name} exists with other properties: delete it, or set {setting} to another name ({why})"
        )),
        DeclareError::Failed(error) => error,
    })
}

/// Declares a queue; fails if one exists with other arguments: with some of them a confirmed ticket
/// would not be safe, and AMQP tells nothing of policies.
async fn ensure_queue(
    connection: &Connection,
    Named(name, setting): Named<'_>,
    arguments: FieldTable,
) -> Result<(), BrokerError> {
    let mut needs = vec![Need::new("queue", name, "configure")];
    if let Some(AMQPValue::LongString(dead)) = arguments.inner().get(DEAD_LETTERS) {
        needs = vec![
            Need::new("queue", name, "configure or read"),
            Need::new("exchange", dead, "write"),
        ];
    }
    let options = QueueDeclareOptions {
        durable: true,
        ..Default::default()
    };
    let declared = on_channel(connection, async |channel| {
        let declared = channel.queue_declare(name.clone(), options, arguments.clone());
        declared.await.map(drop)
    });
    declared.await.map_err(|refused| match refused {
        DeclareError::Refused(NOT_ALLOWED, why) => refusal::forbidden(&needs, &why),
        DeclareError::Refused(_, why) => refusal::other_queue(name, setting, &arguments, &why),
        DeclareError::Failed(error) => error,
    })
}

async fn bind(
    connection: &Connection,
    queue: &ShortString,
    exchange: &ShortString,
) -> Result<(), BrokerError> {
    let needs = [
        Need::new("queue", queue, "write"),
        Need::new("exchange", exchange, "read"),
    ];
    let bound = on_channel(connection, async |channel| {
        let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
        let (name, key) = (queue.clone(), queue.clone());
        channel
            .queue_bind(name, exchange.clone(), key, options, arguments)
            .await
    });
    bound.await.map_err(|refused| match refused {
        DeclareError::Refused(NOT_ALLOWED, why) => refusal::forbidden(&needs, &why),
        DeclareError::Refused(_, why) => BrokerError::Unsafe(why),
        DeclareError::Failed(error) => error,
    })
}

/// Fails if it does not exist. A missing right to ask tells nothing.
fn existing(
    what: &str,
    Named(name, setting): Named<'_>,
    checked: Result<(), DeclareError>,
) -> Result<(), BrokerError> {
    match checked {
        Ok(()) | Err(DeclareError::Refused(NOT_ALLOWED, _)) => Ok(()),
        Err(DeclareError::Refused(_, why)) => Err(BrokerError::Unsafe(format!(
            "the {what} {name} does not exist, and with TOPOLOGY=existing ticketd declares nothing: \
             declare it, or set {setting} to another name ({why})"
        ))),
        Err(DeclareError::Failed(error)) => Err(error),
    }
}

/// How a declaration can fail.
enum DeclareError {
    /// RabbitMQ refuses it: the reply code and its reason.
    Refused(ReplyCode, String),
    Failed(BrokerError),
}

/// Runs a call on a channel of its own, because RabbitMQ closes the channel when it refuses.
async fn on_channel(
    connection: &Connection,
    call: impl AsyncFnOnce(&Channel) -> Result<(), lapin::Error>,
) -> Result<(), DeclareError> {
    let failed = |error: lapin::Error| DeclareError::Failed(error.into());
    let channel = connection.create_channel().await.map_err(failed)?;
    let Err(error) = call(&channel).await else {
        return channel.close(200, "done".into()).await.map_err(failed);
    };
    match error.kind() {
        lapin::ErrorKind::ProtocolError(refusal)
            if matches!(
                refusal.get_id(),
                NOT_ALLOWED | NOT_FOUND | PRECONDITION_FAILED
            ) =>
        {
            Err(DeclareError::Refused(
                refusal.get_id(),
                refusal.get_message().to_string(),
            ))
        }
        _ => Err(failed(error)),
    }
}

fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("quorum".into()),
    );
    arguments
}

fn long_string(name: &ShortString) -> AMQPValue {
    AMQPValue::LongString(name.as_str().into())
}
