//! A connection to PostgreSQL whose death is noticed, on both ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::config::{LoadBalanceHosts, TargetSessionAttrs};
use tokio_postgres::{Client, Connection, Error, NoTls, Socket};
use tracing::{debug, info, warn};

use super::StoreError;
use super::encryption::{self, Encryption};
use super::notices::{Warnings, drive};
use crate::config::{DatabaseConfig, SslMode};
use crate::tls::TlsError;

/// Maximum time for a TCP connection to one of the URL's hosts.
const TCP_TIMEOUT: Duration = Duration::from_secs(3);

/// Maximum time for a connection, with authentication and session settings.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The same where the URL names other servers, too: one that is silent must not keep from them.
const ONE_OF_SEVERAL_TIMEOUT: Duration = Duration::from_secs(3);

/// How long work may go without an answer before its server is asked for a sign of life, and again.
const CHECK_AFTER: Duration = Duration::from_secs(5);

/// Maximum time for that sign of life.
const CHECK_TIMEOUT: Duration = Duration::from_secs(4);

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

/// For sessions that ask for tickets by their ids or ranges of their numbers: in a partitioned table
/// these are found by BRIN indexes, whose worth PostgreSQL misjudges unless it knows the range, and then
/// reads all instead.
pub(super) const BY_INDEX: &str = "\
    set enable_seqscan = off; \
    set plan_cache_mode = force_custom_plan; \
    set max_parallel_workers_per_gather = 0";

/// A connection that is set up, and the task that drives it and ends with it.
pub(super) struct Connected {
    /// What statements go to.
    pub client: Client,
    /// Ends when the connection does.
    pub task: Task,
    /// What the server has warned of.
    pub warnings: Arc<Warnings>,
    /// The server that it is.
    pub server: DatabaseConfig,
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

/// Connects to the first of the URL's servers that will do, and sets the session up. `name` shows in
/// `pg_stat_activity`.
pub(super) async fn connect(
    database: &DatabaseConfig,
    name: &str,
) -> Result<Connected, StoreError> {
    let mut servers = database.servers();
    if database.driver.get_load_balance_hosts() == LoadBalanceHosts::Random {
        fastrand::shuffle(&mut servers);
    }
    let limit = match servers.len() {
        0 | 1 => return connect_to(database.clone(), name, CONNECT_TIMEOUT).await,
        _ => ONE_OF_SEVERAL_TIMEOUT,
    };
    let mut failed = Vec::new();
    for server in servers {
        let at = server.shown();
        match connect_to(server, name, limit).await {
            Err(StoreError::Unavailable(cause)) => {
                failed.push(format!("{at}: {:#}", StoreError::Unavailable(cause)));
            }
            connected => return connected,
        }
    }
    Err(StoreError::Unavailable(failed.join("; ").into()))
}

async fn connect_to(
    mut server: DatabaseConfig,
    name: &str,
    limit: Duration,
) -> Result<Connected, StoreError> {
    let driver = &mut server.driver;
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
    match timeout(limit, Box::pin(open(server))).await {
        Ok(connected) => connected,
        Err(_late) => Err(StoreError::Unavailable("no answer in time".into())),
    }
}

/// Waits until a server gives no sign of life. One that hangs as a whole acknowledges what is sent to
/// it all the same, as its kernel does not hang.
pub(super) async fn unresponsive(server: &DatabaseConfig) {
    loop {
        sleep(CHECK_AFTER).await;
        match timeout(CHECK_TIMEOUT, Box::pin(log_in(server))).await {
            Ok(Ok(())) => {}
            // Whatever it objects to, it has answered.
            Ok(Err(error)) if error.as_db_error().is_some() => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// Logs in, and asks for nothing: a pooler answers that itself, however busy what is behind it is.
async fn log_in(server: &DatabaseConfig) -> Result<(), Error> {
    let mut driver = server.driver.clone();
    driver.target_session_attrs(TargetSessionAttrs::Any);
    match Encryption::new(server) {
        Ok(Some(encryption)) => driver.connect(encryption).await.map(drop),
        Ok(None) => driver.connect(NoTls).await.map(drop),
        // Its files are being replaced, which says nothing of the server.
        Err(_) => Ok(()),
    }
}

async fn open(server: DatabaseConfig) -> Result<Connected, StoreError> {
    // Read each time: a certificate is replaced in good time before it expires, and nobody has to be told.
    let encryption = Encryption::new(&server)
        .map_err(|error| StoreError::Unavailable(error.to_string().into()))?;
    let is_encrypted = || encryption.as_ref().is_some_and(Encryption::is_done);
    let connected = set_up(server.clone(), encryption.clone()).await;
    let (connected, encoding) = connected.map_err(|error| {
        let about = encryption::about(&error, &server, is_encrypted());
        StoreError::unavailable(error, about)
    })?;
    tell_of_plain(&server, is_encrypted());
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
    server: DatabaseConfig,
    encryption: Option<Encryption>,
) -> Result<(Connected, String), Error> {
    let warnings = Arc::<Warnings>::default();
    let (client, task) = match encryption {
        None => driven(server.driver.connect(NoTls).await?, warnings.clone()),
        Some(encryption) => driven(server.driver.connect(encryption).await?, warnings.clone()),
    };
    client.batch_execute(SESSION).await?;
    for setting in SESSION_NEWER {
        if let Err(error) = client.batch_execute(setting).await {
            debug!("{setting}: {:#}", StoreError::classify(error));
        }
    }
    let encoding = client.query_one("show server_encoding", &[]).await?;
    let connected = Connected {
        client,
        task,
        warnings,
        server,
    };
    Ok((connected, encoding.try_get(0)?))
}

fn driven<S>(
    (client, connection): (Client, Connection<Socket, S>),
    warnings: Arc<Warnings>,
) -> (Client, Task)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let task = tokio::spawn(async move {
        if let Err(error) = drive(connection, &warnings).await {
            let error = StoreError::classify(error);
            warn!("a connection to PostgreSQL ended: {error:#}");
        }
    });
    (client, Task(task))
}
