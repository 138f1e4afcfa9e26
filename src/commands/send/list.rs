//! `ticketd send FILE…`: each of them, and what became of it.

use std::collections::VecDeque;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use tokio::time::sleep;

use super::lanes::{Attempted, Lanes};
use super::pace::Trouble;
use super::sender::Attempt;

/// Files that are to be sent, and what was said of those that need not be any more.
struct FileList<'a, W> {
    queue: VecDeque<PathBuf>,
    under_way: Vec<PathBuf>,
    out: &'a mut W,
    /// Why those that are left cannot be sent.
    trouble: String,
    is_given_up: bool,
    are_all_accepted: bool,
}

/// Sends files until each is accepted or rejected, for that time at most or until it is told to stop.
/// True if all are accepted.
pub(super) async fn send_list(
    files: &[PathBuf],
    mut lanes: Lanes,
    timeout: Duration,
    stop: impl Future<Output = ()>,
    out: &mut impl Write,
) -> anyhow::Result<bool> {
    let mut list = FileList {
        queue: files.iter().cloned().collect(),
        under_way: Vec::new(),
        out,
        trouble: "it was not sent in time".into(),
        is_given_up: false,
        are_all_accepted: true,
    };
    let (mut stop, mut late) = (pin!(stop), pin!(sleep(timeout)));
    while !list.is_given_up {
        while lanes.has_room()
            && let Some(path) = list.queue.pop_front()
        {
            list.under_way.push(path.clone());
            lanes.begin(path);
        }
        let may_resume = lanes.may_resume();
        if lanes.is_idle() && list.queue.is_empty() {
            break;
        }
        tokio::select! {
            attempted = lanes.next() => list.attempted(attempted)?,
            () = may_resume, if !list.queue.is_empty() => {}
            () = &mut late => break,
            () = &mut stop => break,
        }
    }
    // Those under way have been sent, and may be tickets: their answers are waited for.
    while !lanes.is_idle() && list.is_given_up {
        let attempted = lanes.next().await;
        list.attempted(attempted)?;
    }
    list.end()
}

impl<W: Write> FileList<'_, W> {
    fn attempted(&mut self, attempted: Attempted) -> std::io::Result<()> {
        let Attempted { path, end, .. } = attempted;
        if let Some(at) = self.under_way.iter().position(|other| *other == path) {
            self.under_way.swap_remove(at);
        }
        match end {
            Attempt::Accepted(id) => writeln!(self.out, "{}: accepted {id}", path.display()),
            Attempt::Rejected(why) => self.failed(&path, "rejected", &why),
            Attempt::Vanished => self.failed(&path, "not sent", "there is no such file"),
            Attempt::Unreadable(why) => self.failed(&path, "not sent", &why),
            Attempt::Failed(trouble, why) => {
                self.trouble = why;
                // Whoever waits for it has to put it right first.
                self.is_given_up |= trouble == Trouble::Lasting;
                self.queue.push_back(path);
                Ok(())
            }
        }
    }

    fn failed(&mut self, path: &Path, what: &str, why: &str) -> std::io::Result<()> {
        self.are_all_accepted = false;
        writeln!(self.out, "{}: {what}: {why}", path.display())
    }

    /// Names those that are left.
    fn end(mut self) -> anyhow::Result<bool> {
        let trouble = std::mem::take(&mut self.trouble);
        for path in std::mem::take(&mut self.queue) {
            self.failed(&path, "not sent", &trouble)?;
        }
        for path in std::mem::take(&mut self.under_way) {
            self.failed(&path, "sent", "it was not answered in time; send it again")?;
        }
        Ok(self.are_all_accepted)
    }
}
