//! TLS: certificates and keys out of files, and what each end of a connection checks of the other.
//! The only place that knows rustls.
//!
//! - `files`: what settings name, as certificates, keys and CAs, or an error that names the setting.
//! - `server`: the listeners' certificate, which is replaced while they listen.
//! - `client_name`: the source that a client's certificate names.
//! - `client`: a connection to a server, whose certificate is checked as far as asked for.

mod client;
mod client_name;
mod files;
mod server;

pub(crate) use client::{ClientTls, explain, wants_certificate};
pub(crate) use client_name::ClientIdentity;
pub(crate) use files::TlsError;
pub(crate) use server::{Clients, ServerFiles, ServerTls};

use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};

/// A connection of a listener's, encrypted.
pub(crate) type ServerStream<S> = tokio_rustls::server::TlsStream<S>;

/// A connection to a server, encrypted.
pub(crate) type ClientStream<S> = tokio_rustls::client::TlsStream<S>;

/// Named each time, as rustls panics where it has to choose and cannot.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
