//! RabbitMQ: its URL, and the names used there.

mod servers;
mod url;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use lapin::uri::AMQPScheme;

pub(super) use servers::{AmqpUrls, amqp_urls};
pub use url::AmqpUrl;

use super::secret::Secret;
use super::tls::{Authorities, PeerCheck, TlsFile, TlsIdentity};
use super::units::amqp_name;

/// RabbitMQ and the names used there.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "RabbitMQ")]
pub struct BrokerSettings {
    /// RabbitMQ, as amqp://user:password@host:port/vhost (%2f is the vhost "/"), or amqps:// for TLS, or several URLs with commas between, of which any that answers is used; RABBITMQ_URL or CLOUDAMQP_URL is used if this is not set [default: amqp://127.0.0.1:5672/%2f]
    #[arg(long, env = "AMQP_URL", value_parser = Secret(amqp_urls), hide_env_values = true)]
    amqp_url: Option<AmqpUrls>,
    /// The CAs (PEM) that count for RabbitMQ's certificate with amqps:// [default: the machine's]
    #[arg(long, env = "AMQP_TLS_CA", value_name = "FILE")]
    amqp_tls_ca: Option<PathBuf>,
    /// The certificate (PEM) to show to RabbitMQ with amqps://
    #[arg(
        long,
        env = "AMQP_TLS_CERT",
        value_name = "FILE",
        requires = "amqp_tls_key"
    )]
    amqp_tls_cert: Option<PathBuf>,
    /// The key (PEM, without a passphrase) of AMQP_TLS_CERT
    #[arg(
        long,
        env = "AMQP_TLS_KEY",
        value_name = "FILE",
        requires = "amqp_tls_cert"
    )]
    amqp_tls_key: Option<PathBuf>,
    /// The queue that tickets wait in
    #[arg(long, env = "QUEUE", default_value = "tickets", value_parser = amqp_name)]
    pub queue: String,
    /// The exchange that tickets are published to [default: {QUEUE}]
    #[arg(long, env = "EXCHANGE", value_parser = amqp_name)]
    exchange: Option<String>,
    /// The queue for tickets that the exchange could not route, consumed like QUEUE [default: {QUEUE}.unrouted]
    #[arg(long, env = "UNROUTED_QUEUE", value_parser = amqp_name)]
    unrouted_queue: Option<String>,
    /// The queue for messages that RabbitMQ itself gave up delivering (dead letters) [default: {QUEUE}.dead]
    #[arg(long, env = "DEAD_QUEUE", value_parser = amqp_name)]
    dead_queue: Option<String>,
    /// Who declares exchanges, queues and bindings: ticketd at each connection, or somebody else, who vouches for them
    // The default fails where rights are missing or something is different, instead of hoping for the best.
    #[arg(long, env = "TOPOLOGY", value_enum, default_value_t = TopologyMode::Declare)]
    pub topology: TopologyMode,
}

/// Who declares exchanges, queues and bindings.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum TopologyMode {
    /// ticketd, which rejects existing ones that differ.
    Declare,
    /// Somebody else, who vouches that they lose nothing: ticketd only checks that they exist.
    Existing,
}

/// How a connection to RabbitMQ is protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AmqpTls {
    /// What is checked of RabbitMQ.
    pub check: PeerCheck,
    /// What is shown to RabbitMQ.
    pub identity: Option<TlsIdentity>,
}

impl BrokerSettings {
    /// RabbitMQ's servers, at least one, all with the same scheme and vhost.
    pub fn servers(&self) -> Vec<AmqpUrl> {
        self.amqp_url.clone().unwrap_or_default().into_servers()
    }

    /// How the connection is protected; none where it is plain. Fails where it would be plain
    /// though a certificate is set.
    pub fn tls(&self) -> Result<Option<AmqpTls>, String> {
        let is_plain = |server: &AmqpUrl| server.scheme == AMQPScheme::AMQP;
        if self.servers().iter().any(is_plain) {
            let is_set = self.amqp_tls_ca.is_some() || self.amqp_tls_cert.is_some();
            let why = "AMQP_TLS_CA or AMQP_TLS_CERT is set, but nothing is encrypted unless it begins with amqps://";
            return if is_set { Err(why.into()) } else { Ok(None) };
        }
        let authorities = match &self.amqp_tls_ca {
            Some(path) => Authorities::File(TlsFile::new("AMQP_TLS_CA", path)),
            None => Authorities::Machine("AMQP_TLS_CA"),
        };
        let identity = self.amqp_tls_cert.as_ref().zip(self.amqp_tls_key.as_ref());
        Ok(Some(AmqpTls {
            check: PeerCheck::Named(authorities),
            identity: identity.map(|(certificate, key)| TlsIdentity {
                certificate: TlsFile::new("AMQP_TLS_CERT", certificate),
                key: TlsFile::new("AMQP_TLS_KEY", key),
            }),
        }))
    }

    /// The exchange that tickets are published to.
    pub fn exchange(&self) -> String {
        self.exchange.clone().unwrap_or_else(|| self.queue.clone())
    }

    /// The queue for tickets that the exchange could not route.
    pub fn unrouted_queue(&self) -> String {
        self.unrouted_queue
            .clone()
            .unwrap_or_else(|| format!("{}.unrouted", self.queue))
    }

    /// The queue for messages that RabbitMQ gave up delivering.
    pub fn dead_queue(&self) -> String {
        self.dead_queue
            .clone()
            .unwrap_or_else(|| format!("{}.dead", self.queue))
    }
}
