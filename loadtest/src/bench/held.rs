//! What an open connection holds of ticketd's memory, plain and with TLS.

use anyhow::{Context, Result, ensure};
use tokio::task::spawn_blocking;

use super::scenarios::Rig;
use super::target::Target;
use crate::client::{Endpoint, Stream};
use crate::proc;

/// Connections that are opened before, for what the first ones make ticketd hold once and for all.
const BEFORE: usize = 200;

/// Connections over which the memory is spread.
const COUNTED: usize = 2000;

/// The smallest ticket.
const TICKET: &str = "Order: 1\nVAT: 0.10\nTotal: 1.20\n\nproduct,product_id,price\nTea,t-1,1.20\n";

/// Bytes of memory for each connection that has posted a ticket and is open.
pub(super) struct Held {
    pub(super) plain: f64,
    pub(super) tls: f64,
}

/// Measures both.
pub(super) async fn measure(rig: &Rig) -> Result<Held> {
    Ok(Held {
        plain: of_each(rig, Target::EndToEnd).await?,
        tls: of_each(rig, Target::Https).await?,
    })
}

async fn of_each(rig: &Rig, target: Target) -> Result<f64> {
    rig.in_place(async |place| {
        let running = rig.start(target, place).await?;
        let pid = running.servers.first().context("no server")?.pid();
        let memory = || proc::memory_bytes(pid, "VmRSS").context("no memory is told");
        let endpoint = rig.endpoint(target, &running.address)?;
        let first = open(endpoint.clone(), BEFORE).await?;
        let before = memory()?;
        let counted = open(endpoint, COUNTED).await?;
        let held = memory()?.saturating_sub(before) as f64 / COUNTED as f64;
        drop((first, counted));
        for server in running.servers {
            server.end().await?;
        }
        Ok(held)
    })
    .await
}

/// Connections, each of which has posted a ticket.
async fn open(endpoint: Endpoint, count: usize) -> Result<Vec<Stream>> {
    let request = ticketd_testing::post(&[], TICKET);
    let open = move || -> Result<Stream> {
        let mut stream = endpoint.connect()?;
        let (status, _) = stream.ask(&request)?;
        ensure!(status == 202, "a ticket was answered {status}");
        Ok(stream)
    };
    spawn_blocking(move || (0..count).map(|_| open()).collect()).await?
}
