//! A connection to RabbitMQ.

use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use lapin::options::{ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, Event};
use tokio::time::timeout;
use tracing::info;

use super::error::BrokerError;
use super::socket::SocketSlot;

/// Maximum wait for a connection with its handshake and the topology, and for any other call.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);

/// Maximum wait for a connection with its handshakes where there are other servers, too: one that is
/// silent must not keep from them.
pub(super) const ONE_OF_SEVERAL_TIMEOUT: Duration = Duration::from_secs(3);

/// Maximum wait for the topology where it was all there on an earlier connection. While a node of a
/// cluster hangs, the others cannot change it, nor say of all of it that it needs no change.
pub(super) const ENSURE_AGAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum wait for the closing handshake, after which the socket is shut.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection to RabbitMQ; dropping it shuts the socket.
pub(crate) struct Link {
    connection: Connection,
    socket: Arc<SocketSlot>,
}

impl Link {
    /// Over this connection, with a second handle to its socket.
    pub(crate) fn new(connection: Connection, socket: Arc<SocketSlot>) -> Self {
        Self { connection, socket }
    }

    /// lapin's connection.
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Opens a channel on which every publish is confirmed.
    pub(crate) async fn publishing_channel(&self) -> Result<Channel, BrokerError> {
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
    pub(crate) async fn channel(&self) -> Result<Channel, BrokerError> {
        within(self.connection.create_channel()).await
    }

    /// How many messages wait in a queue and are with no consumer. On a channel of its own, which
    /// RabbitMQ closes if there is no such queue.
    pub(crate) async fn waiting(&self, queue: ShortString) -> Result<u32, BrokerError> {
        within(async {
            let channel = self.connection.create_channel().await?;
            let options = QueueDeclareOptions {
                passive: true,
                ..Default::default()
            };
            let declared = channel.queue_declare(queue, options, FieldTable::default());
            let messages = declared.await?.message_count();
            channel.close(200, "done".into()).await?;
            Ok(messages)
        })
        .await
    }

    /// What happens to the connection. To be called once: a second listener would take events away
    /// from the first.
    pub(crate) fn events(&self) -> impl Stream<Item = Event> + Send + 'static {
        self.connection.events_listener()
    }

    /// Closes with a handshake, within a bound.
    pub(crate) async fn close(self) {
        let closing = self.connection.close(200, "closing".into());
        match timeout(CLOSE_TIMEOUT, closing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => info!(%error, "closing the connection to RabbitMQ failed"),
            Err(_elapsed) => info!("connection close timed out"),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.socket.shut();
    }
}

/// Bounds a call to RabbitMQ, which a hung broker never answers.
pub(crate) async fn within<T>(
    call: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<T, BrokerError> {
    Ok(timeout(CONNECT_TIMEOUT, call)
        .await
        .map_err(|_elapsed| BrokerError::Timeout)??)
}
