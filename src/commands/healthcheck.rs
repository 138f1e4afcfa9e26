//! `ticketd healthcheck`: does the ticketd of these settings answer?

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::timeout;

use crate::client::{ClientError, HttpAnswer, HttpClient, HttpRequest};
use crate::config::{CONSUMER_ADMIN_LISTEN, ListenSettings, PeerCheck, RemoteServer, RemoteTls};

/// Maximum time for the answer: less than the 5 s after which the image's
/// HEALTHCHECK gives up, so that the reason is told.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Asks /livez, on the admin listener where one is set. Not /readyz: an
/// orchestrator that restarts what is unhealthy must not do so because
/// RabbitMQ or PostgreSQL is unavailable.
///
/// The role need not be told: `LISTEN` may be set for every role, but a
/// consumer does not listen there, and is asked where it does by default.
///
/// Where the listeners speak HTTPS their certificate is not checked: it is of
/// another name than the address here, and nothing secret is asked or told. One
/// that wants a certificate of its clients is alive if it says so.
pub async fn healthcheck(settings: &ListenSettings) -> anyhow::Result<()> {
    let first = reachable(settings.admin_listen.unwrap_or(settings.listen));
    let second = match settings.admin_listen {
        Some(_) => None,
        None => Some(CONSUMER_ADMIN_LISTEN),
    };
    let tls = settings.tls.identity().map(|_certificate| RemoteTls {
        check: PeerCheck::Nothing,
        identity: None,
    });
    timeout(TIMEOUT, check(first, second, tls.as_ref()))
        .await
        .with_context(|| format!("{first}: no answer in time"))?
}

/// Checks the one that answers, the second only where nothing listens on the first.
async fn check(
    first: SocketAddr,
    second: Option<SocketAddr>,
    tls: Option<&RemoteTls>,
) -> anyhow::Result<()> {
    let (address, answer) = match (ask(first, tls).await, second) {
        (Err(error), Some(second)) if error.is_refused() => match ask(second, tls).await {
            Ok(answer) => (second, Ok(answer)),
            Err(_nobody) => (first, Err(error)),
        },
        (answer, _) => (first, answer),
    };
    if let Err(error) = &answer
        && error.wants_certificate()
    {
        return Ok(());
    }
    let answer = answer.with_context(|| format!("nothing answers on {address}"))?;
    if answer.status != 200 {
        bail!("{address} answered {}", answer.detail());
    }
    Ok(())
}

async fn ask(address: SocketAddr, tls: Option<&RemoteTls>) -> Result<HttpAnswer, ClientError> {
    let server = RemoteServer::listener("LISTEN", address, tls.cloned());
    let client = HttpClient::new(server, 1, TIMEOUT);
    client.ask(&HttpRequest::get("/livez")).await
}

/// What listens on every address is asked on loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}
