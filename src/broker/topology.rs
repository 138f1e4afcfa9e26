//! Exchanges, queues and bindings. The only place that declares.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ReplyCode, ShortString};
use lapin::{Channel, Connection, ExchangeKind};
use tracing::warn;

use super::BrokerError;

/// Far more deliveries than a ticket can need: RabbitMQ 4 would give up after
/// 20, and each restart of a consumer counts. No number would mean those 20.
const DELIVERY_LIMIT: i64 = 1_000_000;

/// The reply code of access-refused (AMQP 0-9-1, section 1.2).
const NOT_ALLOWED: ReplyCode = 403;

/// The reply code of precondition-failed: it is there, and different.
const PRECONDITION_FAILED: ReplyCode = 406;

/// The exchange argument that names where unroutable messages go.
const ALTERNATE: &str = "alternate-exchange";

/// What things are called in RabbitMQ.
#[derive(Debug, Clone)]
pub struct Topology {
    /// Where tickets are published to.
    pub exchange: ShortString,
    /// Where they wait to be stored.
    pub queue: ShortString,
    /// Where they wait while that queue or its binding is missing.
    pub unrouted: ShortString,
    /// Where RabbitMQ puts what it gives up.
    pub dead: ShortString,
}

impl Topology {
    /// Exchanges and queues, all durable:
    ///
    /// ```text
    /// exchange tickets -> queue tickets           (direct)
    ///    |                  '-> dead letters -> exchange and queue tickets.dead
    ///    '-> unroutable -> exchange and queue tickets.unrouted
    /// ```
    pub async fn declare(&self, connection: &Connection) -> Result<(), BrokerError> {
        let fanout = |name| Exchange {
            name,
            kind: ExchangeKind::Fanout,
            arguments: FieldTable::default(),
        };
        ensure_exchange(connection, fanout(&self.dead)).await?;
        ensure_queue(connection, &self.dead, quorum()).await?;
        bind(connection, &self.dead, &self.dead).await?;

        ensure_exchange(connection, fanout(&self.unrouted)).await?;
        ensure_queue(connection, &self.unrouted, self.kept()).await?;
        bind(connection, &self.unrouted, &self.unrouted).await?;

        let mut arguments = FieldTable::default();
        arguments.insert(ALTERNATE.into(), long_string(&self.unrouted));
        let exchange = Exchange {
            name: &self.exchange,
            kind: ExchangeKind::Direct,
            arguments,
        };
        ensure_exchange(connection, exchange).await?;
        ensure_queue(connection, &self.queue, self.kept()).await?;
        bind(connection, &self.queue, &self.exchange).await
    }

    /// The arguments of a queue that tickets answered 202 wait in.
    fn kept(&self) -> FieldTable {
        let mut arguments = quorum();
        arguments.insert("x-dead-letter-exchange".into(), long_string(&self.dead));
        // Dead letters leave the queue only once they are safe in the next one,
        // which RabbitMQ does only together with reject-publish.
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

struct Exchange<'a> {
    name: &'a ShortString,
    kind: ExchangeKind,
    arguments: FieldTable,
}

/// Declares an exchange. One that may only be declared by someone else is
/// taken as it is; one that would send tickets elsewhere is not.
async fn ensure_exchange(
    connection: &Connection,
    exchange: Exchange<'_>,
) -> Result<(), BrokerError> {
    let Exchange {
        name,
        kind,
        arguments,
    } = exchange;
    let options = ExchangeDeclareOptions {
        durable: true,
        ..Default::default()
    };
    let declared = on_channel(connection, async |channel| {
        channel
            .exchange_declare(name.clone(), kind.clone(), options, arguments.clone())
            .await
    });
    match declared.await {
        Err(Declared::Refused(NOT_ALLOWED, why)) => {
            warn!(%name, "the exchange is taken as it is: {why}");
            Ok(())
        }
        Err(Declared::Refused(_, why)) => Err(BrokerError::Unsafe(format!(
            "the exchange {name} is there, but is another one: delete it, or set EXCHANGE to another name ({why})"
        ))),
        Err(Declared::Failed(error)) => Err(error),
        Ok(()) => Ok(()),
    }
}

/// Declares a queue. One that may only be declared by someone else is taken as
/// it is, and so is a plain quorum queue; in any other a confirmed ticket
/// might not be safe.
async fn ensure_queue(
    connection: &Connection,
    name: &ShortString,
    arguments: FieldTable,
) -> Result<(), BrokerError> {
    let declare = async |arguments: FieldTable| {
        let options = QueueDeclareOptions {
            durable: true,
            ..Default::default()
        };
        on_channel(connection, async |channel| {
            channel
                .queue_declare(name.clone(), options, arguments.clone())
                .await
                .map(drop)
        })
        .await
    };
    match declare(arguments).await {
        Err(Declared::Refused(NOT_ALLOWED, why)) => {
            warn!(%name, "the queue is taken as it is: {why}");
            return Ok(());
        }
        Err(Declared::Refused(_, why)) => {
            warn!(%name, "the queue is not as ticketd would declare it (dead letters, delivery limit): {why}");
        }
        Err(Declared::Failed(error)) => return Err(error),
        Ok(()) => return Ok(()),
    }
    match declare(quorum()).await {
        Err(Declared::Refused(_, why)) => Err(BrokerError::Unsafe(format!(
            "the queue {name} is there, but is not a durable quorum queue without limits: delete it once it is \
             empty, or set QUEUE to another name; limits belong in a policy ({why})"
        ))),
        Err(Declared::Failed(error)) => Err(error),
        Ok(()) => Ok(()),
    }
}

/// Binds a queue, unless that is for someone else to do.
async fn bind(
    connection: &Connection,
    queue: &ShortString,
    exchange: &ShortString,
) -> Result<(), BrokerError> {
    let bound = on_channel(connection, async |channel| {
        let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
        channel
            .queue_bind(
                queue.clone(),
                exchange.clone(),
                queue.clone(),
                options,
                arguments,
            )
            .await
    });
    match bound.await {
        Err(Declared::Refused(NOT_ALLOWED, why)) => {
            warn!(%queue, "the binding is taken to be there: {why}");
            Ok(())
        }
        Err(Declared::Refused(_, why)) => Err(BrokerError::Unsafe(why)),
        Err(Declared::Failed(error)) => Err(error),
        Ok(()) => Ok(()),
    }
}

/// How a declaration can go wrong.
enum Declared {
    /// RabbitMQ will not have it: the reply code and its reason.
    Refused(ReplyCode, String),
    Failed(BrokerError),
}

/// Runs a call on a channel of its own, because a refusal closes the channel.
async fn on_channel(
    connection: &Connection,
    call: impl AsyncFnOnce(&Channel) -> Result<(), lapin::Error>,
) -> Result<(), Declared> {
    let failed = |error: lapin::Error| Declared::Failed(error.into());
    let channel = connection.create_channel().await.map_err(failed)?;
    let Err(error) = call(&channel).await else {
        return channel.close(200, "done".into()).await.map_err(failed);
    };
    match error.kind() {
        lapin::ErrorKind::ProtocolError(refusal)
            if matches!(refusal.get_id(), NOT_ALLOWED | PRECONDITION_FAILED) =>
        {
            Err(Declared::Refused(
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
