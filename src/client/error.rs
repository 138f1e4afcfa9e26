//! Why there is no answer.

use std::error::Error;
use std::fmt;
use std::io::{Error as IoError, ErrorKind};
use std::time::Duration;

use crate::tls::{TlsError, wants_certificate};

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum ClientError {
    /// No connection was made.
    Connect(IoError),
    /// The server's certificate, or ours, is not taken; why, in our own words.
    Untrusted(String),
    /// A file that TLS needs cannot be used.
    Files(TlsError),
    /// The connection broke, or what came over it is no HTTP.
    Broken(hyper::Error),
    /// There is none within this time.
    Late(Duration),
    /// It has more than so many bytes.
    TooLarge(usize),
    /// The value of this header of the request is none.
    BadHeader(&'static str),
}

impl ClientError {
    /// Whether nothing listens there.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self, Self::Connect(error) if error.kind() == ErrorKind::ConnectionRefused)
    }

    /// Whether the server ended the connection because we have no certificate.
    pub(crate) fn wants_certificate(&self) -> bool {
        let mut cause = Some(self as &(dyn Error + 'static));
        while let Some(error) = cause {
            if error.downcast_ref().is_some_and(wants_certificate) {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(_) => f.write_str("cannot connect"),
            Self::Untrusted(why) => f.write_str(why),
            Self::Files(error) => error.fmt(f),
            Self::Broken(_) => f.write_str("the connection broke"),
            Self::Late(within) => write!(f, "no answer in time ({within:?})"),
            Self::TooLarge(bytes) => write!(f, "the answer has more than {bytes} bytes"),
            Self::BadHeader(name) => write!(f, "{name}: that is no value of a header"),
        }
    }
}

impl Error for ClientError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Connect(error) => Some(error),
            Self::Broken(error) => Some(error),
            _ => None,
        }
    }
}
