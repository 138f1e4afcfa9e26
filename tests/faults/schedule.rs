//! What was done to a rig, so that a failure can be reproduced.

use std::path::PathBuf;
use std::time::Instant;

/// What was done so far. It is shown however the test ends, so that it can be reproduced.
pub(crate) struct Schedule {
    rig: String,
    seed: u64,
    dir: PathBuf,
    started: Instant,
    lines: Vec<String>,
}

impl Schedule {
    /// Nothing yet.
    pub(crate) fn new(rig: &str, seed: u64, dir: PathBuf) -> Self {
        Self {
            rig: rig.to_owned(),
            seed,
            dir,
            started: Instant::now(),
            lines: Vec::new(),
        }
    }

    /// Writes down what is done, and when.
    pub(crate) fn note(&mut self, what: &str) {
        let line = format!("{:7.3}s {what}", self.started.elapsed().as_secs_f64());
        println!("  {} {line}", self.rig);
        self.lines.push(line);
    }
}

impl Drop for Schedule {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "seed {}, schedule:\n  {}\nledger and logs: {}",
                self.seed,
                self.lines.join("\n  "),
                self.dir.display()
            );
        }
    }
}
