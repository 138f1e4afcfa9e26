//! The servers' URLs, and how a wrong one is refused. They hold passwords: no message says more of
//! one than its form, since a password that is not encoded may stand in any part of it.

use std::ffi::OsStr;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use clap::builder::TypedValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use lapin::uri::AMQPUri;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

/// The errors of the AMQP client's parser that quote nothing; the others may.
const AMQP_FORM_ERRORS: [&str; 3] = ["invalid port number", "empty host", "invalid IPv6 address"];

/// Reads a setting that holds a password; clap's own parsers show a value that they refuse.
#[derive(Clone)]
pub(super) struct Secret<T>(pub(super) fn(&str) -> Result<T, String>);

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Secret<T> {
    type Value = T;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        let text = value.to_str().ok_or_else(|| "it is not UTF-8".to_owned());
        text.and_then(self.0).map_err(|why| {
            let name = argument.map(ToString::to_string).unwrap_or_default();
            let message = format!("invalid value for '{name}': {why}\n");
            clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command)
        })
    }
}

/// RabbitMQ's address and the login there, which is not shown.
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
        write!(f, "amqp://_@{host}:{port}/{}", uri.vhost)
    }
}

/// Reads RabbitMQ's URL.
pub(super) fn amqp_url(text: &str) -> Result<AmqpUrl, String> {
    let (scheme, rest) = text.split_once("://").unwrap_or_default();
    if scheme.eq_ignore_ascii_case("amqps") {
        return Err("amqps:// is not built in: use amqp:// on a trusted network or through a local TLS proxy".into());
    }
    if !scheme.eq_ignore_ascii_case("amqp") {
        return Err("it does not begin with amqp://".into());
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
    // 128 KiB is RabbitMQ's own default; left open on both sides, the client would size its buffers for 4 GiB frames.
    uri.query.frame_max.get_or_insert(131_072);
    // A peer that is silent for twice these seconds is taken for dead.
    uri.query.heartbeat.get_or_insert(10);
    Ok(AmqpUrl(uri))
}

fn amqp_form(error: &str) -> String {
    if AMQP_FORM_ERRORS.contains(&error) {
        return error.to_owned();
    }
    "it is not of the form amqp://user:password@host:port/vhost, with numbers for heartbeat, frame_max, channel_max and \
     connection_timeout after a ?"
        .into()
}

/// Reads PostgreSQL's URL, or libpq's pairs of key and value.
pub(super) fn database_url(text: &str) -> Result<Config, String> {
    let is_url = ["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| text.starts_with(scheme));
    let is_pairs = || {
        text.split("://")
            .next()
            .is_some_and(|start| start.contains('='))
    };
    if !is_url && !is_pairs() {
        return Err("it does not begin with postgres:// or postgresql://".into());
    }
    let config = Config::from_str(text).map_err(|error| database_form(&error))?;
    if config.get_ssl_mode() == SslMode::Require {
        return Err(
            "sslmode=require is not built in: use a trusted network or a local TLS proxy".into(),
        );
    }
    check_hosts(&config)?;
    Ok(config)
}

fn database_form(error: &tokio_postgres::Error) -> String {
    let why = std::error::Error::source(error).map_or_else(String::new, ToString::to_string);
    // Names an option of PostgreSQL's, not what was written.
    if why.starts_with("invalid value for option `") {
        return why;
    }
    // Quotes the option.
    if why.starts_with("unknown option ") {
        return "it has an option that is not known here".into();
    }
    "it is not of the form postgres://user:password@host:port/database, nor pairs such as host=... user=...".into()
}

/// Finds what connecting would refuse each time, and a password that reached into the host.
fn check_hosts(config: &Config) -> Result<(), String> {
    let (hosts, addresses) = (config.get_hosts().len(), config.get_hostaddrs().len());
    let (servers, ports) = (hosts.max(addresses), config.get_ports().len());
    if servers == 0 {
        return Err("it names no host".into());
    }
    if hosts > 0 && addresses > 0 && hosts != addresses {
        return Err("it has not as many of hostaddr as of host".into());
    }
    if ports > 1 && ports != servers {
        return Err("it has not as many ports as hosts".into());
    }
    let is_odd = |host: &Host| matches!(host, Host::Tcp(name) if name.contains('@'));
    if config.get_hosts().iter().any(is_odd) {
        return Err("in a user name or a password, @ is written %40".into());
    }
    Ok(())
}

/// Takes out of clap's refusal what may be a password: clap quotes an argument that it did not
/// expect, and what was given to another setting by mistake.
pub(super) fn without_secrets(error: clap::Error, arguments: &[String]) -> clap::Error {
    let quoted = match error.kind() {
        ErrorKind::UnknownArgument => ContextKind::InvalidArg,
        ErrorKind::InvalidSubcommand => ContextKind::InvalidSubcommand,
        _ => ContextKind::InvalidValue,
    };
    let Some(ContextValue::String(text)) = error.get(quoted) else {
        return error;
    };
    // A password with a blank or a quote in it may have been cut into several arguments.
    let is_given = arguments.iter().any(|argument| holds_secret(argument));
    if is_flag(text) || !is_given && !holds_secret(text) {
        return error;
    }
    let what = match (quoted, error.get(ContextKind::InvalidArg)) {
        (ContextKind::InvalidValue, Some(name)) => format!("invalid value for '{name}'"),
        _ => "unexpected argument".into(),
    };
    let message = format!("{what}, which is not shown, as it may hold a password\n");
    clap::Error::raw(error.kind(), message)
}

/// Whether it looks like a URL, or like a setting of libpq's.
fn holds_secret(text: &str) -> bool {
    text.contains("://") || text.contains("password")
}

fn is_flag(text: &str) -> bool {
    text.strip_prefix("--")
        .is_some_and(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for url in [
            "postgres://u:p%23%2F%3F%40%25@h/d",
            "postgresql://u:p#/?%40%25@h:1,g:2/d?sslmode=disable",
            "host=h user=u password='p#/?@%'",
            "host=h password=p#/?@% dbname='postgres://x'",
            "postgres://u@h/d?password=p%23/?%40%25",
        ] {
            let config = database_url(url).expect(url);
            assert_eq!(config.get_password(), Some(b"p#/?@%".as_slice()), "{url}");
        }
        for url in [
            "postgres://%2Fvar%2Frun/d",
            "host=/var/run dbname=d",
            "hostaddr=::1",
            "postgres:///d?host=/var/run",
        ] {
            database_url(url).expect(url);
        }
    }

    #[test]
    fn a_refusal_keeps_what_cannot_be_secret() {
        for (url, why) in [
            ("postgres://u:p@h:x/d", "invalid value for option `port`"),
            ("postgres://u:p@h/d?keepalives=x", "`keepalives`"),
            ("postgres://u:p@h/d?colour=red", "option that is not known"),
            ("postgres://u:p@/d", "names no host"),
            ("mysql://u:p@h/d", "does not begin with postgres://"),
            ("postgres://u:p@h/d?sslmode=require", "sslmode=require"),
        ] {
            let error = database_url(url).expect_err("must be refused");
            assert!(error.contains(why), "{url}: {error}");
        }
        for (url, why) in [
            ("amqp://u:p@h:x", "invalid port number"),
            ("amqp://u:p@/", "empty host"),
            ("amqp://u:p#@h/", "# is written %23"),
            ("amqps://u:p@h/", "amqps:// is not built in"),
            ("http://u:p@h/", "does not begin with amqp://"),
            ("amqp://u:p@h/?heartbeat=x", "numbers for heartbeat"),
        ] {
            let error = amqp_url(url).expect_err("must be refused");
            assert!(error.contains(why), "{url}: {error}");
        }
    }
}
