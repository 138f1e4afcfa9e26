//! The pieces of files cut into tickets, and what is said of those that cannot be taken.

use std::io::Write;

use anyhow::{Context, bail};
use tokio::sync::mpsc::Receiver;
use uuid::Uuid;

use super::files::{FilePiece, ImportFile};
use super::sink::TicketSink;
use crate::bulk::{Entry, EntryError, NdjsonSplitter, Place, next_of_text};
use crate::clock::now_us;
use crate::config::{ImportFormat, ImportSettings};
use crate::message::Record;
use crate::source::{Origin, Source, id_of_key, id_of_nth};
use crate::ticket::TicketSplitter;

/// An import, and what was said of it.
pub(super) struct Import<'a, W> {
    settings: &'a ImportSettings,
    out: &'a mut W,
    /// The file whose pieces come.
    file: Option<OpenImport>,
    received_at_us: i64,
    /// Tickets and files that cannot be taken.
    rejected: u64,
}

/// A file whose pieces come.
struct OpenImport {
    name: String,
    id_of_key: Uuid,
    splitter: Splitter,
    is_empty: bool,
    /// Where the last ticket is that cannot be taken.
    last_bad: Option<Place>,
}

enum Splitter {
    Text(TicketSplitter),
    Ndjson(NdjsonSplitter),
}

impl Splitter {
    fn of(format: ImportFormat, bytes_max: usize) -> Self {
        match format {
            ImportFormat::Text => Self::Text(TicketSplitter::new(bytes_max)),
            ImportFormat::Ndjson => Self::Ndjson(NdjsonSplitter::new(bytes_max)),
        }
    }

    fn push(&mut self, piece: &[u8]) {
        match self {
            Self::Text(splitter) => splitter.push(piece),
            Self::Ndjson(splitter) => splitter.push(piece),
        }
    }

    fn end(&mut self) {
        match self {
            Self::Text(splitter) => splitter.end(),
            Self::Ndjson(splitter) => splitter.end(),
        }
    }

    /// The next ticket, if that can be stored.
    fn next_entry(&mut self) -> Result<Option<Entry<'_>>, EntryError> {
        let entry = match self {
            Self::Text(splitter) => next_of_text(splitter),
            Self::Ndjson(splitter) => splitter.next_entry(),
        }?;
        entry.as_ref().map_or(Ok(()), Entry::check_text)?;
        Ok(entry)
    }
}

impl OpenImport {
    fn new(file: ImportFile, settings: &ImportSettings) -> Self {
        Self {
            id_of_key: id_of_key(settings.source.as_ref(), file.key.as_bytes()),
            splitter: Splitter::of(file.format, settings.body_max as usize),
            name: file.name,
            is_empty: true,
            last_bad: None,
        }
    }
}

/// The id of the ticket's own key, else of its number and the file's.
fn id(entry: &Entry<'_>, source: Option<&Source>, id_of_file: Uuid) -> Uuid {
    match &entry.key {
        Some(key) => id_of_key(source, key),
        None => id_of_nth(id_of_file, entry.place.number),
    }
}

impl<'a, W: Write> Import<'a, W> {
    /// Nothing is read yet.
    pub(super) fn new(settings: &'a ImportSettings, out: &'a mut W) -> Self {
        Self {
            settings,
            out,
            file: None,
            received_at_us: 0,
            rejected: 0,
        }
    }

    /// Takes the tickets of all pieces, and says how many. True if all are confirmed.
    pub(super) async fn run<S: TicketSink>(
        &mut self,
        mut outgoing: S,
        mut pieces: Receiver<FilePiece>,
    ) -> anyhow::Result<bool> {
        let ended = self.take_all(&mut outgoing, &mut pieces).await;
        let (confirmed, rejected) = (outgoing.confirmed(), self.rejected);
        writeln!(self.out, "{confirmed}\t{rejected}")?;
        ended.with_context(|| {
            let done = S::DONE;
            format!("not all tickets are {done}: import the same again, nothing is stored twice")
        })?;
        Ok(rejected == 0)
    }

    async fn take_all(
        &mut self,
        outgoing: &mut impl TicketSink,
        pieces: &mut Receiver<FilePiece>,
    ) -> anyhow::Result<()> {
        while let Some(piece) = pieces.recv().await {
            match piece {
                FilePiece::Begin(file) => self.file = Some(OpenImport::new(file, self.settings)),
                FilePiece::Bytes(bytes) => self.take(&bytes, outgoing).await?,
                FilePiece::End => self.end_file(outgoing).await?,
                FilePiece::Unreadable { name, why } => {
                    self.file = None;
                    self.reject(&name, &why)?;
                }
                FilePiece::Done => return outgoing.finish().await,
            }
        }
        bail!("the files were not read to their end")
    }

    async fn take(&mut self, bytes: &[u8], outgoing: &mut impl TicketSink) -> anyhow::Result<()> {
        self.received_at_us = now_us();
        if let Some(file) = &mut self.file {
            file.splitter.push(bytes);
        }
        self.take_entries(outgoing).await
    }

    async fn end_file(&mut self, outgoing: &mut impl TicketSink) -> anyhow::Result<()> {
        if let Some(file) = &mut self.file {
            file.splitter.end();
        }
        self.take_entries(outgoing).await?;
        match self.file.take() {
            Some(file) if file.is_empty => Ok(self.reject(&file.name, "there is no ticket in it")?),
            _ => Ok(()),
        }
    }

    async fn take_entries(&mut self, outgoing: &mut impl TicketSink) -> anyhow::Result<()> {
        let source = self.settings.source.as_ref();
        while let Some(file) = &mut self.file {
            let error = match file.splitter.next_entry() {
                Ok(None) => return Ok(()),
                Ok(Some(entry)) => {
                    file.is_empty = false;
                    let origin = Origin {
                        source: source.map(Source::borrowed),
                        issued_at_us: entry.issued_at_us,
                    };
                    let record = Record {
                        id: id(&entry, source, file.id_of_key),
                        received_at_us: self.received_at_us,
                        origin,
                        body: &entry.body,
                    };
                    outgoing.add(record).await?;
                    continue;
                }
                Err(error) => error,
            };
            self.bad_entry(error)?;
        }
        Ok(())
    }

    /// Says what is wrong with a ticket. The others go on, unless it is not known where they begin.
    fn bad_entry(&mut self, error: EntryError) -> std::io::Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        file.is_empty = false;
        let name = file.name.clone();
        if file.last_bad.replace(error.place) == Some(error.place) {
            self.file = None;
            return writeln!(self.out, "{name}: what follows it is not read");
        }
        self.reject(&name, &error.to_string())
    }

    fn reject(&mut self, name: &str, why: &str) -> std::io::Result<()> {
        self.rejected += 1;
        writeln!(self.out, "{name}: {why}")
    }
}
