//! RabbitMQ's URL.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use lapin::uri::AMQPUri;

use crate::config::secret::{MASK, encoded, host};

/// The errors of the AMQP client's parser that quote nothing; the others may.
const AMQP_FORM_ERRORS: [&str; 3] = ["invalid port number", "empty host", "invalid IPv6 address"];

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
    /// Host and port.
    pub fn address(&self) -> String {
        let authority = &self.0.authority;
        format!("{}:{}", host(&authority.host), authority.port)
    }

    /// As it may be shown: without its password, and without what follows a question mark.
    pub(super) fn masked(&self) -> String {
        let Self(uri) = self;
        let (user, vhost) = (
            encoded(&uri.authority.userinfo.username),
            encoded(&uri.vhost),
        );
        let address = self.address();
        format!("{}://{user}:{MASK}@{address}/{vhost}", uri.scheme)
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

/// Whether it begins as a URL of RabbitMQ's does.
pub(super) fn has_scheme(text: &str) -> bool {
    let scheme = text.split_once("://").unwrap_or_default().0;
    let is = |known: &str| scheme.eq_ignore_ascii_case(known);
    is("amqp") || is("amqps")
}

/// Reads one server's URL.
pub(super) fn amqp_url(text: &str) -> Result<AmqpUrl, String> {
    if !has_scheme(text) {
        return Err("it does not begin with amqp:// or amqps://".into());
    }
    let rest = text.split_once("://").unwrap_or_default().1;
    let after_host = rest.split_once(['/', '?', '#']).unwrap_or_default().1;
    if rest.contains('#') || after_host.contains('@') {
        return Err("in a user name, a password or a vhost, # is written %23, / is %2F, ? is %3F and @ is %40".into());
    }
    let after_login = rest.split_once('@').unwrap_or(("", rest)).1;
    if after_login.contains(',') {
        return Err("several servers are whole URLs with commas between, each with its amqp:// or amqps://, and in a vhost , is \
                    written %2C".into());
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
