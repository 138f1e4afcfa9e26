//! HTTP/1.1 to a ticketd, for the commands that ask one.
//!
//! - `pool`: connections that are kept, as many as requests may be under way.
//! - `connection`: a new one, plain or under TLS.
//! - `request`, `response`: what is sent over them, and what comes back, of bounded length.
//!
//! Every wait has an end, and a request that broke off on a connection that had been kept is sent once
//! more over another: whatever is sent here may be repeated.

mod connection;
mod error;
mod pool;
mod request;
mod response;

pub(crate) use error::ClientError;
pub(crate) use pool::HttpClient;
pub(crate) use request::HttpRequest;
pub(crate) use response::HttpAnswer;
