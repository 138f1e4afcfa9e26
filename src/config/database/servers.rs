//! The servers that one URL names, each as a configuration of its own.

use tokio_postgres::Config;
use tokio_postgres::config::{Host, TargetSessionAttrs};

/// One configuration for each server, in the order of the URL. Of several, only one that takes writes will do,
/// unless the URL asks for another kind
/// (<https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-MULTIPLE-HOSTS>).
pub(super) fn servers(all: &Config) -> Vec<Config> {
    let count = all.get_hosts().len().max(all.get_hostaddrs().len());
    let mut servers: Vec<_> = (0..count).map(|at| server(all, at)).collect();
    if count > 1 && all.get_target_session_attrs() == TargetSessionAttrs::Any {
        for server in &mut servers {
            server.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
    }
    servers
}

fn server(all: &Config, at: usize) -> Config {
    let mut one = without_servers(all);
    match all.get_hosts().get(at) {
        Some(Host::Tcp(name)) => {
            one.host(name);
        }
        Some(Host::Unix(path)) => {
            one.host_path(path);
        }
        None => {}
    }
    if let Some(address) = all.get_hostaddrs().get(at) {
        one.hostaddr(*address);
    }
    if let Some(port) = all.get_ports().get(at).or(all.get_ports().first()) {
        one.port(*port);
    }
    one
}

/// The driver can add a server to a configuration, and take none away.
fn without_servers(all: &Config) -> Config {
    let mut one = Config::new();
    if let Some(user) = all.get_user() {
        one.user(user);
    }
    if let Some(password) = all.get_password() {
        one.password(password);
    }
    if let Some(database) = all.get_dbname() {
        one.dbname(database);
    }
    if let Some(options) = all.get_options() {
        one.options(options);
    }
    if let Some(name) = all.get_application_name() {
        one.application_name(name);
    }
    one.ssl_mode(all.get_ssl_mode())
        .ssl_negotiation(all.get_ssl_negotiation())
        .channel_binding(all.get_channel_binding())
        .target_session_attrs(all.get_target_session_attrs())
        .load_balance_hosts(all.get_load_balance_hosts())
        .keepalives(all.get_keepalives());
    one
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> Vec<String> {
        let all = url.parse().expect(url);
        let servers = servers(&all).into_iter();
        servers.map(|server| format!("{server:?}")).collect()
    }

    #[test]
    fn each_server_has_its_own_port_and_address() {
        let url = "host=a,b hostaddr=10.0.0.1,10.0.0.2 port=1,2 user=u";
        let [a, b] = [
            "host=a hostaddr=10.0.0.1 port=1 user=u target_session_attrs=read-write",
            "host=b hostaddr=10.0.0.2 port=2 user=u target_session_attrs=read-write",
        ]
        .map(|one| format!("{:?}", one.parse::<Config>().expect(one)));
        assert_eq!(shown(url), [a, b]);
        let same_port = shown("host=a,b port=3 user=u target_session_attrs=read-only");
        let b = "host=b port=3 user=u target_session_attrs=read-only";
        let b: Config = b.parse().expect(b);
        assert_eq!(same_port.last(), Some(&format!("{b:?}")));
    }

    /// A field that a newer driver adds would be lost in silence otherwise.
    #[test]
    fn a_single_server_is_as_the_url_says() {
        for url in [
            "host=a",
            "postgres://u:p%40@h:5/d?application_name=x&options=-c%20a%3Db&channel_binding=require",
            "host=/run port=2 user=u sslmode=require sslnegotiation=direct keepalives=0",
            "hostaddr=::1 user=u target_session_attrs=read-only",
        ] {
            let all: Config = url.parse().expect(url);
            assert_eq!(servers(&all), [all], "{url}");
        }
    }
}
