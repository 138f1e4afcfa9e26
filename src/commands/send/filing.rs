//! Where files go that need not be sent any more: to a folder beside them. Whatever is killed in
//! between, a file is where it was or where it goes, and whole; where it was, it is sent once more,
//! with the same key. So nothing here has to be written through to the disk.

use std::fs;
use std::io::{Error, ErrorKind, Result, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use tracing::warn;

use super::names::{moved_names, problem_name};
use super::outgoing::OutgoingFile;

/// The folder of files that were accepted.
pub(super) const SENT: &str = "sent";

/// The folder of files that were rejected, each with the problem document beside it.
pub(super) const REJECTED: &str = "rejected";

/// Makes both folders.
pub(super) fn prepare(folder: &Path) -> Result<()> {
    for name in [SENT, REJECTED] {
        let made = fs::create_dir_all(folder.join(name));
        made.map_err(|error| Error::new(error.kind(), format!("{name}/: {error}")))?;
    }
    Ok(())
}

/// Moves a file to the folder of this name beside it, with a problem document where there is one, and
/// never over another file. Fails with `ResourceBusy` if its name is another file's by now, which
/// stays, and with `NotFound` if it has none.
pub(super) fn file_away(
    file: &OutgoingFile,
    kind: &str,
    problem: Option<&[u8]>,
) -> Result<PathBuf> {
    let folder = file.path.with_file_name(kind);
    let filed = match file_into(file, &folder, problem) {
        // Somebody has cleared up.
        Err(error) if error.kind() == ErrorKind::NotFound && !folder.exists() => {
            fs::create_dir_all(&folder)?;
            file_into(file, &folder, problem)
        }
        filed => filed,
    };
    filed.map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ResourceBusy => error,
        kind => Error::new(
            kind,
            format!("cannot move it to {}: {error}", folder.display()),
        ),
    })
}

fn file_into(file: &OutgoingFile, folder: &Path, problem: Option<&[u8]>) -> Result<PathBuf> {
    let [name, unique] = moved_names(&file.name, &file.hash);
    for (name, is_unique) in [(name, false), (unique, true)] {
        let to = folder.join(&name);
        if to.symlink_metadata().is_ok() {
            if is_same(file, &to) {
                // It was moved before, and has come again, or could not be removed here.
                return remove(file).map(|()| to);
            }
            continue;
        }
        let is_free = problem.is_none_or(|problem| write_problem(&to, problem));
        // That of a unique name is about the same file, of an attempt that was killed.
        if !is_free && !is_unique {
            continue;
        }
        match move_to(file, &to) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            moved => return moved.map(|()| to),
        }
    }
    Err(Error::other("its name and hash are another file's there"))
}

fn is_same(file: &OutgoingFile, other: &Path) -> bool {
    file.body.is_some() && fs::read(other).ok().as_deref() == file.body.as_deref()
}

/// Removes a file that is elsewhere as well.
fn remove(file: &OutgoingFile) -> Result<()> {
    file.expect_at(&file.path)?;
    fs::remove_file(&file.path)
}

fn move_to(file: &OutgoingFile, to: &Path) -> Result<()> {
    file.expect_at(&file.path)?;
    match rename_new(&file.path, to) {
        Err(error) if error.kind() == ErrorKind::CrossesDevices => return copy_to(file, to),
        renamed => renamed?,
    }
    let Err(replaced) = file.expect_at(to) else {
        return Ok(());
    };
    // In the instant before, by one that has not been sent.
    rename_new(to, &file.path)
        .map_err(|error| Error::other(format!("{} has not been sent: {error}", to.display())))?;
    Err(replaced)
}

/// Moves to another file system: it is whole there before it goes here.
fn copy_to(file: &OutgoingFile, to: &Path) -> Result<()> {
    let Some(body) = &file.body else {
        return Err(Error::other(
            "it is too large to be moved to another file system",
        ));
    };
    let hidden = hidden_beside(to);
    let copied = write(&hidden, body, Some(file)).and_then(|()| rename_new(&hidden, to));
    if copied.is_err() {
        let _gone = fs::remove_file(&hidden);
    }
    copied?;
    remove(file)
}

/// Writes why a file is rejected, before it is moved; false if there is a document of that name. A disk
/// that is full does not keep the file: why it is rejected is in the log then.
fn write_problem(moved: &Path, problem: &[u8]) -> bool {
    let to = moved.with_file_name(problem_name(moved.file_name().unwrap_or_default()));
    let hidden = hidden_beside(&to);
    let written = write(&hidden, problem, None).and_then(|()| rename_new(&hidden, &to));
    let Err(error) = written else { return true };
    let _gone = fs::remove_file(&hidden);
    if error.kind() == ErrorKind::AlreadyExists {
        return false;
    }
    let problem = String::from_utf8_lossy(problem);
    warn!(file = %to.display(), %error, %problem, "a problem document cannot be written");
    true
}

fn write(path: &Path, bytes: &[u8], of: Option<&OutgoingFile>) -> Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(bytes)?;
    if let Some(of) = of {
        file.set_modified(of.modified)?;
        file.sync_all()?;
    }
    Ok(())
}

/// A name of no other's for what is not whole yet.
fn hidden_beside(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".send-{}-{count}.part", std::process::id()))
}

/// Renames, unless there is a file of that name. Where the file system cannot do that as one step it is
/// two: nobody else moves files there.
fn rename_new(from: &Path, to: &Path) -> Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => match to.symlink_metadata() {
            Ok(_there) => Err(ErrorKind::AlreadyExists.into()),
            Err(_free) => fs::rename(from, to),
        },
        renamed => Ok(renamed?),
    }
}
