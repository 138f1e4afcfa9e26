//! RabbitMQ: connecting, and letting go.
//!
//! lapin's own recovery stays off: it would renumber confirms under live
//! publishers. A link that fails is dropped whole, and its user opens another.

mod depth;
mod refusal;
mod socket;
mod topology;

pub use depth::watch as watch_depth;

use std::io::ErrorKind;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_compat::CompatExt;
use futures_util::Stream;
use lapin::options::{ConfirmSelectOptions, QueueDeclareOptions};
use lapin::tcp::AsyncTcpStream;
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, ConnectionProperties, Event};
use tokio::time::timeout;
use tracing::info;

use crate::config::{self, AmqpUrl, BrokerSettings};
use socket::{SocketSlot, connect_tcp, io_error};
use topology::Topology;

/// Longest wait for a connection, its handshake and the topology.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);

/// Longest wait for a polite close, after which the socket is shut.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why there is no link.
#[derive(Debug)]
pub enum BrokerError {
    /// RabbitMQ, or the way to it, failed.
    Amqp(lapin::Error),
    /// It did not answer in time.
    Timeout,
    /// Something of our name is there, or is missing, so that the promise would not
    /// be kept.
    Unsafe(String),
    /// Our user may not do what is ours to do.
    Forbidden(String),
}

impl std::fmt::Display for BrokerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Amqp(error) => write!(f, "{error}"),
            Self::Timeout => write!(f, "no answer in time"),
            Self::Unsafe(why) | Self::Forbidden(why) => write!(f, "{why}"),
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
    uri: AmqpUrl,
    topology: Topology,
    declared: config::Topology,
}

impl Broker {
    /// Takes the settings; nothing is connected yet.
    pub fn new(settings: &BrokerSettings) -> Result<Self, String> {
        Ok(Self {
            uri: settings.url()?,
            topology: Topology {
                exchange: settings.exchange().into(),
                queue: settings.queue.clone().into(),
                unrouted: settings.unrouted_queue().into(),
                dead: settings.dead_queue().into(),
            },
            declared: settings.topology,
        })
    }

    /// The exchange that tickets are published to.
    pub fn exchange(&self) -> ShortString {
        self.topology.exchange.clone()
    }

    /// The key that leads from the exchange to the queue.
    pub fn routing_key(&self) -> ShortString {
        self.topology.queue.clone()
    }

    /// The queues that tickets are read from: where they should be, and where
    /// they end up while the binding or the queue is missing.
    pub fn queues(&self) -> [ShortString; 2] {
        [self.topology.queue.clone(), self.topology.unrouted.clone()]
    }

    /// Where RabbitMQ puts what it gives up delivering; nothing reads it.
    pub fn dead_queue(&self) -> ShortString {
        self.topology.dead.clone()
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
            let ensured = self.topology.ensure(&link.connection, self.declared);
            ensured.await?;
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
        slot.keep(&socket).map_err(io_error)?;
        let socket = Mutex::new(Some(socket));
        let properties = ConnectionProperties::default()
            .with_connection_name(format!("ticketd {purpose} {}", std::process::id()).into());
        let connection = Connection::connector(
            (*self.uri).clone(),
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

    /// How many messages wait in a queue and are with no consumer. On a channel of
    /// its own, which RabbitMQ closes if there is no such queue.
    pub async fn waiting(&self, queue: ShortString) -> Result<u32, BrokerError> {
        within(async {
            let channel = self.connection.create_channel().await?;
            let options = QueueDeclareOptions {
                passive: true,
                ..Default::default()
            };
            let declared = channel.queue_declare(queue, options, FieldTable::default());
            let messages = declared.await?.message_count();
            channel.close(200, "asked".into()).await?;
            Ok(messages)
        })
        .await
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

/// Bounds a call to RabbitMQ, which a hung broker never answers.
pub async fn within<T>(
    call: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<T, BrokerError> {
    Ok(timeout(CONNECT_TIMEOUT, call)
        .await
        .map_err(|_late| BrokerError::Timeout)??)
}
