//! `ticketd healthcheck`: does the ticketd of these settings answer?

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::ListenSettings;

/// Longest for the answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Asks /livez, on the admin listener where there is one. Not /readyz: an
/// orchestrator that restarts what is unhealthy must not do so because
/// RabbitMQ or PostgreSQL is away.
pub async fn healthcheck(settings: &ListenSettings) -> anyhow::Result<()> {
    let address = reachable(settings.admin_listen.unwrap_or(settings.listen));
    let answer = timeout(TIMEOUT, ask(address))
        .await
        .context("no answer in time")?;
    let answer = answer.with_context(|| format!("nothing answers on {address}"))?;
    if !answer.starts_with("HTTP/1.1 200 ") {
        bail!(
            "{address} answered {:?}",
            answer.lines().next().unwrap_or_default()
        );
    }
    Ok(())
}

async fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /livez HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
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
