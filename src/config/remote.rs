//! A ticketd that is asked over HTTP: where it is, and how the way there is protected.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use hyper::Uri;

use super::file;
use super::secret::Secret;
use super::tls::{Authorities, PeerCheck, TlsFile, TlsIdentity};

/// The longest token, in bytes: a gateway's may be longer than those of ticketd.
const TOKEN_BYTES_MAX: usize = 4096;

/// Which ticketd is asked, and who asks.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The ticketd that is asked")]
pub struct RemoteSettings {
    /// Where it is, as http://host:port or https://host
    #[arg(id = "ticketd_url", long = "url", env = "TICKETD_URL", value_name = "URL", value_parser = remote_url)]
    url: Option<RemoteUrl>,
    /// The bearer token to show it
    #[arg(id = "ticketd_token", long = "token", env = "TICKETD_TOKEN", value_name = "TOKEN", value_parser = Secret(token), hide_env_values = true, conflicts_with = "ticketd_token_file")]
    token: Option<RemoteToken>,
    /// A file with that token; read again when it is not taken
    #[arg(
        id = "ticketd_token_file",
        long = "token-file",
        env = "TICKETD_TOKEN_FILE",
        value_name = "FILE"
    )]
    token_file: Option<PathBuf>,
    /// A file (PEM) with the CAs that count for its certificate with https [default: the machine's]
    #[arg(
        id = "ticketd_ca",
        long = "ca",
        env = "TICKETD_CA",
        value_name = "FILE"
    )]
    ca: Option<PathBuf>,
    /// A file (PEM) with the certificate to show it, where it asks for one
    #[arg(
        id = "ticketd_client_cert",
        long = "client-cert",
        env = "TICKETD_CLIENT_CERT",
        value_name = "FILE",
        requires = "ticketd_client_key"
    )]
    client_cert: Option<PathBuf>,
    /// A file (PEM) with the key of TICKETD_CLIENT_CERT, without a passphrase
    #[arg(
        id = "ticketd_client_key",
        long = "client-key",
        env = "TICKETD_CLIENT_KEY",
        value_name = "FILE",
        requires = "ticketd_client_cert"
    )]
    client_key: Option<PathBuf>,
}

/// `TICKETD_URL`, apart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RemoteUrl {
    is_https: bool,
    host: String,
    port: u16,
    prefix: String,
}

/// A bearer token, which is never shown.
#[derive(Clone)]
struct RemoteToken(String);

impl std::fmt::Debug for RemoteToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl RemoteSettings {
    /// The server; none where its URL is not set. Fails where something is set that has no use.
    pub fn server(&self) -> Result<Option<RemoteServer>, String> {
        let Some(url) = &self.url else {
            return Ok(None);
        };
        if !url.is_https && (self.ca.is_some() || self.client_cert.is_some()) {
            return Err("TICKETD_CA and TICKETD_CLIENT_CERT are of no use without https".into());
        }
        Ok(Some(RemoteServer {
            setting: "TICKETD_URL",
            host: url.host.clone(),
            port: url.port,
            prefix: url.prefix.clone(),
            tls: url.is_https.then(|| self.tls()),
        }))
    }

    fn tls(&self) -> RemoteTls {
        let authorities = match &self.ca {
            None => Authorities::Machine("TICKETD_CA"),
            Some(path) => Authorities::File(TlsFile::new("TICKETD_CA", path)),
        };
        let identity = self.client_cert.as_ref().zip(self.client_key.as_ref());
        RemoteTls {
            check: PeerCheck::Named(authorities),
            identity: identity.map(|(certificate, key)| TlsIdentity {
                certificate: TlsFile::new("TICKETD_CLIENT_CERT", certificate),
                key: TlsFile::new("TICKETD_CLIENT_KEY", key),
            }),
        }
    }

    /// The token as it is now, if there is one; what is wrong with its file, without any of its content.
    pub fn token(&self) -> Result<Option<String>, String> {
        if let Some(RemoteToken(token)) = &self.token {
            return Ok(Some(token.clone()));
        }
        let Some(path) = &self.token_file else {
            return Ok(None);
        };
        let read = file::secret(path).and_then(|text| token(text.trim()));
        let read = read.map_err(|why| format!("TICKETD_TOKEN_FILE {}: {why}", path.display()));
        read.map(|RemoteToken(token)| Some(token))
    }
}

fn remote_url(text: &str) -> Result<RemoteUrl, String> {
    const FORM: &str = "it is written like https://tickets.example or http://10.0.0.5:8080";
    let uri: Uri = text.parse().map_err(|_form| FORM)?;
    let is_https = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(FORM.into()),
    };
    let authority = uri.authority().ok_or(FORM)?;
    if authority.as_str().contains('@') {
        return Err("it holds a login; a token belongs in TICKETD_TOKEN".into());
    }
    if uri.query().is_some() || text.contains('#') {
        return Err("it has neither a query nor a fragment".into());
    }
    let prefix = uri.path().trim_end_matches('/');
    if prefix.ends_with("/ticket") {
        return Err("it stands without /ticket, which is added".into());
    }
    let port = match authority.port_u16() {
        Some(0) => return Err("its port is 1 to 65535".into()),
        Some(port) => port,
        None if authority.as_str() != authority.host() => {
            return Err("its port is 1 to 65535".into());
        }
        None if is_https => 443,
        None => 80,
    };
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    if host.is_empty() {
        return Err(FORM.into());
    }
    Ok(RemoteUrl {
        is_https,
        host,
        port,
        prefix: prefix.to_owned(),
    })
}

fn token(text: &str) -> Result<RemoteToken, String> {
    let is_token = (1..=TOKEN_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    match is_token {
        true => Ok(RemoteToken(text.to_owned())),
        false => Err(format!(
            "a token has 1 to {TOKEN_BYTES_MAX} visible ASCII characters"
        )),
    }
}

/// A ticketd that is asked over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteServer {
    /// The setting that says where it is, for messages.
    pub setting: &'static str,
    /// Its name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What stands before the path of each route; empty, or begins with / and does not end with it.
    pub prefix: String,
    /// How the way there is protected; none where it is not.
    pub tls: Option<RemoteTls>,
}

/// How the way to a server is protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteTls {
    /// What is checked of its certificate.
    pub check: PeerCheck,
    /// What it is shown, where it asks for a certificate.
    pub identity: Option<TlsIdentity>,
}

impl RemoteServer {
    /// What listens on this address, as the setting says.
    pub fn listener(setting: &'static str, address: SocketAddr, tls: Option<RemoteTls>) -> Self {
        Self {
            setting,
            host: address.ip().to_string(),
            port: address.port(),
            prefix: String::new(),
            tls,
        }
    }

    /// Host and port as they stand in a URL.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            return format!("[{}]:{}", self.host, self.port);
        }
        format!("{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_leads_to_a_server() {
        let url = |is_https, host: &str, port, prefix: &str| {
            Ok(RemoteUrl {
                is_https,
                host: host.into(),
                port,
                prefix: prefix.into(),
            })
        };
        for (text, expected) in [
            ("http://10.0.0.5:8080", url(false, "10.0.0.5", 8080, "")),
            (
                "https://tickets.example",
                url(true, "tickets.example", 443, ""),
            ),
            ("http://[::1]:80/", url(false, "::1", 80, "")),
            ("HTTPS://x/shop/", url(true, "x", 443, "/shop")),
        ] {
            assert_eq!(remote_url(text), expected, "{text}");
        }
        for wrong in [
            "",
            "tickets.example",
            "tickets.example:8080",
            "ftp://x",
            "http://",
            "http://:80",
            "http://till:secret@x",
            "http://x:99999",
            "http://x:0",
            "http://x:",
            "http://x/?a=b",
            "http://x/#a",
            "http://x/ticket",
            "http://x/ticket/",
            "http://x y",
        ] {
            assert!(remote_url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_of_version_6_stands_in_brackets() {
        let server = RemoteServer::listener("LISTEN", ([0, 0, 0, 0, 0, 0, 0, 1], 80).into(), None);
        assert_eq!(server.authority(), "[::1]:80");
    }
}
