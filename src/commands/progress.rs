//! How far a command is, on a terminal.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

/// Between two updates.
const INTERVAL: Duration = Duration::from_millis(200);

/// A count that is shown on standard error while it grows, if that is a terminal.
pub(super) struct ProgressLine {
    what: &'static str,
    count: u64,
    shown: Option<Instant>,
    is_terminal: bool,
}

impl ProgressLine {
    /// Of what is done.
    pub(super) fn new(what: &'static str) -> Self {
        Self {
            what,
            count: 0,
            shown: None,
            is_terminal: stderr().is_terminal(),
        }
    }

    /// So many more.
    pub(super) fn add(&mut self, more: u64) {
        self.count += more;
        if self.is_terminal && self.shown.is_none_or(|shown| shown.elapsed() > INTERVAL) {
            self.shown = Some(Instant::now());
            self.show();
        }
    }

    /// It is done.
    pub(super) fn end(&self) {
        if self.shown.is_some() {
            self.show();
            // A terminal that has gone misses nothing.
            let _unseen = writeln!(stderr());
        }
    }

    fn show(&self) {
        let _unseen = write!(stderr(), "\r{} {}", self.count, self.what);
    }
}
