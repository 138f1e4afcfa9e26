//! `ticketd import`: files of many tickets, published as the body of POST /tickets is.
//!
//! The tickets of a file have ids of its path, its content and their number, so that whatever is
//! interrupted is repeated from its beginning, and each ticket is stored once.
//!
//! ```text
//! files (a thread: walk, hash, read) -> tickets (cut, counted) -> outgoing (whole groups) -> publisher
//! ```

mod files;
mod outgoing;
mod tickets;

use std::io::Write;

use anyhow::{Context, bail};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::broker::Broker;
use crate::config::ImportSettings;
use crate::publisher::{PublishLimits, Publisher};
use files::FileReader;
use outgoing::OutgoingTickets;
use tickets::Import;

/// Pieces of files that were read ahead.
const PIECES_MAX: usize = 4;

/// Publishes the tickets of files, until it is told to stop. True if all are confirmed.
pub async fn import(
    settings: &ImportSettings,
    out: &mut impl Write,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<bool> {
    let work = async |import: &mut Import<'_, _>| {
        let outgoing = OutgoingTickets::new(connect(settings).await?, settings);
        let (sender, pieces) = mpsc::channel(PIECES_MAX);
        let reader = FileReader::new(settings, sender);
        spawn_blocking(move || reader.run());
        import.run(outgoing, pieces).await
    };
    let mut import = Import::new(settings, out);
    let ended = tokio::select! {
        ended = work(&mut import) => ended,
        () = stop => bail!("interrupted: import the same again, nothing is stored twice"),
    };
    ended
}

async fn connect(settings: &ImportSettings) -> anyhow::Result<Publisher> {
    let limits = PublishLimits::of_groups(&settings.groups, settings.timeout);
    let broker = Broker::new(&settings.broker).map_err(anyhow::Error::msg);
    let connecting = Publisher::connect(broker.context("AMQP_URL")?, limits);
    match timeout(settings.timeout, connecting).await {
        Ok(connected) => Ok(connected?),
        Err(_elapsed) => bail!("RabbitMQ did not answer in time"),
    }
}
