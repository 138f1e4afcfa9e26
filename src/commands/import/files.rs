//! Files read piece by piece, on a thread of their own: what they are called, what they are, and the
//! key that the ids of their tickets are made of.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, stdin};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tokio::sync::mpsc::Sender;

use crate::coding::{Charset, Coding, ContentCoding, DecodeError, Decoder};
use crate::commands::send::{hex, is_ignored, ticket_key};
use crate::config::{ImportFormat, ImportSettings};

/// What is read at once, in bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// How deep folders may be in each other.
const DEPTH_MAX: usize = 64;

/// What the keys of files begin with. It can never change: every repeated ticket would be a new one.
const KEY_PREFIX: &str = "import:";

/// Ends of names of files with a ticket a line.
const NDJSON: [&str; 2] = ["ndjson", "jsonl"];

/// Ends of names of compressed files.
const COMPRESSED: [(&str, ContentCoding); 2] =
    [("gz", ContentCoding::Gzip), ("zst", ContentCoding::Zstd)];

/// What comes of reading files.
pub(super) enum FilePiece {
    /// A file begins.
    Begin(ImportFile),
    /// What comes of the next of its bytes.
    Bytes(Vec<u8>),
    /// All of it has come.
    End,
    /// One cannot be read, or not to its end.
    Unreadable {
        /// Which one.
        name: String,
        /// Why.
        why: String,
    },
    /// All files have come.
    Done,
}

/// A file that begins.
pub(super) struct ImportFile {
    /// What it is called.
    pub name: String,
    /// What ids are made of.
    pub key: String,
    /// What is in it.
    pub format: ImportFormat,
}

/// Reads files.
pub(super) struct FileReader {
    files: Vec<PathBuf>,
    key: Option<String>,
    format: Option<ImportFormat>,
    pieces: Sender<FilePiece>,
}

/// Why a file is not read to its end.
enum NotRead {
    /// For this reason.
    Because(String),
    /// Nobody waits for pieces any more.
    Unheard,
}

impl From<io::Error> for NotRead {
    fn from(error: io::Error) -> Self {
        Self::Because(error.to_string())
    }
}

impl From<DecodeError> for NotRead {
    fn from(error: DecodeError) -> Self {
        let why = match error {
            DecodeError::Broken(broken) => broken.detail(),
            DecodeError::TooLarge => "it is too large",
        };
        Self::Because(why.into())
    }
}

impl FileReader {
    /// Reads what these settings say.
    pub(super) fn new(settings: &ImportSettings, pieces: Sender<FilePiece>) -> Self {
        Self {
            files: settings.files.clone(),
            key: settings.key.clone(),
            format: settings.format,
            pieces,
        }
    }

    /// Reads all files, as long as somebody waits for them.
    pub(super) fn run(&self) {
        let read = self.files.iter().try_for_each(|path| self.path(path, 0));
        if read.is_ok() {
            let _unheard = self.give(FilePiece::Done);
        }
    }

    fn give(&self, piece: FilePiece) -> Result<(), NotRead> {
        let given = self.pieces.blocking_send(piece);
        given.map_err(|_unheard| NotRead::Unheard)
    }

    /// A file or a folder. What cannot be read is said, and the others go on.
    fn path(&self, path: &Path, depth: usize) -> Result<(), NotRead> {
        match self.try_path(path, depth) {
            Err(NotRead::Because(why)) => {
                let name = path.display().to_string();
                self.give(FilePiece::Unreadable { name, why })
            }
            read => read,
        }
    }

    fn try_path(&self, path: &Path, depth: usize) -> Result<(), NotRead> {
        if depth == 0 && ImportSettings::is_standard_input(path) {
            return self.stream(path, stdin());
        }
        let kind = fs::metadata(path)?.file_type();
        match &self.key {
            _ if kind.is_dir() => self.folder(path, depth),
            Some(_) => self.stream(path, File::open(path)?),
            None if kind.is_file() => self.file(path),
            None => Err(NotRead::Because(
                "it is no regular file: only with --key".into(),
            )),
        }
    }

    /// What is in a folder, in the order of names. Links to other folders are not followed.
    fn folder(&self, path: &Path, depth: usize) -> Result<(), NotRead> {
        if self.key.is_some() {
            return Err(NotRead::Because(
                "--key is of one file, and this is a folder".into(),
            ));
        }
        if depth == DEPTH_MAX {
            return Err(NotRead::Because("folders in it are too deep".into()));
        }
        for name in names(path)? {
            let path = path.join(name);
            let is_link = path.symlink_metadata().is_ok_and(|file| file.is_symlink());
            if !(is_link && path.is_dir()) {
                self.path(&path, depth + 1)?;
            }
        }
        Ok(())
    }

    /// What has a key, whatever it is.
    fn stream(&self, path: &Path, mut content: impl Read) -> Result<(), NotRead> {
        let key = self.key.clone().unwrap_or_default();
        let mut decoder = self.begin(path, key)?;
        while let Some(piece) = next_piece(&mut content)? {
            self.give_text(piece, &mut decoder)?;
        }
        self.end(decoder)
    }

    /// A file with a key of its path and its content, which is read first for its hash. What is written
    /// behind that meanwhile is not read.
    fn file(&self, path: &Path) -> Result<(), NotRead> {
        let mut file = File::open(path)?;
        let (hash, bytes) = hash_of_all(&mut file)?;
        let absolute = fs::canonicalize(path)?;
        let key = ticket_key(KEY_PREFIX, absolute.as_os_str().as_bytes(), &hash);
        let mut decoder = self.begin(path, key)?;
        file.seek(SeekFrom::Start(0))?;
        let (mut content, mut again) = (file.take(bytes), Sha256::new());
        while let Some(piece) = next_piece(&mut content)? {
            again.update(&piece);
            self.give_text(piece, &mut decoder)?;
        }
        if hex(&again.finalize()) != hash {
            let changed = "it was changed while it was read, and has to be imported again";
            return Err(NotRead::Because(changed.into()));
        }
        self.end(decoder)
    }

    /// Begins a file; what inflates it, if its name says so.
    fn begin(&self, path: &Path, key: String) -> Result<Option<Decoder>, NotRead> {
        let content = COMPRESSED.iter().find(|(end, _)| ends_in(path, end));
        let inner = content.map_or_else(|| path.to_owned(), |_| path.with_extension(""));
        self.give(FilePiece::Begin(ImportFile {
            name: path.display().to_string(),
            key,
            format: self.format.unwrap_or_else(|| format_of(&inner)),
        }))?;
        let coding = content.map(|(_, content)| Coding {
            content: Some(*content),
            charset: Charset::Utf8,
        });
        Ok(coding.map(|coding| Decoder::new(coding, usize::MAX)))
    }

    fn give_text(&self, piece: Vec<u8>, decoder: &mut Option<Decoder>) -> Result<(), NotRead> {
        let Some(decoder) = decoder else {
            return self.give(FilePiece::Bytes(piece));
        };
        let mut rest = piece.as_slice();
        loop {
            let mut text = Vec::new();
            let step = decoder.push(rest, &mut text)?;
            self.give(FilePiece::Bytes(text))?;
            rest = rest.get(step.read..).unwrap_or_default();
            if rest.is_empty() && !step.has_more {
                return Ok(());
            }
        }
    }

    fn end(&self, decoder: Option<Decoder>) -> Result<(), NotRead> {
        decoder.map_or(Ok(()), Decoder::finish)?;
        self.give(FilePiece::End)
    }
}

/// The names in a folder that are not left alone, in order.
fn names(folder: &Path) -> io::Result<Vec<OsString>> {
    let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name()));
    let mut names = names.collect::<io::Result<Vec<_>>>()?;
    names.retain(|name| !is_ignored(name));
    names.sort_unstable();
    Ok(names)
}

fn format_of(path: &Path) -> ImportFormat {
    match NDJSON.iter().any(|end| ends_in(path, end)) {
        true => ImportFormat::Ndjson,
        false => ImportFormat::Text,
    }
}

fn ends_in(path: &Path, end: &str) -> bool {
    let extension = path.extension();
    extension.is_some_and(|extension| extension.eq_ignore_ascii_case(end))
}

/// The hash of a file, and its length in bytes.
fn hash_of_all(file: &mut File) -> io::Result<(String, u64)> {
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    while let Some(piece) = next_piece(file)? {
        hash.update(&piece);
        bytes += piece.len() as u64;
    }
    Ok((hex(&hash.finalize()), bytes))
}

fn next_piece(content: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    content
        .by_ref()
        .take(PIECE_BYTES as u64)
        .read_to_end(&mut piece)?;
    Ok((!piece.is_empty()).then_some(piece))
}
