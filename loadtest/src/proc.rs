//! What a part of the system costs: CPU time and memory of a process and all its descendants, out of /proc.

use anyhow::{Context, Result, ensure};
use ticketd_testing::proc::{family, status, ticks};

/// A named process to be watched, from `NAME=PID`.
#[derive(Clone)]
pub(crate) struct Part {
    /// What the report calls it.
    pub(crate) name: String,
    /// The root of its process tree: for PostgreSQL the postmaster.
    pub(crate) pid: u32,
}

impl std::str::FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, pid) = text.split_once('=').ok_or("expected NAME=PID")?;
        let pid = pid.parse().map_err(|_| format!("{pid} is no process id"))?;
        Ok(Self {
            name: name.to_owned(),
            pid,
        })
    }
}

/// What one part used between the start and the end of a run.
pub(crate) struct Cost {
    /// The part's name.
    pub(crate) name: String,
    /// User and system time; none when the process went away.
    pub(crate) cpu_seconds: Option<f64>,
    /// Peak resident memory.
    pub(crate) memory_bytes: u64,
    /// How the memory was measured.
    pub(crate) memory_measure: &'static str,
}

/// The watch over all parts of a run.
pub(crate) struct Costs {
    watched: Vec<Watched>,
}

struct Watched {
    part: Part,
    cpu_seconds_before: f64,
    tree_bytes_max: u64,
    is_tree: bool,
}

impl Costs {
    /// Begins with the CPU time that every part has used so far.
    pub(crate) fn begin(parts: &[Part]) -> Result<Self> {
        let own = Part {
            name: "loadtest".to_owned(),
            pid: std::process::id(),
        };
        let watched = parts.iter().cloned().chain([own]).map(|part| {
            let cpu_seconds_before = cpu_seconds(part.pid)
                .with_context(|| format!("{} is not running as process {}", part.name, part.pid))?;
            Ok(Watched {
                part,
                cpu_seconds_before,
                tree_bytes_max: 0,
                is_tree: false,
            })
        });
        Ok(Self {
            watched: watched.collect::<Result<_>>()?,
        })
    }

    /// Looks at the memory of the parts that are process trees: the kernel keeps no peak of a sum.
    pub(crate) fn sample(&mut self) {
        for watched in &mut self.watched {
            let tree = family(watched.part.pid);
            watched.is_tree |= tree.len() > 1;
            let bytes = tree
                .iter()
                .filter_map(|pid| memory_bytes(*pid, "RssAnon"))
                .sum();
            watched.tree_bytes_max = watched.tree_bytes_max.max(bytes);
        }
    }

    /// The costs since `begin`.
    pub(crate) fn end(mut self) -> Vec<Cost> {
        self.sample();
        self.watched.into_iter().map(Watched::cost).collect()
    }
}

impl Watched {
    fn cost(self) -> Cost {
        let (memory_bytes, memory_measure) = if self.is_tree {
            // Shared memory would be counted once for each process of the tree.
            (self.tree_bytes_max, "RssAnon of all its processes, sampled")
        } else {
            (memory_bytes(self.part.pid, "VmHWM").unwrap_or(0), "VmHWM")
        };
        let cpu_seconds = cpu_seconds(self.part.pid).ok();
        Cost {
            name: self.part.name,
            cpu_seconds: cpu_seconds.map(|now| now - self.cpu_seconds_before),
            memory_bytes,
            memory_measure,
        }
    }
}

/// CPU seconds of a process tree so far; those of ended children count with the parent that reaped them.
fn cpu_seconds(root: u32) -> Result<f64> {
    ensure!(ticks(root).is_some(), "no process {root}");
    let tree = family(root);
    let each = tree.iter().filter_map(|pid| own_cpu_seconds(*pid));
    Ok(each.sum())
}

/// CPU seconds of a process and of its ended children so far.
pub(crate) fn own_cpu_seconds(pid: u32) -> Option<f64> {
    let ticks = ticks(pid)?;
    let ticks = ticks.own + ticks.ended_children;
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// One of the memory fields of /proc/PID/status.
pub(crate) fn memory_bytes(pid: u32, field: &str) -> Option<u64> {
    status(pid, field).map(|kibibytes| kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_done_by_a_child_counts_for_its_parent() {
        let before = cpu_seconds(std::process::id()).unwrap();
        let count = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        std::process::Command::new("sh")
            .args(["-c", count])
            .status()
            .unwrap();
        assert!(cpu_seconds(std::process::id()).unwrap() - before > 0.05);
    }

    #[test]
    fn a_part_is_named_and_must_run() {
        let part: Part = "postgres=12".parse().unwrap();
        assert_eq!((part.name.as_str(), part.pid), ("postgres", 12));
        assert!("postgres".parse::<Part>().is_err());
        assert!("postgres=x".parse::<Part>().is_err());
        assert!(
            Costs::begin(&[Part {
                name: "gone".into(),
                pid: u32::MAX
            }])
            .is_err()
        );
    }
}
