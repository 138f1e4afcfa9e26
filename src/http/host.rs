//! By which name a server is asked, so that no web page elsewhere asks it for tickets in its reader's
//! place: a name that leads here may be anybody's, who has made it lead here (DNS rebinding).

use std::net::IpAddr;

use hyper::header::{HOST, HeaderMap};

/// The names, beside addresses and `localhost`, by which this server may be asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hosts(Vec<String>);

impl Hosts {
    /// These names, and no port with them.
    pub(crate) fn new(names: &[String]) -> Self {
        Self(names.iter().map(|name| name.to_ascii_lowercase()).collect())
    }

    /// Whether a request asks by one of them, an address or `localhost`.
    pub(crate) fn admit(&self, headers: &HeaderMap) -> bool {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        host.is_some_and(|host| self.is_known(without_port(host)))
    }

    fn is_known(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let address = name.trim_start_matches('[').trim_end_matches(']');
        address.parse::<IpAddr>().is_ok() || name == "localhost" || self.0.contains(&name)
    }
}

/// A host without the port behind it (RFC 9110 section 7.2).
fn without_port(host: &str) -> &str {
    let after_address = host.rfind(']').unwrap_or_default();
    match host.rfind(':') {
        Some(colon) if colon >= after_address => host.get(..colon).unwrap_or(host),
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    #[test]
    fn a_server_is_asked_by_its_address_or_a_name_that_is_set() {
        let hosts = Hosts::new(&["Tickets.example".into()]);
        let admits = |host: &'static str| {
            let headers = [(HOST, HeaderValue::from_static(host))];
            hosts.admit(&headers.into_iter().collect())
        };
        for host in [
            "127.0.0.1",
            "127.0.0.1:8080",
            "[::1]",
            "[::1]:8080",
            "localhost:8080",
            "LOCALHOST",
            "tickets.example:443",
            "10.0.0.7:8081",
        ] {
            assert!(admits(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "xtickets.example",
        ] {
            assert!(!admits(host), "{host}");
        }
        assert!(!hosts.admit(&HeaderMap::new()));
    }
}
