//! RabbitMQ: its URL, and the names used there.

use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use lapin::uri::{AMQPScheme, AMQPUri};

use super::secret::{MASK, Secret, encoded, host};
use super::tls::{Authorities, PeerCheck, TlsFile, TlsIdentity};
use super::units::amqp_name;

/// The errors of the AMQP client's parser that quote nothing; the others may.
const AMQP_FORM_ERRORS: [&str; 3] = ["invalid port number", "empty host", "invalid IPv6 address"];

/// RabbitMQ and the names used there.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "RabbitMQ")]
pub struct BrokerSettings {
    /// RabbitMQ, as amqp://user:password@host:port/vhost (%2f is the vhost "/"), or amqps:// for TLS; RABBITMQ_URL or CLOUDAMQP_URL is used if this is not set [default: amqp://127.0.0.1:5672/%2f]
    #[arg(long, env = "AMQP_URL", value_parser = Secret(amqp_url), hide_env_values = true)]
    amqp_url: Option<AmqpUrl>,
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

/// RabbitMQ's address and the login there, which is never shown.
#[derive(Clone)]
pub struct AmqpUrl(AMQPUri);

impl Deref for AmqpUrl {
    type Target = AMQPUri;

    fn deref(&self) -> &AMQPUri {
        &self.0
    }
}

impl fmt::Debug for AmqpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(uri) = self;
        let (host, port) = (&uri.authority.host, uri.authority.port);
        write!(f, "{}://_@{host}:{port}/{}", uri.scheme, uri.vhost)
    }
}

impl Default for AmqpUrl {
    /// RabbitMQ on this machine, as it is installed.
    fn default() -> Self {
        let mut uri = AMQPUri::default();
        uri.authority.host = "127.0.0.1".to_owned();
        Self::with_limits(uri)
    }
}

impl AmqpUrl {
    /// As it may be shown: without its password, and without what follows a question mark.
    pub(super) fn masked(&self) -> String {
        let Self(uri) = self;
        let (user, vhost) = (
            encoded(&uri.authority.userinfo.username),
            encoded(&uri.vhost),
        );
        let (host, port) = (host(&uri.authority.host), uri.authority.port);
        format!("{}://{user}:{MASK}@{host}:{port}/{vhost}", uri.scheme)
    }

    /// What the URL leaves open is set to what suits ticketd.
    fn with_limits(mut uri: AMQPUri) -> Self {
        // 128 KiB is RabbitMQ's own default; left open on both sides, the client would size its buffers for 4 GiB frames.
        uri.query.frame_max.get_or_insert(131_072);
        // A peer that is silent for twice these seconds is taken for dead.
        uri.query.heartbeat.get_or_insert(10);
        Self(uri)
    }
}

/// How a connection to RabbitMQ is protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AmqpTls {
    /// What is checked of RabbitMQ.
    pub check: PeerCheck,
    /// What is shown to RabbitMQ.
    pub identity: Option<TlsIdentity>,
}

/// Reads RabbitMQ's URL.
pub(super) fn amqp_url(text: &str) -> Result<AmqpUrl, String> {
    let (scheme, rest) = text.split_once("://").unwrap_or_default();
    if !["amqp", "amqps"]
        .iter()
        .any(|known| scheme.eq_ignore_ascii_case(known))
    {
        return Err("it does not begin with amqp:// or amqps://".into());
    }
    let after_host = rest.split_once(['/', '?', '#']).unwrap_or_default().1;
    if rest.contains('#') || after_host.contains('@') {
        return Err("in a user name, a password or a vhost, # is written %23, / is %2F, ? is %3F and @ is %40".into());
    }
    let mut uri = AMQPUri::from_str(text).map_err(|error| amqp_form(&error))?;
    // The client's parser takes an IPv6 address for no host, which would be localhost.
    let host = rest
        .split(['/', '?'])
        .next()
        .and_then(|authority| authority.rsplit('@').next());
    if let Some((address, _port)) = host.and_then(|host| host.strip_prefix('[')?.split_once(']')) {
        uri.authority.host = address.to_owned();
    }
    Ok(AmqpUrl::with_limits(uri))
}

fn amqp_form(error: &str) -> String {
    if AMQP_FORM_ERRORS.contains(&error) {
        return error.to_owned();
    }
    "it is not of the form amqp://user:password@host:port/vhost, with numbers for heartbeat, frame_max, channel_max and \
     connection_timeout after a ?"
        .into()
}

impl BrokerSettings {
    /// RabbitMQ's address.
    pub fn url(&self) -> AmqpUrl {
        self.amqp_url.clone().unwrap_or_default()
    }

    /// How the connection is protected; none where it is plain. Fails where it would be plain
    /// though a certificate is set.
    pub fn tls(&self) -> Result<Option<AmqpTls>, String> {
        if self.url().scheme == AMQPScheme::AMQP {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_what_its_help_says() {
        let written = amqp_url("amqp://127.0.0.1:5672/%2f").expect("valid");
        assert_eq!(*AmqpUrl::default(), *written);
    }

    #[test]
    fn the_vhost_of_a_url_is_kept() {
        let uri = amqp_url("amqp://u:p@rabbitmq:5672/%2f").expect("valid");
        assert_eq!(
            (uri.vhost.as_str(), uri.authority.host.as_str()),
            ("/", "rabbitmq")
        );
    }

    #[test]
    fn an_ipv6_address_is_the_host() {
        let uri = amqp_url("amqp://u:p[@[fe80::1]:5673/%2f").expect("valid");
        assert_eq!(
            (uri.authority.host.as_str(), uri.authority.port),
            ("fe80::1", 5673)
        );
        let uri = amqp_url("amqp://[::1]").expect("valid");
        assert_eq!(
            (uri.authority.host.as_str(), uri.authority.port),
            ("::1", 5672)
        );
        let uri = amqp_url("amqps://[::1]").expect("valid");
        assert_eq!(uri.authority.port, 5671);
    }

    #[test]
    fn a_password_may_hold_what_cannot_be_mistaken() {
        for (written, password) in [
            ("p%23%2F%3F%40%25", "p#/?@%"),
            ("p@ss", "p@ss"),
            ("[x]", "[x]"),
            ("100%", "100%"),
        ] {
            let uri = amqp_url(&format!("amqp://u:{written}@h:1/v")).expect(written);
            assert_eq!(uri.authority.userinfo.password, password);
            assert_eq!((uri.authority.host.as_str(), &*uri.vhost), ("h", "v"));
        }
    }

    #[test]
    fn an_error_keeps_what_cannot_be_secret() {
        for (url, why) in [
            ("amqp://u:p@h:x", "invalid port number"),
            ("amqp://u:p@/", "empty host"),
            ("amqp://u:p#@h/", "# is written %23"),
            ("amqps://u:p@h:x", "invalid port number"),
            ("http://u:p@h/", "does not begin with amqp://"),
            ("amqp://u:p@h/?heartbeat=x", "numbers for heartbeat"),
        ] {
            let error = amqp_url(url).expect_err("must be rejected");
            assert!(error.contains(why), "{url}: {error}");
        }
    }
}
