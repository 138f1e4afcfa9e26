//! Where an export goes to.

use std::ffi::OsString;
use std::fs::{File, rename};
use std::io::{BufWriter, Result, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

/// What is gathered for a single write, in bytes.
const BUFFER: usize = 64 * 1024;

/// Standard output, or a file that has its name only once it is whole.
pub(super) struct ExportOutput<'a> {
    out: BufWriter<Destination<'a>>,
    names: Option<Names>,
}

enum Destination<'a> {
    Output(&'a mut dyn Write),
    File(File),
}

/// What a file is called until it is whole, and then.
struct Names {
    partial: PathBuf,
    whole: PathBuf,
}

impl<'a> ExportOutput<'a> {
    /// Opens it. What is there already and is no file, such as a pipe, is written to as it is.
    pub(super) fn new(file: Option<&Path>, out: &'a mut dyn Write) -> anyhow::Result<Self> {
        let Some(whole) = file else {
            return Ok(Self::of(Destination::Output(out), None));
        };
        let is_special = whole.metadata().is_ok_and(|there| !there.is_file());
        if is_special {
            let file = File::options().write(true).open(whole);
            let file = file.with_context(|| whole.display().to_string())?;
            return Ok(Self::of(Destination::File(file), None));
        }
        let partial = partial(whole);
        let file = File::create(&partial).with_context(|| partial.display().to_string())?;
        let whole = whole.to_owned();
        Ok(Self::of(
            Destination::File(file),
            Some(Names { partial, whole }),
        ))
    }

    fn of(destination: Destination<'a>, names: Option<Names>) -> Self {
        Self {
            out: BufWriter::with_capacity(BUFFER, destination),
            names,
        }
    }

    /// Writes what is left. A file is on disk before it gets its name.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        self.out.flush()?;
        if let Some(Names { partial, whole }) = &self.names {
            if let Destination::File(file) = self.out.get_ref() {
                file.sync_all()?;
            }
            rename(partial, whole).with_context(|| whole.display().to_string())?;
        }
        Ok(())
    }
}

fn partial(whole: &Path) -> PathBuf {
    let mut name = OsString::from(whole);
    name.push(".partial");
    name.into()
}

impl Write for ExportOutput<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        self.out.flush()
    }
}

impl Write for Destination<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        match self {
            Self::Output(out) => out.write(bytes),
            Self::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> Result<()> {
        match self {
            Self::Output(out) => out.flush(),
            Self::File(file) => file.flush(),
        }
    }
}
