//! RabbitMQ: connecting, the topology, and letting go. The only place that declares.
//!
//! lapin's own recovery stays off: it would renumber confirms under live
//! publishers. A link that fails is dropped whole, and its user opens another.

use std::io::ErrorKind;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_compat::CompatExt;
use futures_util::Stream;
use lapin::options::{
    ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::tcp::AsyncTcpStream;
use lapin::types::{AMQPValue, FieldTable, ReplyCode, ShortString};
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, Event, ExchangeKind};
use socket2::{SockRef, Socket, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::config::BrokerSettings;

/// Longest wait for a connection, its handshake and the topology.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);

/// Longest wait for one TCP connection.
const TCP_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest wait for a polite close, after which the socket is shut.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Unacknowledged bytes longer than this mean a dead peer (Linux, tcp(7)).
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);

/// Far more deliveries than a ticket can need: RabbitMQ 4 would give up after
/// 20, and each restart of a consumer counts. No number would mean those 20.
const DELIVERY_LIMIT: i64 = 1_000_000;

/// The reply code of access-refused (AMQP 0-9-1, section 1.2).
const NOT_ALLOWED: ReplyCode = 403;

/// The reply code of precondition-failed: it is there, and different.
const PRECONDITION_FAILED: ReplyCode = 406;

/// The exchange argument that names where unroutable messages go.
const ALTERNATE: &str = "alternate-exchange";

/// Why there is no link.
#[derive(Debug)]
pub enum BrokerError {
    /// RabbitMQ, or the way to it, failed.
    Amqp(lapin::Error),
    /// It did not answer in time.
    Timeout,
    /// Something of our name is there that would not keep the promise.
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
                connection: self.open(purpose, &socket).await?,
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

    async fn open(&self, purpose: &str, slot: &SocketSlot) -> Result<Connection, BrokerError> {
        // Connected here and not by lapin, which tries only one address and
        // keeps a task for ever after each attempt that fails.
        let socket = connect_tcp(&self.uri).await?;
        slot.keep(&SockRef::from(&socket)).map_err(io_error)?;
        let socket = Mutex::new(Some(socket));
        let properties = ConnectionProperties::default()
            .with_connection_name(format!("ticketd {purpose} {}", std::process::id()).into());
        let connection = Connection::connector(
            self.uri.clone(),
            lapin::runtime::default_runtime()?,
            async move |_uri, _runtime| {
                let socket = socket.lock().unwrap_or_else(PoisonError::into_inner).take();
                let socket = socket.ok_or_else(|| io_error(ErrorKind::NotConnected.into()))?;
                Ok(AsyncTcpStream::Plain(socket.compat()))
            },
            properties,
        );
        Ok(connection.await?)
    }

    /// Exchanges and queues, all durable:
    ///
    /// ```text
    /// exchange tickets -> queue tickets           (direct)
    ///    |                  '-> dead letters -> exchange and queue tickets.dead
    ///    '-> unroutable -> exchange and queue tickets.unrouted
    /// ```
    async fn declare(&self, connection: &Connection) -> Result<(), BrokerError> {
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

/// Connects to the first address that takes the connection.
async fn connect_tcp(uri: &AMQPUri) -> Result<TcpStream, BrokerError> {
    let host = (uri.authority.host.as_str(), uri.authority.port);
    let addresses = timeout(TCP_TIMEOUT, lookup_host(host)).await;
    let addresses = addresses
        .map_err(|_late| BrokerError::Timeout)?
        .map_err(io_error)?;
    let mut last = BrokerError::from(io_error(ErrorKind::NotFound.into()));
    for address in addresses {
        match timeout(TCP_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => {
                socket.set_nodelay(true).map_err(io_error)?;
                return Ok(socket);
            }
            Ok(Err(error)) => last = io_error(error).into(),
            Err(_late) => last = BrokerError::Timeout,
        }
    }
    Err(last)
}

fn io_error(error: std::io::Error) -> lapin::Error {
    lapin::ErrorKind::IOError(Arc::new(error)).into()
}

/// Bounds a call to RabbitMQ, which a hung broker never answers.
pub async fn within<T>(
    call: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<T, BrokerError> {
    Ok(timeout(CONNECT_TIMEOUT, call)
        .await
        .map_err(|_late| BrokerError::Timeout)??)
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
