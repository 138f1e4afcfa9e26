//! Why a ticket is not confirmed, and why a session ends.

use std::error::Error;
use std::fmt;

/// Why a ticket was not confirmed. Its sender may try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishError {
    /// There is no connection to RabbitMQ.
    Unavailable,
    /// RabbitMQ accepts no messages for want of memory or disk.
    Blocked,
    /// RabbitMQ refused the message.
    Nacked,
    /// RabbitMQ had no queue for the message.
    Returned,
    /// No confirm came in time; the ticket may be stored all the same.
    Timeout,
    /// Too many tickets are waiting already.
    Overloaded,
    /// The process is shutting down.
    Draining,
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unavailable => "RabbitMQ is unavailable",
            Self::Blocked => "RabbitMQ accepts no messages for want of memory or disk",
            Self::Nacked => "RabbitMQ refused the message",
            Self::Returned => "RabbitMQ has no queue for the message",
            Self::Timeout => "no confirm in time",
            Self::Overloaded => "too many tickets are waiting",
            Self::Draining => "the process is shutting down",
        })
    }
}

impl Error for PublishError {}

/// What became of a ticket: confirmed, or why not.
pub(crate) type PublishResult = Result<(), PublishError>;

/// Why a channel cannot be trusted any more. The alternate form (`{:#}`) adds the source, as one
/// line for a log.
#[derive(Debug)]
pub(super) enum SessionError {
    /// The connection or the channel failed.
    Connection(lapin::Error),
    /// The connection ended without an error.
    ConnectionClosed,
    /// RabbitMQ has refused every message for too long.
    EverythingRefused,
    /// A message was returned, or was not confirmed at all.
    Returned,
    /// RabbitMQ has not confirmed a message in time.
    ConfirmTimeout,
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connection(_) => "the connection to RabbitMQ failed",
            Self::ConnectionClosed => "the connection to RabbitMQ was closed",
            Self::EverythingRefused => "RabbitMQ refuses every message",
            Self::Returned => "a message was unroutable, or was not confirmed at all",
            Self::ConfirmTimeout => "no confirm in time",
        })?;
        match self.source() {
            Some(source) if f.alternate() => write!(f, ": {source}"),
            _ => Ok(()),
        }
    }
}

impl Error for SessionError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Connection(error) => Some(error),
            _ => None,
        }
    }
}

impl From<lapin::Error> for SessionError {
    fn from(error: lapin::Error) -> Self {
        Self::Connection(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_kept_and_added_on_request() {
        let error = SessionError::from(lapin::Error::from(lapin::ErrorKind::MissingHeartbeatError));
        let source = error.source().expect("lapin's error").to_string();
        assert!(!error.to_string().contains(&source), "{error}");
        assert_eq!(format!("{error:#}"), format!("{error}: {source}"));
        assert!(SessionError::ConfirmTimeout.source().is_none());
    }
}
