//! The direction in which the code may lean: each file uses only what stands to its right.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Each module and what it may use of the crate. The commands stand at the end of the flow and may
/// use what they need; lib and main put everything together.
const MAY_USE: &[(&str, &[&str])] = &[
    ("backoff", &[]),
    ("broker", &["config", "metrics"]),
    ("clock", &[]),
    ("config", &[]),
    (
        "consumer",
        &[
            "backoff", "broker", "clock", "config", "health", "message", "metrics", "store",
            "ticket",
        ],
    ),
    (
        "commands",
        &[
            "broker",
            "clock",
            "config",
            "health",
            "message",
            "publisher",
            "store",
            "ticket",
        ],
    ),
    ("health", &[]),
    (
        "http",
        &[
            "clock",
            "health",
            "message",
            "metrics",
            "publisher",
            "store",
            "thread",
            "ticket",
        ],
    ),
    ("message", &[]),
    ("metrics", &[]),
    (
        "publisher",
        &[
            "backoff", "broker", "config", "health", "message", "metrics",
        ],
    ),
    (
        "service",
        &[
            "broker",
            "config",
            "consumer",
            "health",
            "http",
            "metrics",
            "publisher",
            "store",
            "thread",
        ],
    ),
    ("store", &["metrics", "ticket"]),
    ("thread", &[]),
    ("ticket", &[]),
];

/// What the pure modules must not know.
const PURE: &[&str] = &[
    "consumer/ack_window",
    "consumer/batch",
    "consumer/known_products",
    "message",
    "store/copy",
    "ticket",
];
const IMPURE: &[&str] = &[
    "tokio",
    "lapin",
    "hyper",
    "tracing",
    "metrics::",
    "std::net",
    "std::fs",
];

/// Files that are only there for tests.
const TESTS: &[&str] = &["agree.rs", "generate.rs", "naive.rs", "prop.rs", "tests.rs"];

/// The dependency rule of the code map holds: reads every `crate::` path and compares it with the
/// table.
#[test]
fn every_file_uses_only_what_stands_to_its_right() {
    for (module, allowed) in MAY_USE {
        let used = modules_used(&source(module));
        let strange: Vec<_> = used
            .iter()
            .filter(|name| *name != module && !allowed.contains(&name.as_str()))
            .collect();
        assert!(strange.is_empty(), "{module} uses {strange:?}");
    }
}

/// No module escapes the rule: the table names all that lib.rs declares.
#[test]
fn the_table_is_complete() {
    let lib = fs::read_to_string(root().join("lib.rs")).unwrap();
    let declared: BTreeSet<_> = lib
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "))
        .map(|name| name.trim_end_matches(';').to_owned())
        .collect();
    let listed = MAY_USE
        .iter()
        .map(|(module, _)| (*module).to_owned())
        .collect();
    assert_eq!(declared, listed);
}

/// Pure modules do no I/O, keep no time and write no logs: looks for the names of what does.
#[test]
fn pure_modules_know_no_runtime() {
    for module in PURE {
        let source = source(module);
        for name in IMPURE {
            assert!(
                !source.contains(&format!("use {name}")),
                "{module} uses {name}"
            );
        }
    }
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))
}

/// A module's code, its folder's files included, without the tests at their ends.
fn source(module: &str) -> String {
    let mut files = vec![root().join(format!("{module}.rs"))];
    let mut folders = vec![root().join(module)];
    while let Some(folder) = folders.pop() {
        let Ok(folder) = fs::read_dir(folder) else {
            continue;
        };
        for path in folder.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if !TESTS.iter().any(|name| path.ends_with(name)) {
                files.push(path);
            }
        }
    }
    let production = |file: &std::path::PathBuf| {
        let text = fs::read_to_string(file).unwrap();
        text.split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    files.iter().map(production).collect()
}

fn modules_used(source: &str) -> BTreeSet<String> {
    source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| {
            rest.chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect()
        })
        .collect()
}
