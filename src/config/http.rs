//! Listeners, and what they accept.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::tls::{ListenTlsSettings, TlsFile};
use super::units::duration_at_least;

/// Where a consumer answers unless ADMIN_LISTEN is set: it has no other listener
/// by which a health check could see that it lives. On loopback, and not the
/// port of `LISTEN`, beside whose process it may run.
pub const CONSUMER_ADMIN_LISTEN: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);

/// Listeners.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Listeners")]
pub struct ListenSettings {
    /// Where POST /ticket answers
    // Loopback: a till's network is opened on purpose, not by default.
    #[arg(
        long,
        env = "LISTEN",
        default_value = "127.0.0.1:8080",
        value_name = "ADDRESS:PORT"
    )]
    pub listen: SocketAddr,
    /// Where /metrics and /version answer instead of on LISTEN, and /livez and /readyz as well, so that load cannot block them; none by default
    #[arg(long, env = "ADMIN_LISTEN", value_name = "ADDRESS:PORT")]
    pub admin_listen: Option<SocketAddr>,
    /// Names by which the page at / and /tickets may be asked for, beside addresses and localhost; with commas between
    // So that no web page elsewhere can have its reader's browser ask, by a name that it makes lead here.
    #[arg(long, env = "PAGE_HOSTS", value_name = "NAMES", value_delimiter = ',')]
    pub page_hosts: Vec<String>,
    /// Whether there is a page for people at /, where /tickets is for operators
    #[arg(long, env = "PAGE", value_enum, default_value_t = PageSwitch::On)]
    pub page: PageSwitch,
    /// Their TLS.
    #[command(flatten)]
    pub tls: ListenTlsSettings,
}

/// Whether there is a page for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PageSwitch {
    /// There is one.
    On,
    /// There is none.
    Off,
}

/// Listeners, and what they accept.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Listeners")]
pub struct HttpSettings {
    /// Listeners.
    #[command(flatten)]
    pub listen: ListenSettings,
    /// CAs (PEM), one of which must have signed the certificate that each client of LISTEN then has to show, and which names its source; read again on SIGHUP
    // Not of ADMIN_LISTEN's: probes and scrapes have none.
    #[arg(
        long,
        env = "TLS_CLIENT_CA",
        value_name = "FILE",
        requires = "tls_cert",
        group = "who_sends"
    )]
    tls_client_ca: Option<PathBuf>,
    /// Maximum size of a ticket, in bytes; larger ones are answered 413
    // A receipt of 2,000 lines; far below any broker's message limit.
    #[arg(long, env = "BODY_MAX", default_value_t = 65536, value_parser = clap::value_parser!(u32).range(1..=1048576))]
    pub body_max: u32,
    /// Maximum size of the body of POST /tickets, in bytes; larger ones are answered 413
    // A day of a busy shop; memory does not grow with it, as a body is never held.
    #[arg(long, env = "BULK_MAX", default_value_t = 67_108_864, value_parser = clap::value_parser!(u32).range(1..=1_073_741_824))]
    pub bulk_max: u32,
    /// How long after SIGTERM tickets are still accepted while /readyz answers 503; 0s drains at once
    // A load balancer probes every second or so. With SHUTDOWN_GRACE below the 30 s after which orchestrators kill.
    #[arg(long, env = "LAME_DUCK", default_value = "3s", value_parser = duration_at_least::<0>)]
    pub lame_duck: Duration,
}

impl HttpSettings {
    /// The CAs of clients' certificates; none where clients need no certificate.
    pub fn client_ca(&self) -> Option<TlsFile> {
        let path = self.tls_client_ca.as_ref()?;
        Some(TlsFile::new("TLS_CLIENT_CA", path))
    }
}
