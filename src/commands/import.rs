//! `ticketd import`: files of many tickets, published as the body of POST /tickets is, or stored at
//! once.
//!
//! The tickets of a file have ids of its path, its content and their number, so that whatever is
//! interrupted is repeated from its beginning, and each ticket is stored once.
//!
//! ```text
//! files (a thread: walk, hash, read) -> tickets (cut, counted) -> outgoing (whole groups) -> publisher
//!                                                              '-> direct (batches) -> a consumer's writers
//! ```

mod direct;
mod files;
mod outgoing;
mod sink;
mod tickets;

use std::io::Write;

use anyhow::{Context, bail};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::broker::Broker;
use crate::config::ImportSettings;
use crate::publisher::{PublishLimits, Publisher};
use direct::DirectTickets;
use files::FileReader;
use outgoing::OutgoingTickets;
use sink::TicketSink;
use tickets::Import;

/// Pieces of files that were read ahead.
const PIECES_MAX: usize = 4;

/// Publishes or stores the tickets of files, until it is told to stop. True if all are confirmed.
pub async fn import(
    settings: &ImportSettings,
    out: &mut impl Write,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<bool> {
    let mut import = Import::new(settings, out);
    let work = async {
        let direct = settings.direct().map_err(anyhow::Error::msg);
        match direct.context("DATABASE_URL")? {
            Some(database) => {
                let direct = DirectTickets::new(database, settings)?;
                run(&mut import, settings, direct).await
            }
            None => {
                let outgoing = OutgoingTickets::new(connect(settings).await?, settings);
                run(&mut import, settings, outgoing).await
            }
        }
    };
    tokio::select! {
        ended = work => ended,
        () = stop => bail!("interrupted: import the same again, nothing is stored twice"),
    }
}

async fn run(
    import: &mut Import<'_, impl Write>,
    settings: &ImportSettings,
    sink: impl TicketSink,
) -> anyhow::Result<bool> {
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    let reader = FileReader::new(settings, sender);
    spawn_blocking(move || reader.run());
    import.run(sink, pieces).await
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
