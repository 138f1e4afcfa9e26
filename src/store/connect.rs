//! A connection to PostgreSQL whose death is noticed, on both ends.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::{Client, Connection, Error, NoTls, Socket};
use tracing::{debug, info, warn};

use super::StoreError;
use super::encryption::{self, Encryption};
use crate::config::{DatabaseConfig, SslMode};
use crate::tls::TlsError;

/// Maximum time for a TCP connection to one of the URL's hosts.
const TCP_TIMEOUT: Duration = Duration::from_secs(3);

/// Maximum time for a connection, with authentication and session settings.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The encoding of a database that can hold every ticket.
const ENCODING: &str = "UTF8";

/// After this much silence a peer is asked for a sign of life, and again at
/// each interval.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;

/// Unacknowledged bytes longer than this mean a dead peer.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);

// The tcp_ settings and client_connection_check_interval are the server's side:
// a backend whose client vanished would keep its locks for hours. The time-outs
// bound what a statement can wait for; all of it is repeated.
const SESSION: &str = "\
    set synchronous_commit = on; \
    set client_encoding = 'UTF8'; \
    set tcp_keepalives_idle = 10; \
    set tcp_keepalives_interval = 5; \
    set tcp_keepalives_count = 3; \
    set statement_timeout = '30s'; \
    set lock_timeout = '10s'; \
    set idle_in_transaction_session_timeout = '30s'; \
    set work_mem = '16MB'; \
    set jit = off";

/// Since PostgreSQL 12 and 14: nothing is lost without them but time.
const SESSION_NEWER: [&str; 2] = [
    "set tcp_user_timeout = 15000",
    "set client_connection_check_interval = '5s'",
];

/// A connection that is set up, and the task that drives it and ends with it.
pub(super) struct Connected {
    /// What statements go to.
    pub client: Client,
    /// Ends when the connection does.
    pub task: Task,
}

/// A task that does not outlive its handle.
pub(super) struct Task(JoinHandle<()>);

impl Task {
    /// Waits until it ends.
    pub(super) async fn ended(&mut self) {
        // It logs why it ended; how it was joined says nothing more.
        let _joined = (&mut self.0).await;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reads what TLS needs, to find at the start what connecting would refuse each time.
pub(crate) fn check_tls(database: &DatabaseConfig) -> Result<(), TlsError> {
    Encryption::new(database).map(drop)
}

/// Connects and sets the session up. `name` shows in `pg_stat_activity`.
pub(super) async fn connect(
    database: &DatabaseConfig,
    name: &str,
) -> Result<Connected, StoreError> {
    let mut database = database.clone();
    let driver = &mut database.driver;
    if driver.get_application_name().is_none() {
        driver.application_name(name);
    }
    driver
        .connect_timeout(TCP_TIMEOUT)
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(KEEPALIVE_INTERVAL)
        .keepalives_retries(KEEPALIVE_RETRIES)
        .tcp_user_timeout(TCP_USER_TIMEOUT);
    // Boxed: the handshake's buffers are not to be part of whoever connects now and then.
    match timeout(CONNECT_TIMEOUT, Box::pin(open(&database))).await {
        Ok(connected) => connected,
        Err(_late) => Err(StoreError::Unavailable("no answer in time".into())),
    }
}

async fn open(database: &DatabaseConfig) -> Result<Connected, StoreError> {
    // Read each time: a certificate is replaced in good time before it expires, and nobody has to be told.
    let encryption = Encryption::new(database)
        .map_err(|error| StoreError::Unavailable(error.to_string().into()))?;
    let is_encrypted = || encryption.as_ref().is_some_and(Encryption::is_done);
    let connected = set_up(database, encryption.clone()).await;
    let (connected, encoding) = connected.map_err(|error| {
        let about = encryption::about(&error, database, is_encrypted());
        StoreError::unavailable(error, about)
    })?;
    tell_of_plain(database, is_encrypted());
    if encoding != ENCODING {
        return Err(StoreError::Encoding(encoding));
    }
    Ok(connected)
}

/// A connection that others may listen in on is not made in silence.
fn tell_of_plain(database: &DatabaseConfig, is_encrypted: bool) {
    if is_encrypted || database.is_local() {
        return;
    }
    if database.tls.mode == SslMode::Disable {
        info!("the connection to PostgreSQL is not encrypted (sslmode=disable)");
    } else {
        warn!(
            "the connection to PostgreSQL is not encrypted: the server offers no TLS, and sslmode=prefer goes without"
        );
    }
}

/// The connection, and its database's encoding.
async fn set_up(
    database: &DatabaseConfig,
    encryption: Option<Encryption>,
) -> Result<(Connected, String), Error> {
    let (client, task) = match encryption {
        None => driven(database.driver.connect(NoTls).await?),
        Some(encryption) => driven(database.driver.connect(encryption).await?),
    };
    client.batch_execute(SESSION).await?;
    for setting in SESSION_NEWER {
        if let Err(error) = client.batch_execute(setting).await {
            debug!("{setting}: {:#}", StoreError::classify(error));
        }
    }
    let encoding = client.query_one("show server_encoding", &[]).await?;
    Ok((Connected { client, task }, encoding.try_get(0)?))
}

fn driven<S>((client, connection): (Client, Connection<Socket, S>)) -> (Client, Task)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let task = tokio::spawn(async move {
        if let Err(error) = connection.await {
            let error = StoreError::classify(error);
            warn!("a connection to PostgreSQL ended: {error:#}");
        }
    });
    (client, Task(task))
}
