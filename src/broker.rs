//! RabbitMQ: connecting and disconnecting, the topology, and how many messages wait.
//!
//! lapin's own recovery stays off: it would renumber confirms under live publishers. A connection
//! that fails is dropped whole, and its user opens another.

mod depth;
mod error;
mod link;
mod name;
mod refusal;
mod socket;
mod topology;
mod wire;

pub(crate) use depth::watch as watch_depth;
pub(crate) use error::BrokerError;
pub(crate) use link::{Link, within};
pub(crate) use name::client_name;

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_compat::CompatExt;
use lapin::tcp::AsyncTcpStream;
use lapin::types::ShortString;
use lapin::{Connection, ConnectionProperties};
use tokio::time::timeout;
use tracing::info;

use crate::config::{self, AmqpTls, AmqpUrl, BrokerSettings};
use crate::tls::ClientTls;
use link::{CONNECT_TIMEOUT, ENSURE_AGAIN_TIMEOUT, ONE_OF_SEVERAL_TIMEOUT};
use socket::{SocketSlot, connect_tcp, io_error};
use topology::Topology;
use wire::{Wire, encrypted, runtime};

/// Where RabbitMQ is and what things are called there.
#[derive(Debug, Clone)]
pub(crate) struct Broker {
    /// At least one.
    servers: Vec<AmqpUrl>,
    tls: Option<AmqpTls>,
    topology: Topology,
    declared: config::TopologyMode,
    /// All of the topology has been there.
    ensured: Arc<AtomicBool>,
    /// The server that each purpose was connected to last.
    last: Arc<Mutex<HashMap<String, String>>>,
}

impl Broker {
    /// Takes the settings, whose files have to be there; nothing is connected yet.
    pub(crate) fn new(settings: &BrokerSettings) -> Result<Self, String> {
        let tls = settings.tls()?;
        if let Some(AmqpTls { check, identity }) = &tls {
            ClientTls::read(check, identity.as_ref()).map_err(|error| error.to_string())?;
        }
        Ok(Self {
            servers: settings.servers(),
            tls,
            topology: Topology {
                exchange: settings.exchange().into(),
                queue: settings.queue.clone().into(),
                unrouted: settings.unrouted_queue().into(),
                dead: settings.dead_queue().into(),
            },
            declared: settings.topology,
            ensured: Arc::default(),
            last: Arc::default(),
        })
    }

    /// Whether a connection that is lost may be replaced by one to another server.
    pub(crate) fn has_several_servers(&self) -> bool {
        self.servers.len() > 1
    }

    /// The exchange that tickets are published to.
    pub(crate) fn exchange(&self) -> ShortString {
        self.topology.exchange.clone()
    }

    /// The key that leads from the exchange to the queue.
    pub(crate) fn routing_key(&self) -> ShortString {
        self.topology.queue.clone()
    }

    /// The queues that tickets are read from: where they should be, and where they end up while the
    /// binding or the queue is missing.
    pub(crate) fn queues(&self) -> [ShortString; 2] {
        [self.topology.queue.clone(), self.topology.unrouted.clone()]
    }

    /// All queues, in the order of their labels in the metrics: those, and where RabbitMQ puts what
    /// it gives up delivering, which nothing reads.
    pub(crate) fn all_queues(&self) -> [ShortString; 3] {
        let [main, unrouted] = self.queues();
        [main, unrouted, self.topology.dead.clone()]
    }

    /// Connects to any of the servers and makes sure of the topology. `purpose` names the connection
    /// in RabbitMQ's own tools.
    pub(crate) async fn connect(&self, purpose: &str) -> Result<Link, BrokerError> {
        if let [server] = &self.servers[..] {
            return self.connect_to(server, purpose, CONNECT_TIMEOUT).await;
        }
        let servers = self.in_some_order(purpose);
        let mut failed = Vec::new();
        for server in servers {
            let address = server.address();
            let connecting = self.connect_to(server, purpose, ONE_OF_SEVERAL_TIMEOUT);
            match connecting.await {
                Ok(link) => {
                    info!(purpose, server = %address, "connected to RabbitMQ");
                    self.last().insert(purpose.to_owned(), address);
                    return Ok(link);
                }
                Err(error) if error.is_of_one_server() => {
                    failed.push(format!("{address}: {error:#}"))
                }
                Err(error) => return Err(error),
            }
        }
        Err(BrokerError::NoServer(failed.join("; ")))
    }

    /// By chance, so that many processes spread over the servers, and come back to one that was away;
    /// but the one that the last connection was to is the last, as it may hang.
    fn in_some_order(&self, purpose: &str) -> Vec<&AmqpUrl> {
        let mut servers: Vec<_> = self.servers.iter().collect();
        fastrand::shuffle(&mut servers);
        let last = self.last().get(purpose).cloned();
        servers.sort_by_key(|server| Some(server.address()) == last);
        servers
    }

    fn last(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects to one server, with its handshakes within `limit`.
    async fn connect_to(
        &self,
        server: &AmqpUrl,
        purpose: &str,
        limit: Duration,
    ) -> Result<Link, BrokerError> {
        let socket = Arc::new(SocketSlot::default());
        let opened = timeout(CONNECT_TIMEOUT, async {
            let opening = timeout(limit, self.open(server, purpose, &socket));
            let connection = opening.await.unwrap_or(Err(BrokerError::Timeout))?;
            let link = Link::new(connection, socket.clone());
            self.ensure(&link).await?;
            Ok(link)
        });
        let opened = opened.await.unwrap_or(Err(BrokerError::Timeout));
        if opened.is_err() {
            // lapin's thread outlives the dropped future until its socket ends.
            socket.shut();
        }
        opened
    }

    /// Makes sure of the topology. Where that takes too long though all was there before, it is taken
    /// to be there still: what is published is confirmed, or returned, and the next connection asks.
    async fn ensure(&self, link: &Link) -> Result<(), BrokerError> {
        let ensured = self.topology.ensure(link.connection(), self.declared);
        if !self.has_several_servers() || !self.ensured.load(Ordering::Relaxed) {
            ensured.await?;
            self.ensured.store(true, Ordering::Relaxed);
            return Ok(());
        }
        timeout(ENSURE_AGAIN_TIMEOUT, ensured)
            .await
            .unwrap_or_else(|_late| {
                info!("RabbitMQ does not say in time whether all queues are there; they were");
                Ok(())
            })
    }

    async fn open(
        &self,
        server: &AmqpUrl,
        purpose: &str,
        slot: &SocketSlot,
    ) -> Result<Connection, BrokerError> {
        // Connected here and not by lapin, which tries only one address and keeps a task for ever
        // after each attempt that fails.
        let socket = connect_tcp(server).await?;
        slot.keep(&socket).map_err(io_error)?;
        let is_local = socket.peer_addr().is_ok_and(|peer| peer.ip().is_loopback());
        let wire = match &self.tls {
            None => Wire::Plain(socket, true),
            Some(tls) => encrypted(tls, &server.authority.host, socket).await?,
        };
        let wire = Mutex::new(Some(wire));
        let properties =
            ConnectionProperties::default().with_connection_name(client_name(purpose).into());
        let connection = Connection::connector(
            (**server).clone(),
            runtime(),
            async move |_uri, _runtime| {
                let wire = wire.lock().unwrap_or_else(PoisonError::into_inner).take();
                let wire = wire.ok_or_else(|| io_error(ErrorKind::NotConnected.into()))?;
                // What lapin calls plain may be encrypted: it is so for lapin.
                Ok(AsyncTcpStream::Plain(wire.compat()))
            },
            properties,
        );
        let connection = connection.await?;
        if self.tls.is_none() && !is_local {
            info!(
                purpose,
                "the connection to RabbitMQ is not encrypted: whoever is on the way can read its password and all \
                tickets (AMQP_URL)"
            );
        }
        Ok(connection)
    }
}
