//! What PostgreSQL says beside its answers.
//!
//! A COMMIT whose wait for a synchronous standby is cancelled is answered with success, and only a
//! warning before it tells that the standby may not have it
//! (<https://www.postgresql.org/docs/current/warm-standby.html#SYNCHRONOUS-REPLICATION-HA>). So what
//! was warned of has an unknown outcome.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::error::{DbError, Severity};
use tokio_postgres::{AsyncMessage, Connection, Error};
use tracing::{debug, warn};

/// The warnings of one connection.
#[derive(Debug, Default)]
pub(super) struct Warnings(AtomicU64);

impl Warnings {
    /// How many there were so far. Whoever has the answer to a statement has those that came before
    /// it counted.
    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    fn add(&self, notice: &DbError) {
        let (code, message) = (notice.code().code(), notice.message());
        match notice.parsed_severity() {
            Some(Severity::Notice | Severity::Info | Severity::Log | Severity::Debug) => {
                debug!(code, "PostgreSQL notes: {message}");
            }
            // A server that does not say how severe it is may mean anything.
            _ => {
                self.0.fetch_add(1, Ordering::Release);
                warn!(code, "PostgreSQL warns: {message}");
            }
        }
    }
}

/// Drives a connection to its end. A notice is counted before the answer that it came before goes to
/// whoever waits for that.
pub(super) async fn drive<S, T>(
    mut connection: Connection<S, T>,
    warnings: &Warnings,
) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        if let AsyncMessage::Notice(notice) = message? {
            warnings.add(&notice);
        }
    }
    Ok(())
}
