//! `ticketd healthcheck`: does the ticketd of these settings answer?

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::{CONSUMER_ADMIN_LISTEN, ListenSettings, PeerCheck};
use crate::tls::{ClientTls, wants_certificate};

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
    let tls = match settings.tls.identity() {
        Some(_) => Some(ClientTls::read(&PeerCheck::Nothing, None)?),
        None => None,
    };
    timeout(TIMEOUT, check(first, second, tls))
        .await
        .with_context(|| format!("{first}: no answer in time"))?
}

/// Checks the one that answers, the second only where nothing listens on the first.
async fn check(
    first: SocketAddr,
    second: Option<SocketAddr>,
    tls: Option<ClientTls>,
) -> anyhow::Result<()> {
    let ask = async |address| ask(address, tls.as_ref()).await;
    let (address, answer) = match (ask(first).await, second) {
        (Err(error), Some(second)) if error.kind() == ErrorKind::ConnectionRefused => {
            match ask(second).await {
                Ok(answer) => (second, Ok(answer)),
                Err(_nobody) => (first, Err(error)),
            }
        }
        (answer, _) => (first, answer),
    };
    if let Err(error) = &answer
        && wants_certificate(error)
    {
        return Ok(());
    }
    let answer = answer.with_context(|| format!("nothing answers on {address}"))?;
    if !answer.starts_with("HTTP/1.1 200 ") {
        bail!(
            "{address} answered {:?}",
            answer.lines().next().unwrap_or_default()
        );
    }
    Ok(())
}

async fn ask(address: SocketAddr, tls: Option<&ClientTls>) -> std::io::Result<String> {
    let stream = TcpStream::connect(address).await?;
    match tls {
        None => ask_over(stream, address).await,
        Some(tls) => {
            let stream = tls.connect(&address.ip().to_string(), stream).await?;
            ask_over(stream, address).await
        }
    }
}

async fn ask_over(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    address: SocketAddr,
) -> std::io::Result<String> {
    let request = format!("GET /livez HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
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
