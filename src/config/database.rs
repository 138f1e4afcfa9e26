//! PostgreSQL's URL.

mod servers;
mod ssl_options;
mod tls;

use std::str::FromStr;

use clap::Args;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode as DriverMode};

pub(crate) use tls::DatabaseTlsSettings;
pub use tls::{DatabaseTls, SslMode};

use super::secret::{MASK, Secret, encoded, host};
use ssl_options::SslOptions;

/// PostgreSQL's port where none is said.
const PORT: u16 = 5432;

/// PostgreSQL.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "PostgreSQL")]
pub struct DatabaseSettings {
    /// PostgreSQL, as postgres://user:password@host:port/database
    #[arg(long, env = "DATABASE_URL", value_parser = Secret(database_url), hide_env_values = true)]
    database_url: DatabaseUrl,
    /// TLS.
    #[command(flatten)]
    tls: DatabaseTlsSettings,
}

/// PostgreSQL, where it is not needed for everything.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "PostgreSQL")]
pub struct OptionalDatabaseSettings {
    /// PostgreSQL, only to look up what became of tickets; without it there is no route GET /ticket/{id}
    #[arg(long, env = "DATABASE_URL", value_parser = Secret(database_url), hide_env_values = true)]
    database_url: Option<DatabaseUrl>,
    /// TLS.
    #[command(flatten)]
    tls: DatabaseTlsSettings,
}

/// `DATABASE_URL`: the driver's part of it, and that of TLS.
#[derive(Debug, Clone)]
pub(crate) struct DatabaseUrl {
    driver: Config,
    ssl: SslOptions,
}

/// Where PostgreSQL is, the login there, and how the way there is protected.
#[derive(Debug, Clone, Default)]
pub struct DatabaseConfig {
    /// For the driver.
    pub driver: Config,
    /// TLS.
    pub tls: DatabaseTls,
}

impl DatabaseUrl {
    /// As it may be shown: without its password, and of its options only those of TLS.
    pub(super) fn masked(&self) -> String {
        let user = self.driver.get_user().map(encoded).unwrap_or_default();
        let password = self
            .driver
            .get_password()
            .map_or(String::new(), |_| format!(":{MASK}"));
        let at = if user.is_empty() && password.is_empty() {
            ""
        } else {
            "@"
        };
        let database = self.driver.get_dbname().map(encoded).unwrap_or_default();
        let options = self.ssl.shown();
        format!(
            "postgres://{user}{password}{at}{}/{database}{options}",
            shown_servers(&self.driver)
        )
    }
}

impl DatabaseSettings {
    /// All of it together; fails where the TLS options do not go together.
    pub fn config(&self) -> Result<DatabaseConfig, String> {
        DatabaseConfig::new(&self.database_url, &self.tls)
    }
}

impl OptionalDatabaseSettings {
    /// All of it together, if it is set; fails where the TLS options do not go together.
    pub fn config(&self) -> Result<Option<DatabaseConfig>, String> {
        let config = |url| DatabaseConfig::new(url, &self.tls);
        self.database_url.as_ref().map(config).transpose()
    }
}

impl DatabaseConfig {
    fn new(url: &DatabaseUrl, settings: &DatabaseTlsSettings) -> Result<Self, String> {
        let mut tls = DatabaseTls::new(&url.ssl, settings)?;
        let mut driver = url.driver.clone();
        if driver.get_hosts().is_empty() {
            // A certificate may be for an address; and the driver wants a name for TLS.
            for address in url.driver.get_hostaddrs() {
                driver.host(address.to_string());
            }
        }
        // libpq does not encrypt what stays on the machine.
        let is_unix = |host: &Host| matches!(host, Host::Unix(_));
        if driver.get_hosts().iter().all(is_unix) {
            tls.mode = SslMode::Disable;
        }
        driver.ssl_mode(match tls.mode {
            SslMode::Disable => DriverMode::Disable,
            SslMode::Prefer => DriverMode::Prefer,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => DriverMode::Require,
        });
        Ok(Self { driver, tls })
    }

    /// One for each server that the URL names, in its order.
    pub fn servers(&self) -> Vec<Self> {
        let servers = servers::servers(&self.driver).into_iter();
        let of = |driver| Self {
            driver,
            tls: self.tls.clone(),
        };
        servers.map(of).collect()
    }

    /// Hosts and ports, with commas between, as they may be shown.
    pub fn shown(&self) -> String {
        shown_servers(&self.driver)
    }

    /// Whether all of the way there is on this machine.
    pub fn is_local(&self) -> bool {
        let addresses = self.driver.get_hostaddrs();
        let is_local = |host: &Host| match host {
            Host::Unix(_) => true,
            Host::Tcp(name) => is_loopback(name),
        };
        if addresses.is_empty() {
            self.driver.get_hosts().iter().all(is_local)
        } else {
            addresses.iter().all(std::net::IpAddr::is_loopback)
        }
    }
}

/// Hosts and ports, with commas between.
fn shown_servers(driver: &Config) -> String {
    let hosts = driver.get_hosts().iter().map(|name| match name {
        Host::Tcp(name) => host(name),
        Host::Unix(path) => encoded(&path.to_string_lossy()),
    });
    let addresses = driver.get_hostaddrs().iter();
    let addresses = addresses.map(|address| host(&address.to_string()));
    let hosts: Vec<_> = hosts.collect();
    let hosts = if hosts.is_empty() {
        addresses.collect()
    } else {
        hosts
    };
    let ports = driver.get_ports();
    let port = |at: usize| ports.get(at).or(ports.first()).copied().unwrap_or(PORT);
    let servers = hosts.iter().enumerate();
    let servers: Vec<_> = servers
        .map(|(at, host)| format!("{host}:{}", port(at)))
        .collect();
    servers.join(",")
}

fn is_loopback(name: &str) -> bool {
    let address = name.parse::<std::net::IpAddr>();
    name == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Reads PostgreSQL's URL, or libpq's pairs of key and value.
pub(super) fn database_url(text: &str) -> Result<DatabaseUrl, String> {
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
    let mut ssl = SslOptions::default();
    let rest = if is_url {
        ssl.take_from_url(text)?
    } else {
        ssl.take_from_pairs(text)
    };
    if let Some(mode) = &ssl.mode {
        SslMode::from_str(mode)?;
    }
    let driver = Config::from_str(&rest).map_err(|error| database_form(&error))?;
    check_hosts(&driver)?;
    Ok(DatabaseUrl { driver, ssl })
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
            let config = database_url(url).expect(url).driver;
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
            ("postgres://u:p@h/d?sslmode=p", "option `sslmode`"),
        ] {
            let error = database_url(url).expect_err("must be rejected");
            assert!(error.contains(why), "{url}: {error}");
        }
    }

    #[test]
    fn what_stays_on_the_machine_is_known_by_its_hosts() {
        let config =
            |url| DatabaseConfig::new(&database_url(url)?, &DatabaseTlsSettings::default());
        for (url, is_local, mode) in [
            ("host=localhost", true, SslMode::Prefer),
            ("host=127.0.0.2,::1", true, SslMode::Prefer),
            ("host=db hostaddr=127.0.0.1", true, SslMode::Prefer),
            ("host=localhost hostaddr=10.0.0.1", false, SslMode::Prefer),
            ("host=localhost,db", false, SslMode::Prefer),
            ("hostaddr=10.0.0.1 sslmode=require", false, SslMode::Require),
            // Never encrypted, as in libpq.
            ("host=/var/run sslmode=require", true, SslMode::Disable),
            ("host=/var/run,db sslmode=require", false, SslMode::Require),
        ] {
            let config = config(url).expect(url);
            assert_eq!(
                (config.is_local(), config.tls.mode),
                (is_local, mode),
                "{url}"
            );
            assert!(
                !config.driver.get_hosts().is_empty(),
                "a name for TLS: {url}"
            );
        }
    }
}
