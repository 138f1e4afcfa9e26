//! Why a subscription ends.

use std::error::Error;
use std::fmt;

use crate::broker::BrokerError;

/// Why a subscription ends before it is drained. The alternate form (`{:#}`) adds the sources, as
/// one line for a log.
#[derive(Debug)]
pub(super) enum SubscriptionError {
    /// Connecting, subscribing or acknowledging failed.
    Broker(BrokerError),
    /// The connection or the channel failed while messages were delivered.
    Delivery(lapin::Error),
    /// RabbitMQ cancelled the subscription, for example because the queue was deleted.
    Cancelled,
    /// Deliveries were held for too long without being stored.
    HeldTooLong,
    /// A writer accepted no batch though it was idle.
    WriterBusy,
}

impl fmt::Display for SubscriptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Its own text and sources are all there is to tell.
            Self::Broker(error) => return error.fmt(f),
            Self::Delivery(_) => f.write_str("the connection to RabbitMQ failed")?,
            Self::Cancelled => f.write_str("RabbitMQ cancelled the subscription")?,
            Self::HeldTooLong => {
                f.write_str("PostgreSQL has stored nothing for too long to hold deliveries")?;
            }
            Self::WriterBusy => f.write_str("a writer accepted no batch though it was idle")?,
        }
        match self.source() {
            Some(source) if f.alternate() => write!(f, ": {source}"),
            _ => Ok(()),
        }
    }
}

impl Error for SubscriptionError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Broker(error) => error.source(),
            Self::Delivery(error) => Some(error),
            Self::Cancelled | Self::HeldTooLong | Self::WriterBusy => None,
        }
    }
}

impl From<BrokerError> for SubscriptionError {
    fn from(error: BrokerError) -> Self {
        Self::Broker(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_kept_and_added_on_request() {
        let lapin = || lapin::Error::from(lapin::ErrorKind::MissingHeartbeatError);
        for error in [
            SubscriptionError::Delivery(lapin()),
            SubscriptionError::Broker(lapin().into()),
        ] {
            let source = error.source().expect("lapin's error").to_string();
            assert!(!error.to_string().contains(&source), "{error}");
            assert_eq!(format!("{error:#}"), format!("{error}: {source}"));
        }
        assert!(SubscriptionError::Cancelled.source().is_none());
    }
}
