//! The file of credentials.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::config::Credentials;

/// The largest file: tens of thousands of credentials.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// A file of credentials.
#[derive(Clone)]
pub(crate) struct CredentialsFile {
    path: PathBuf,
}

impl CredentialsFile {
    /// The file of this path, which nothing is read from yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it. The error says what is wrong, and nothing of what the file holds.
    pub(crate) fn read(&self) -> Result<Credentials, String> {
        let mut bytes = Vec::new();
        let read = File::open(&self.path)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
        read.map_err(|error| error.to_string())?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(format!("it has more than {FILE_BYTES_MAX} bytes"));
        }
        let text = String::from_utf8(bytes).map_err(|_bytes| "it is not UTF-8".to_owned())?;
        Credentials::parse(&text).map_err(|error| error.to_string())
    }
}
