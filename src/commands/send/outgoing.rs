//! A file that is sent, as it was read.

use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{Error, ErrorKind, Read, Result};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use rustix::fs::OFlags;

use super::key::hash_of;

/// The largest ticket that any ticketd takes, in bytes: the most that BODY_MAX can be.
pub(super) const TICKET_BYTES_MAX: u64 = 1024 * 1024;

/// A file that is sent, as it was read.
#[derive(Debug)]
pub(super) struct OutgoingFile {
    /// Where it was.
    pub path: PathBuf,
    /// Its name there.
    pub name: OsString,
    /// All of it; none of one that is too large.
    pub body: Option<Bytes>,
    /// The hash of that.
    pub hash: String,
    /// When it was last written.
    pub modified: SystemTime,
    identity: FileIdentity,
}

/// What tells a file, and its content, from another that has its name by now. Moving a file leaves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl FileIdentity {
    pub(super) fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
        }
    }
}

impl OutgoingFile {
    /// Reads a file, which is a regular one; a symbolic link is followed only where that is said.
    /// Fails with `ResourceBusy` if it was written to meanwhile.
    pub(super) fn read(path: PathBuf, follows_links: bool) -> Result<Self> {
        let name = path.file_name().ok_or(ErrorKind::InvalidFilename)?;
        let name = name.to_owned();
        let mut file = open(&path, follows_links)?;
        let before = file.metadata()?;
        if !before.is_file() {
            return Err(Error::other("it is no regular file"));
        }
        let body = content(&mut file)?;
        let after = file.metadata()?;
        let changed = |file: &Metadata| (file.ctime(), file.ctime_nsec());
        let length = body.as_ref().map(|body| body.len() as u64);
        if changed(&before) != changed(&after)
            || length.is_some_and(|length| length != after.size())
        {
            return Err(ErrorKind::ResourceBusy.into());
        }
        Ok(Self {
            hash: hash_of(body.as_deref().unwrap_or_default()),
            body: body.map(Bytes::from),
            modified: after.modified()?,
            identity: FileIdentity::of(&after),
            path,
            name,
        })
    }

    /// Fails with `ResourceBusy` unless what is there is this file, as it was read.
    pub(super) fn expect_at(&self, path: &Path) -> Result<()> {
        match FileIdentity::of(&path.symlink_metadata()?) == self.identity {
            true => Ok(()),
            false => Err(ErrorKind::ResourceBusy.into()),
        }
    }
}

fn open(path: &Path, follows_links: bool) -> Result<File> {
    // A pipe would be waited for.
    let mut flags = OFlags::NONBLOCK;
    if !follows_links {
        flags |= OFlags::NOFOLLOW;
    }
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// All of it, unless it is too large.
fn content(file: &mut File) -> Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    file.take(TICKET_BYTES_MAX + 1).read_to_end(&mut body)?;
    let fits = body.len() as u64 <= TICKET_BYTES_MAX;
    Ok(fits.then_some(body))
}
