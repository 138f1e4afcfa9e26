//! What the kernel tells about processes.

use std::collections::HashMap;
use std::fs;

/// Whether there is such a process that is more than a zombie.
pub fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|(_, state)| state != 'Z' && state != 'X')
}

/// A process and all that descend from it.
pub fn family(pid: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        if let Ok(child) = entry.file_name().to_string_lossy().parse()
            && let Some((parent, _)) = stat(child)
        {
            children.entry(parent).or_default().push(child);
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

/// The parent and the state (proc(5), /proc/pid/stat: the name in parentheses may hold anything).
fn stat(pid: u32) -> Option<(u32, char)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((fields.next()?.parse().ok()?, state))
}

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

/// What a process uses now.
pub fn usage(pid: u32) -> Usage {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let field = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let value = line.expect("a field of proc(5)").trim_end_matches(" kB");
        value.trim().parse().expect("a number")
    };
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let fields = stat.rsplit_once(')').expect("a name").1.split_whitespace();
    Usage {
        rss_kib: field("VmRSS:"),
        files: fs::read_dir(format!("/proc/{pid}/fd"))
            .expect("it lives")
            .count(),
        threads: usize::try_from(field("Threads:")).unwrap(),
        // utime and stime are the 12th and 13th behind the name.
        cpu_ticks: fields
            .skip(11)
            .take(2)
            .map(|ticks| ticks.parse::<u64>().unwrap())
            .sum(),
    }
}
