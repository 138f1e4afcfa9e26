//! Folders that tills write to.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// A folder of a test's own, gone at its end.
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        Self::below(Path::new(env!("CARGO_TARGET_TMPDIR")))
    }

    pub(super) fn below(parent: &Path) -> Self {
        let path = parent.join(format!("send-{}", uuid::Uuid::now_v7()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(super) fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// Writes a file as a till should: whole, and then under its name.
    pub(super) fn put(&self, name: impl AsRef<OsStr>, content: impl AsRef<[u8]>) -> String {
        let path = self.0.join(name.as_ref());
        fs::write(self.0.join(".put"), content).unwrap();
        fs::rename(self.0.join(".put"), &path).unwrap();
        path.to_string_lossy().into_owned()
    }

    /// The names of its files and those in a folder of it, without the hidden ones.
    pub(super) fn names(&self, below: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.0.join(below)) else {
            return Vec::new();
        };
        let files = entries.map(Result::unwrap);
        let files = files.filter(|entry| !entry.file_type().unwrap().is_dir());
        let names = files.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<_> = names.filter(|name| !name.starts_with('.')).collect();
        names.sort();
        names
    }

    pub(super) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _removed = fs::remove_dir_all(&self.0);
    }
}
