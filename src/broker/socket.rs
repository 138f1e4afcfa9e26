//! The TCP connection under a connection.

use std::io::ErrorKind;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lapin::uri::AMQPUri;
use socket2::{SockRef, Socket, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::error::BrokerError;

/// Maximum wait for one TCP connection.
const TCP_TIMEOUT: Duration = Duration::from_secs(3);

/// Unacknowledged bytes longer than this mean a dead peer (Linux, tcp(7)).
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);

/// A second handle to the connection's socket: shutting it is the one way to end lapin's I/O thread
/// whatever that is waiting for.
#[derive(Default)]
pub(crate) struct SocketSlot(Mutex<Option<Socket>>);

impl SocketSlot {
    /// Takes a second handle, and makes a dead peer noticed.
    pub(crate) fn keep(&self, socket: &TcpStream) -> std::io::Result<()> {
        let socket = SockRef::from(socket);
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_USER_TIMEOUT))?;
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(socket.try_clone()?);
        Ok(())
    }

    /// Ends the connection, if it has not been ended yet.
    pub(crate) fn shut(&self) {
        if let Some(socket) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // An error means that the peer was first.
            let _ended = socket.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// Connects to the first address that takes the connection.
pub(super) async fn connect_tcp(uri: &AMQPUri) -> Result<TcpStream, BrokerError> {
    let host = (uri.authority.host.as_str(), uri.authority.port);
    let addresses = timeout(TCP_TIMEOUT, lookup_host(host)).await;
    let addresses = addresses
        .map_err(|_elapsed| BrokerError::Timeout)?
        .map_err(io_error)?;
    let mut last = BrokerError::from(io_error(ErrorKind::NotFound.into()));
    for address in addresses {
        match timeout(TCP_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => {
                socket.set_nodelay(true).map_err(io_error)?;
                return Ok(socket);
            }
            Ok(Err(error)) => last = io_error(error).into(),
            Err(_elapsed) => last = BrokerError::Timeout,
        }
    }
    Err(last)
}

/// An error of the socket as lapin gives its own.
pub(super) fn io_error(error: std::io::Error) -> lapin::Error {
    lapin::ErrorKind::IOError(Arc::new(error)).into()
}
