//! RabbitMQ: connecting, the topology, and letting go. The only place that declares.
//!
//! lapin's own recovery stays off: it would renumber confirms under live
//! publishers. A link that fails is dropped whole, and its user opens another.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_rs::traits::Reactor;
use futures_util::Stream;
use futures_util::future::{Either, select};
use lapin::options::{
    ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::tcp::AsyncTcpStream;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind, Event, ExchangeKind};
use socket2::{SockRef, Socket, TcpKeepalive};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::config::BrokerSettings;

/// Longest wait for a connection, its handshake and the topology.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for one TCP connection.
const TCP_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest wait for a polite close, after which the socket is shut.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Unacknowledged bytes longer than this mean a dead peer (Linux, tcp(7)).
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);

/// Far more deliveries than a ticket can need: RabbitMQ 4 would give up after
/// 20, and each restart of a consumer counts. No number would mean those 20.
const DELIVERY_LIMIT: i64 = 1_000_000;

/// Why there is no link.
#[derive(Debug)]
pub enum BrokerError {
    /// RabbitMQ, or the way to it, failed.
    Amqp(lapin::Error),
    /// It did not answer in time.
    Timeout,
    /// A queue of our name is there that would not keep the promise.
    Unsafe(String),
}

impl std::fmt::Display for BrokerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Amqp(error) => write!(f, "{error}"),
            Self::Timeout => write!(f, "no answer in time"),
            Self::Unsafe(why) => write!(f, "{why}"),
        }
    }
}

impl std::error::Error for BrokerError {}

impl From<lapin::Error> for BrokerError {
    fn from(error: lapin::Error) -> Self {
        Self::Amqp(error)
    }
}

/// Where RabbitMQ is and what things are called there.
#[derive(Debug, Clone)]
pub struct Broker {
    uri: AMQPUri,
    exchange: ShortString,
    queue: ShortString,
    unrouted: ShortString,
    dead: ShortString,
}

impl Broker {
    /// Takes the settings; nothing is connected yet.
    pub fn new(settings: &BrokerSettings) -> Result<Self, String> {
        Ok(Self {
            uri: settings.url()?,
            exchange: settings.exchange().into(),
            queue: settings.queue.clone().into(),
            unrouted: settings.unrouted_queue().into(),
            dead: settings.dead_queue().into(),
        })
    }

    /// The exchange that tickets are published to.
    pub fn exchange(&self) -> ShortString {
        self.exchange.clone()
    }

    /// The key that leads from the exchange to the queue.
    pub fn routing_key(&self) -> ShortString {
        self.queue.clone()
    }

    /// The queues that tickets are read from: where they should be, and where
    /// they end up while the binding or the queue is missing.
    pub fn queues(&self) -> [ShortString; 2] {
        [self.queue.clone(), self.unrouted.clone()]
    }

    /// Connects and makes sure of the topology. `purpose` names the
    /// connection in RabbitMQ's own tools.
    pub async fn connect(&self, purpose: &str) -> Result<Link, BrokerError> {
        let socket = Arc::new(SocketSlot::default());
        let opened = timeout(CONNECT_TIMEOUT, async {
            let link = Link {
                connection: self.open(purpose, socket.clone()).await?,
                socket: socket.clone(),
            };
            self.declare(&link.connection).await?;
            Ok(link)
        })
        .await;
        if opened.is_err() {
            // lapin's thread outlives the dropped future until its socket ends.
            socket.shut();
        }
        opened.unwrap_or(Err(BrokerError::Timeout))
    }

    async fn open(&self, purpose: &str, slot: Arc<SocketSlot>) -> Result<Connection, lapin::Error> {
        let properties = ConnectionProperties::default()
            .with_connection_name(format!("ticketd {purpose} {}", std::process::id()).into());
        Connection::connector(
            self.uri.clone(),
            lapin::runtime::default_runtime()?,
            async move |uri: AMQPUri, runtime| {
                let address = resolve(&uri).await?;
                let connect = std::pin::pin!(runtime.tcp_connect_addr(address));
                let deadline = std::pin::pin!(runtime.sleep(TCP_TIMEOUT));
                let stream = match select(connect, deadline).await {
                    Either::Left((stream, _)) => stream.map_err(io_error)?,
                    Either::Right(_) => return Err(io_error(std::io::ErrorKind::TimedOut.into())),
                };
                slot.keep(&SockRef::from(stream.get_ref()))
                    .map_err(io_error)?;
                Ok(AsyncTcpStream::Plain(stream))
            },
            properties,
        )
        .await
    }

    /// Exchanges and queues, all durable:
    ///
    /// ```text
    /// exchange tickets -> queue tickets           (direct)
    ///    |                  '-> dead letters -> exchange and queue tickets.dead
    ///    '-> unroutable -> exchange and queue tickets.unrouted
    /// ```
    async fn declare(&self, connection: &Connection) -> Result<(), BrokerError> {
        for name in [&self.unrouted, &self.dead] {
            let exchange = Entity::Exchange(ExchangeKind::Fanout, FieldTable::default());
            ensure(connection, name, exchange).await?;
            ensure(connection, name, Entity::Queue(quorum())).await?;
            bind(connection, name, name).await?;
        }

        let mut arguments = FieldTable::default();
        arguments.insert("alternate-exchange".into(), long_string(&self.unrouted));
        ensure(
            connection,
            &self.exchange,
            Entity::Exchange(ExchangeKind::Direct, arguments),
        )
        .await?;

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
        ensure(connection, &self.queue, Entity::Queue(arguments)).await?;
        bind(connection, &self.queue, &self.exchange).await
    }
}

/// A connection to RabbitMQ; dropping it shuts the socket.
pub struct Link {
    connection: Connection,
    socket: Arc<SocketSlot>,
}

impl Link {
    /// Opens a channel on which every publish is confirmed.
    pub async fn publishing_channel(&self) -> Result<Channel, BrokerError> {
        within(async {
            let channel = self.connection.create_channel().await?;
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await?;
            Ok(channel)
        })
        .await
    }

    /// Opens a plain channel.
    pub async fn channel(&self) -> Result<Channel, BrokerError> {
        within(self.connection.create_channel()).await
    }

    /// What happens to the connection. To be called once: a second listener
    /// would take events away from the first.
    pub fn events(&self) -> impl Stream<Item = Event> + Send + 'static {
        self.connection.events_listener()
    }

    /// Closes politely, within a bound.
    pub async fn close(self) {
        let closed = timeout(CLOSE_TIMEOUT, self.connection.close(200, "closing".into())).await;
        if !matches!(closed, Ok(Ok(()))) {
            info!("RabbitMQ did not take part in closing the connection");
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.socket.shut();
    }
}

/// A second handle to the connection's socket: shutting it is the one way to
/// end lapin's I/O thread whatever that is waiting for.
#[derive(Default)]
struct SocketSlot(Mutex<Option<Socket>>);

impl SocketSlot {
    fn keep(&self, socket: &SockRef<'_>) -> std::io::Result<()> {
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_USER_TIMEOUT))?;
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(socket.try_clone()?);
        Ok(())
    }

    fn shut(&self) {
        if let Some(socket) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // An error means that the peer was first.
            let _ended = socket.shutdown(std::net::Shutdown::Both);
        }
    }
}

async fn resolve(uri: &AMQPUri) -> Result<SocketAddr, lapin::Error> {
    let host = (uri.authority.host.clone(), uri.authority.port);
    // On a thread of its own already: lapin calls this from its I/O thread.
    let mut addresses = std::net::ToSocketAddrs::to_socket_addrs(&host).map_err(io_error)?;
    addresses
        .next()
        .ok_or_else(|| io_error(std::io::ErrorKind::NotFound.into()))
}

fn io_error(error: std::io::Error) -> lapin::Error {
    ErrorKind::IOError(Arc::new(error)).into()
}

/// Bounds a call to RabbitMQ, which a hung broker never answers.
pub async fn within<T>(
    call: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<T, BrokerError> {
    Ok(timeout(CONNECT_TIMEOUT, call)
        .await
        .map_err(|_late| BrokerError::Timeout)??)
}

enum Entity {
    Exchange(ExchangeKind, FieldTable),
    Queue(FieldTable),
}

impl Entity {
    async fn declare(
        &self,
        channel: &Channel,
        name: &ShortString,
        passive: bool,
    ) -> Result<(), lapin::Error> {
        match self {
            Self::Exchange(kind, arguments) => {
                let options = ExchangeDeclareOptions {
                    durable: true,
                    passive,
                    ..Default::default()
                };
                channel
                    .exchange_declare(name.clone(), kind.clone(), options, arguments.clone())
                    .await
            }
            Self::Queue(arguments) => {
                let options = QueueDeclareOptions {
                    durable: true,
                    passive,
                    ..Default::default()
                };
                channel
                    .queue_declare(name.clone(), options, arguments.clone())
                    .await
                    .map(drop)
            }
        }
    }
}

/// Declares on a channel of its own, because a refusal closes the channel. What
/// is there with other arguments, or may only be declared by someone else, is
/// taken as it is, except where a confirm would then mean less.
async fn ensure(
    connection: &Connection,
    name: &ShortString,
    entity: Entity,
) -> Result<(), BrokerError> {
    let channel = connection.create_channel().await?;
    let Err(error) = entity.declare(&channel, name, false).await else {
        return Ok(channel.close(200, "declared".into()).await?);
    };
    let refusal = match error.kind() {
        ErrorKind::ProtocolError(refusal) if matches!(refusal.get_id(), 403 | 406) => {
            refusal.get_message().to_string()
        }
        _ => return Err(error.into()),
    };
    if refusal.contains("'x-queue-type'") || refusal.contains("'durable'") {
        return Err(BrokerError::Unsafe(format!(
            "{name} is there but is not a durable quorum queue: delete it once it is empty, or set QUEUE to another name ({refusal})"
        )));
    }
    warn!(%name, "taken as it is in RabbitMQ: {refusal}");
    let channel = connection.create_channel().await?;
    entity.declare(&channel, name, true).await?;
    Ok(channel.close(200, "declared".into()).await?)
}

async fn bind(
    connection: &Connection,
    queue: &ShortString,
    exchange: &ShortString,
) -> Result<(), BrokerError> {
    let channel = connection.create_channel().await?;
    let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
    channel
        .queue_bind(
            queue.clone(),
            exchange.clone(),
            queue.clone(),
            options,
            arguments,
        )
        .await?;
    Ok(channel.close(200, "bound".into()).await?)
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
