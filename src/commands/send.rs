//! `ticketd send`: files as tickets, for tills that write nothing else.
//!
//! A file's key is made of its name and its content, so that it is one ticket however often it is sent;
//! it is moved only once it is answered. So whatever is killed or cut off in between is repeated, and
//! each file is stored once.
//!
//! - `key`, `issued`, `verdict`, `names`: what is made of a file and of an answer, without I/O.
//! - `outgoing`, `filing`: a file, read; and moved.
//! - `sender`: one attempt. `pace`, `lanes`: how many at once.
//! - `list`, `scan`, `watch`: which files.

mod filing;
mod issued;
mod key;
mod lanes;
mod list;
mod names;
mod outgoing;
mod pace;
mod scan;
mod sender;
mod verdict;
mod watch;

use std::io::Write;

use anyhow::{Context, anyhow};

use crate::config::SendSettings;
pub(super) use key::{hex, ticket_key};
use lanes::Lanes;
pub(super) use names::is_ignored;
use sender::FileSender;

/// Sends files, or what comes into a folder, until it is told to stop. True if all are accepted.
pub async fn send(
    settings: &SendSettings,
    out: &mut impl Write,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<bool> {
    let server = settings.remote.server().map_err(|why| anyhow!(why))?;
    let server = server.context("TICKETD_URL is not set")?;
    let sender = FileSender::new(settings, server)?;
    let lanes = Lanes::new(sender, usize::from(settings.inflight));
    match &settings.watch {
        Some(folder) => {
            watch::watch(folder, settings.settle, lanes, stop).await?;
            Ok(true)
        }
        None => list::send_list(&settings.files, lanes, settings.timeout, stop, out).await,
    }
}
