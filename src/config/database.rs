//! PostgreSQL's URL.

use std::str::FromStr;

use clap::Args;
use tokio_postgres::config::{Host, SslMode};

/// Where PostgreSQL is, and the login there.
pub use tokio_postgres::Config as DatabaseConfig;

use super::secret::Secret;

/// PostgreSQL.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "PostgreSQL")]
pub struct DatabaseSettings {
    /// PostgreSQL, as postgres://user:password@host:port/database
    #[arg(long, env = "DATABASE_URL", value_parser = Secret(database_url), hide_env_values = true)]
    pub database_url: DatabaseConfig,
}

/// Reads PostgreSQL's URL, or libpq's pairs of key and value.
pub(super) fn database_url(text: &str) -> Result<DatabaseConfig, String> {
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
    let config = DatabaseConfig::from_str(text).map_err(|error| database_form(&error))?;
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
fn check_hosts(config: &DatabaseConfig) -> Result<(), String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_may_hold_what_cannot_be_mistaken() {
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
    fn an_error_keeps_what_cannot_be_secret() {
        for (url, why) in [
            ("postgres://u:p@h:x/d", "invalid value for option `port`"),
            ("postgres://u:p@h/d?keepalives=x", "`keepalives`"),
            ("postgres://u:p@h/d?colour=red", "option that is not known"),
            ("postgres://u:p@/d", "names no host"),
            ("mysql://u:p@h/d", "does not begin with postgres://"),
            ("postgres://u:p@h/d?sslmode=require", "sslmode=require"),
        ] {
            let error = database_url(url).expect_err("must be rejected");
            assert!(error.contains(why), "{url}: {error}");
        }
    }
}
