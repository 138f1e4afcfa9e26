//! Why a ticket is not confirmed.

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
pub type PublishResult = Result<(), PublishError>;
