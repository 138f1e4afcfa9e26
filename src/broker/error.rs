//! Why there is no connection to RabbitMQ.

use std::error::Error;
use std::fmt;

use crate::tls::TlsError;

/// Why there is no connection to RabbitMQ, or a call on it failed. The alternate form (`{:#}`) adds
/// the source, as one line for a log.
#[derive(Debug)]
pub(crate) enum BrokerError {
    /// The connection, a channel or the way to RabbitMQ failed.
    Amqp(lapin::Error),
    /// There is no TLS with RabbitMQ, and why, in terms of the settings.
    Tls(String, std::io::Error),
    /// A file that TLS needs cannot be used.
    File(TlsError),
    /// RabbitMQ did not answer in time.
    Timeout,
    /// There are several servers, and none to be used: each with the reason.
    NoServer(String),
    /// An exchange or a queue is missing or has other properties, so that tickets could be lost.
    Unsafe(String),
    /// Our user lacks the right to something that is ours to do.
    Forbidden(String),
}

impl BrokerError {
    /// Whether another server of the same RabbitMQ may do better.
    pub(super) fn is_of_one_server(&self) -> bool {
        matches!(self, Self::Amqp(_) | Self::Tls(..) | Self::Timeout)
    }
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Amqp(_) => f.write_str("the connection to RabbitMQ failed")?,
            Self::Tls(why, _) => f.write_str(why)?,
            Self::File(error) => write!(f, "{error}")?,
            Self::Timeout => f.write_str("RabbitMQ did not answer in time")?,
            Self::NoServer(why) => write!(f, "none of RabbitMQ's servers can be used: {why}")?,
            Self::Unsafe(why) | Self::Forbidden(why) => f.write_str(why)?,
        }
        match self.source() {
            Some(source) if f.alternate() => write!(f, ": {source}"),
            _ => Ok(()),
        }
    }
}

impl Error for BrokerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Amqp(error) => Some(error),
            Self::Tls(_, error) => Some(error),
            Self::File(_)
            | Self::Timeout
            | Self::NoServer(_)
            | Self::Unsafe(_)
            | Self::Forbidden(_) => None,
        }
    }
}

impl From<lapin::Error> for BrokerError {
    fn from(error: lapin::Error) -> Self {
        Self::Amqp(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_kept_and_added_on_request() {
        let error = BrokerError::from(lapin::Error::from(lapin::ErrorKind::MissingHeartbeatError));
        let source = error.source().expect("lapin's error").to_string();
        assert!(!error.to_string().contains(&source), "{error}");
        assert_eq!(format!("{error:#}"), format!("{error}: {source}"));
        assert!(BrokerError::Timeout.source().is_none());
    }
}
