//! Why a ticket is rejected.

use crate::http::body::BodyError;
use crate::http::encoding::UnknownCoding;
use crate::metrics::Rejected;
use crate::publisher::PublishError;
use crate::source::{IssuedAtError, KeyError};
use crate::ticket::TextError;

/// Why a ticket is rejected.
#[derive(Clone, Copy)]
pub(in crate::http::handlers) enum Rejection {
    /// Nothing proves who sends it.
    Unauthorized,
    /// Its sender's certificate names no source, for this reason.
    NoSource(&'static str),
    /// Its body is said to be in a form that is not read.
    UnknownCoding(UnknownCoding),
    /// Its sender is over its limit, for so many seconds.
    RateLimited(u32),
    /// Its key is none.
    BadKey(KeyError),
    /// Its time of issue is none.
    BadIssuedAt(IssuedAtError),
    /// It cannot be stored.
    NotText(TextError),
    /// It did not come.
    Body(BodyError),
    /// RabbitMQ has not confirmed it.
    NotPublished(PublishError),
}

impl Rejection {
    /// Whether nothing of the body is to be read for it, nor the client to be told to send it.
    pub(super) fn is_unread(&self) -> bool {
        matches!(
            self,
            Self::Unauthorized | Self::NoSource(_) | Self::UnknownCoding(_)
        )
    }

    /// The reason that it is counted by.
    pub(in crate::http::handlers) fn reason(&self) -> Rejected {
        match self {
            Self::Unauthorized => Rejected::Unauthorized,
            Self::NoSource(_) => Rejected::NoSource,
            Self::UnknownCoding(UnknownCoding::Content) => Rejected::ContentEncoding,
            Self::UnknownCoding(UnknownCoding::Charset) => Rejected::Charset,
            Self::RateLimited(_) => Rejected::RateLimited,
            Self::BadKey(_) => Rejected::BadKey,
            Self::BadIssuedAt(_) => Rejected::BadIssuedAt,
            Self::NotText(_) => Rejected::NotText,
            Self::Body(BodyError::TooLarge) => Rejected::TooLarge,
            Self::Body(BodyError::Timeout) => Rejected::TooSlow,
            Self::Body(BodyError::Incomplete) => Rejected::BrokenBody,
            Self::Body(BodyError::TooMany) => Rejected::Overloaded,
            Self::Body(BodyError::Broken(_)) => Rejected::BadEncoding,
            Self::NotPublished(error) => match error {
                PublishError::Unavailable => Rejected::BrokerAway,
                PublishError::Blocked => Rejected::BrokerBlocked,
                PublishError::Nacked => Rejected::Nack,
                PublishError::Returned => Rejected::Returned,
                PublishError::Timeout => Rejected::ConfirmTimeout,
                PublishError::Overloaded => Rejected::Overloaded,
                PublishError::Draining => Rejected::Draining,
            },
        }
    }
}
