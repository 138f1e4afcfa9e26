//! The files in a folder, again and again. By looking, not by inotify: that is silent on network drives
//! and in some containers, and drops events when there are many, so that one had to look all the same.

use std::ffi::OsString;
use std::fs::{Metadata, read_dir};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc::Sender;

use super::names::is_ignored;

/// The least time between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// How many times as long as a look took the pause behind it is, so that a folder with very many files
/// that cannot be sent costs a fifth of a core at most.
const PAUSE_TIMES: u32 = 4;

/// What was seen in the folder.
#[derive(Debug)]
pub(super) enum Seen {
    /// A file that is whole.
    File(OsString),
    /// It cannot be read, for this reason.
    Failure(String),
}

/// Looks until nobody listens any more. Waits whenever what was seen is not taken yet, so that no more
/// names are held than fit in there.
pub(super) fn scan(folder: &Path, settle: Duration, seen: &Sender<Seen>) {
    while !seen.is_closed() {
        let started = Instant::now();
        if let Err(error) = look(folder, settle, seen) {
            // Nobody may listen any more; it is noticed above.
            let _unheard = seen.blocking_send(Seen::Failure(error.to_string()));
        }
        sleep(PAUSE.max(started.elapsed() * PAUSE_TIMES));
    }
}

fn look(folder: &Path, settle: Duration, seen: &Sender<Seen>) -> std::io::Result<()> {
    for entry in read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if is_ignored(&name) {
            continue;
        }
        // Neither follows a symbolic link. One that has gone meanwhile is none.
        let file = entry.metadata().ok().filter(Metadata::is_file);
        if file.is_some_and(|file| is_settled(&file, settle, SystemTime::now()))
            && seen.blocking_send(Seen::File(name)).is_err()
        {
            break;
        }
    }
    Ok(())
}

/// Whether a file has not been written for so long. Its status changes whenever it is written, and says
/// so even where the time of writing was set to another by a copy. A time ahead of this clock is one from
/// before the clock was set.
fn is_settled(file: &Metadata, settle: Duration, now: SystemTime) -> bool {
    let times = [
        (file.mtime(), file.mtime_nsec()),
        (file.ctime(), file.ctime_nsec()),
    ];
    times.iter().all(|&(seconds, nanoseconds)| {
        let changed = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        age(changed, now) >= settle.as_nanos()
    })
}

/// The time between then, in ns since the Unix epoch, and now.
fn age(then: i128, now: SystemTime) -> u128 {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    i128::try_from(now.as_nanos())
        .unwrap_or(i128::MAX)
        .abs_diff(then)
}
