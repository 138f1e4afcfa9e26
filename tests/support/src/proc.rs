//! What the kernel tells about processes; see proc(5).

use std::collections::HashMap;
use std::fs;

/// What a process uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory, in KiB.
    pub rss_kib: u64,
    /// Open descriptors.
    pub files: usize,
    /// Threads.
    pub threads: usize,
    /// Processor time, in ticks of 10 ms.
    pub cpu_ticks: u64,
}

/// Processor time of a process so far, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticks {
    /// Its own.
    pub own: u64,
    /// That of its children that have ended, and that it has waited for.
    pub ended_children: u64,
}

/// Some fields of /proc/PID/stat.
struct Stat {
    state: char,
    parent: u32,
    ticks: Ticks,
}

/// Whether there is such a process that is more than a zombie.
pub fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'))
}

/// A process and all that descend from it.
pub fn family(pid: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        if let Ok(child) = entry.file_name().to_string_lossy().parse()
            && let Some(stat) = stat(child)
        {
            children.entry(stat.parent).or_default().push(child);
        }
    }
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        family.extend(children.remove(&parent).unwrap_or_default());
        next += 1;
    }
    family
}

/// The processor time of a process; none once it is gone.
pub fn ticks(pid: u32) -> Option<Ticks> {
    stat(pid).map(|stat| stat.ticks)
}

/// One of the fields of /proc/PID/status that are numbers, such as `Threads` or, in KiB, `VmHWM`.
pub fn status(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mut fields = status.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = fields.find(|(name, _)| *name == field)?;
    value.trim_end_matches(" kB").trim().parse().ok()
}

/// What a process uses now.
pub fn usage(pid: u32) -> Usage {
    let field = |name| status(pid, name).expect("it lives");
    let files = fs::read_dir(format!("/proc/{pid}/fd"));
    Usage {
        rss_kib: field("VmRSS"),
        files: files.expect("it lives").count(),
        threads: usize::try_from(field("Threads")).unwrap(),
        cpu_ticks: ticks(pid).expect("it lives").own,
    }
}

fn stat(pid: u32) -> Option<Stat> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: u32::try_from(number(1)?).ok()?,
        // The 12th to 15th behind the name: utime, stime, cutime and cstime.
        ticks: Ticks {
            own: number(11)? + number(12)?,
            ended_children: number(13)? + number(14)?,
        },
    })
}
