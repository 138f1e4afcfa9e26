//! `ticketd send --watch DIR`: what comes into a folder, until SIGTERM.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{interval, timeout};
use tracing::{info, warn};

use super::filing;
use super::lanes::{Attempted, Lanes};
use super::pace::Trouble;
use super::scan::{Seen, scan};
use super::sender::Attempt;

/// Held while a folder is watched.
const LOCK: &str = ".ticketd-send.lock";

/// How many names are held that have been seen and are not sent yet.
const SEEN_MAX: usize = 1024;

/// How many files are remembered for a while that could not be sent.
const PUT_OFF_MAX: usize = 4096;

/// For how long such a file is left alone, so that others come first: in an outage, and where the file
/// or the settings have to be put right.
const PUT_OFF: Duration = Duration::from_secs(1);
const PUT_OFF_LONGER: Duration = Duration::from_secs(3);

/// How often the log says what was sent.
const SUMMARY: Duration = Duration::from_secs(10);

/// Maximum wait at the end for answers; without one a file is sent again at the next start.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// A folder that is watched.
struct Watch {
    folder: PathBuf,
    lanes: Lanes,
    /// Names of files under way.
    under_way: HashSet<OsString>,
    /// Names of files that are left alone until then.
    put_off: HashMap<OsString, Instant>,
    summary: Summary,
    _lock: File,
}

/// What happened since the log last said so.
#[derive(Default)]
struct Summary {
    sent: u64,
    rejected: u64,
    failed: u64,
    /// The first that was rejected, and why.
    rejection: Option<String>,
    /// The first that could not be sent, and why.
    failure: Option<String>,
}

/// Sends what comes into a folder until it is told to stop, and waits for the answers then.
pub(super) async fn watch(
    folder: &Path,
    settle: Duration,
    lanes: Lanes,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let named = || folder.display().to_string();
    let mut watch = Watch {
        _lock: lock(folder).with_context(named)?,
        folder: folder.to_owned(),
        lanes,
        under_way: HashSet::new(),
        put_off: HashMap::new(),
        summary: Summary::default(),
    };
    filing::prepare(folder).with_context(named)?;
    let (seen, files) = mpsc::channel(SEEN_MAX);
    let scanned = folder.to_owned();
    // It ends with the process, or once nobody listens.
    drop(spawn_blocking(move || scan(&scanned, settle, &seen)));
    info!(folder = %folder.display(), "watching");
    watch.run(files, stop).await;
    let drained = timeout(DRAIN_MAX, watch.drain()).await;
    watch.summary.tell();
    match drained {
        Ok(()) => info!("stopped"),
        Err(_elapsed) => {
            info!("stopped; what was not answered yet is sent again at the next start")
        }
    }
    Ok(())
}

/// Two would send each file twice, which is harmless, and each waste half of its work.
fn lock(folder: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder.join(LOCK))
        .context(LOCK)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("another ticketd send watches this folder"),
        Err(TryLockError::Error(error)) => Err(error).context(LOCK),
    }
}

impl Watch {
    async fn run(&mut self, mut files: mpsc::Receiver<Seen>, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let mut summaries = interval(SUMMARY);
        loop {
            let has_room = self.lanes.has_room();
            let may_resume = self.lanes.may_resume();
            tokio::select! {
                biased;
                () = &mut stop => return,
                attempted = self.lanes.next() => self.attempted(attempted),
                _ = summaries.tick() => self.summary.tell(),
                () = may_resume, if !has_room => {}
                seen = files.recv(), if has_room => match seen {
                    Some(Seen::File(name)) => self.seen(name),
                    Some(Seen::Failure(why)) => self.summary.failed(&self.folder, &why),
                    None => return,
                },
            }
        }
    }

    async fn drain(&mut self) {
        while !self.lanes.is_idle() {
            let attempted = self.lanes.next().await;
            self.attempted(attempted);
        }
    }

    fn seen(&mut self, name: OsString) {
        let is_put_off = |until: &Instant| *until > Instant::now();
        if self.put_off.get(&name).is_some_and(is_put_off) || self.under_way.contains(&name) {
            return;
        }
        self.put_off.remove(&name);
        self.lanes.begin(self.folder.join(&name));
        self.under_way.insert(name);
    }

    fn attempted(&mut self, attempted: Attempted) {
        let name = attempted.path.file_name().unwrap_or_default().to_owned();
        self.under_way.remove(&name);
        match attempted.end {
            Attempt::Accepted(_) => self.summary.sent += 1,
            Attempt::Rejected(why) => self.summary.rejected(&attempted.path, &why),
            Attempt::Vanished => {}
            Attempt::Unreadable(why) => {
                self.summary.failed(&attempted.path, &why);
                self.put_off(name, PUT_OFF_LONGER);
            }
            Attempt::Failed(Trouble::Lasting, why) => {
                self.summary.failed(&attempted.path, &why);
                self.put_off(name, PUT_OFF_LONGER);
            }
            Attempt::Failed(Trouble::Passing(_), why) => {
                self.summary.failed(&attempted.path, &why);
                self.put_off(name, PUT_OFF);
            }
        }
    }

    fn put_off(&mut self, name: OsString, time: Duration) {
        let now = Instant::now();
        if self.put_off.len() >= PUT_OFF_MAX {
            self.put_off.retain(|_, until| *until > now);
        }
        if self.put_off.len() < PUT_OFF_MAX {
            self.put_off.insert(name, now + time);
        }
    }
}

impl Summary {
    fn rejected(&mut self, path: &Path, why: &str) {
        self.rejected += 1;
        self.rejection
            .get_or_insert_with(|| format!("{}: {why}", path.display()));
    }

    fn failed(&mut self, path: &Path, why: &str) {
        self.failed += 1;
        self.failure
            .get_or_insert_with(|| format!("{}: {why}", path.display()));
    }

    /// Writes what there is to say, and begins anew.
    fn tell(&mut self) {
        let Self {
            sent,
            rejected,
            failed,
            rejection,
            failure,
        } = std::mem::take(self);
        if sent > 0 {
            info!(sent, "tickets were accepted");
        }
        if let Some(first) = rejection {
            warn!(rejected, first, "files were rejected, and are in rejected/");
        }
        if let Some(first) = failure {
            warn!(failed, first, "attempts failed; the files are sent again");
        }
    }
}
