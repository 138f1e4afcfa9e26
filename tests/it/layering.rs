//! The structure that `src/lib.rs` draws: which room may use which, by which door, and which foreign
//! crates. Reads the sources, tests left out.

mod paths;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use paths::{File, files};

/// Each room, and the rooms that it may use besides the leaves.
const ROOMS: &[(&str, &[&str])] = &[
    ("main", &["lib"]),
    ("lib", EVERY_ROOM),
    (
        "commands",
        &[
            "broker",
            "bulk",
            "client",
            "coding",
            "consumer",
            "message",
            "publisher",
            "store",
            "ticket",
        ],
    ),
    (
        "service",
        &["broker", "consumer", "http", "publisher", "store"],
    ),
    (
        "http",
        &["bulk", "coding", "message", "publisher", "store", "ticket"],
    ),
    ("publisher", &["broker", "message"]),
    ("consumer", &["broker", "message", "store", "ticket"]),
    ("store", &["ticket"]),
    ("broker", &[]),
    ("bulk", &["ticket"]),
    ("coding", &[]),
    ("client", &[]),
    ("message", &[]),
    ("ticket", &[]),
];

/// lib declares them all, and passes on what is public.
const EVERY_ROOM: &[&str] = &[
    "broker",
    "bulk",
    "client",
    "coding",
    "commands",
    "consumer",
    "http",
    "message",
    "publisher",
    "service",
    "store",
    "ticket",
];

/// Anyone may use these; they use no room, and of the leaves only [`BASE`].
const LEAVES: &[&str] = &[
    "backoff", "clock", "config", "health", "metrics", "source", "thread", "tls",
];

/// What the other leaves may use: settings, and the name that a credential has.
const BASE: &[&str] = &["config", "source"];

/// What is entered past a room's front door: where from, the path, and why.
const SIDE_DOORS: &[(&str, &str, &str)] = &[(
    "lib",
    "store::copy",
    "rows are fuzzed and measured without a database",
)];

/// Foreign crates that belong to some rooms; each other dependency is in [`EVERYWHERE`].
const FOREIGN: &[(&str, &[&str])] = &[
    ("annotate_snippets", &["ticket"]),
    ("anyhow", &["main", "service", "commands"]),
    ("async_compat", &["broker"]),
    ("async_rs", &["broker"]),
    // Webhook secrets and signatures, and new ones.
    ("base64", &["config", "http", "commands"]),
    ("bytes", &["client", "commands", "http", "metrics", "store"]),
    ("chrono", &["config", "source", "store"]),
    ("clap", &["config"]),
    ("encoding_rs", &["coding"]),
    (
        "fastrand",
        &["backoff", "broker", "commands", "consumer", "http", "store"],
    ),
    ("flate2", &["coding"]),
    ("foldhash", &["consumer"]),
    ("getrandom", &["commands"]),
    ("hashbrown", &["consumer"]),
    ("hmac", &["http"]),
    ("http_body_util", &["client", "http"]),
    ("humantime", &["commands", "config"]),
    // config checks URLs, so that a wrong one stops the start.
    ("hyper", &["client", "http", "config"]),
    ("hyper_util", &["client", "http"]),
    // config checks its URL, so that a wrong one stops the start.
    ("lapin", &["broker", "publisher", "consumer", "config"]),
    ("memchr", &["bulk", "ticket", "http"]),
    ("metrics", &["metrics"]),
    ("metrics_exporter_prometheus", &["metrics"]),
    ("metrics_process", &["metrics"]),
    ("percent_encoding", &["config"]),
    ("rlimit", &["http"]),
    ("rustls_native_certs", &["tls"]),
    ("rust_decimal", &["ticket", "store", "consumer"]),
    // Tokens are hashed where they are read and where they are presented.
    (
        "serde_json",
        &["bulk", "ticket", "client", "commands", "store", "http"],
    ),
    ("sha2", &["commands", "config", "http"]),
    ("rustix", &["broker", "commands", "service"]),
    ("slab", &["consumer"]),
    ("socket2", &["http", "broker"]),
    // config checks its URL, so that a wrong one stops the start.
    ("tokio_postgres", &["store", "config"]),
    ("tokio_rustls", &["tls"]),
    ("tokio_postgres_rustls", &["store"]),
    ("tracing_subscriber", &["main", "config"]),
    ("x509_cert", &["tls"]),
    ("zstd", &["coding"]),
];

/// Foreign crates that any room may use.
const EVERYWHERE: &[&str] = &["futures_util", "tokio", "tokio_util", "tracing", "uuid"];

/// Files without I/O, clock or logs, and folders of them.
const PURE: &[&str] = &[
    "bulk",
    "commands/send/issued",
    "commands/send/key",
    "commands/send/names",
    "commands/send/verdict",
    "consumer/ack_window",
    "consumer/batch",
    "consumer/dedup",
    "consumer/known_products",
    "commands/sample/catalogue",
    "commands/sample/receipt",
    "commands/sample/shops",
    "config/credentials",
    "config/rate",
    "http/auth/rate",
    "coding",
    "message",
    "source",
    "store/copy",
    "ticket",
];

/// What these must not name.
const IMPURE: &[&str] = &[
    "crate::backoff",
    "crate::clock",
    "crate::health",
    "crate::metrics",
    "crate::thread",
    "crate::tls",
    "futures_util",
    "hyper",
    "lapin",
    "metrics",
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "tokio",
    "tokio_postgres",
    "tracing",
];

/// The clocks, by whichever path.
const CLOCKS: &[&str] = &["Instant::now", "SystemTime::now"];

#[test]
fn every_room_uses_only_what_its_arrows_point_to() {
    let rooms: BTreeMap<_, _> = ROOMS.iter().copied().collect();
    let mut wrong = BTreeSet::new();
    for file in files() {
        for path in file.paths_into_the_crate() {
            let (from, to) = (file.room(), path[1].as_str());
            let allowed = match rooms.get(from) {
                Some(rooms) => rooms.contains(&to) || LEAVES.contains(&to),
                None => BASE.contains(&to),
            };
            if from != to && !allowed {
                wrong.insert(format!("{}: {}", file.name, path.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_room_is_entered_by_its_front_door() {
    let mut wrong = BTreeSet::new();
    let mut side_doors = BTreeSet::new();
    let files = files();
    let modules: BTreeSet<_> = files.iter().map(|file| file.module().join("::")).collect();
    for file in files {
        for path in file.paths_into_the_crate() {
            let is_inside = path.len() > 2 && modules.contains(&path[..3].join("::"));
            // A command's function has the name of its file.
            let is_item = path.len() == 3 && path[1] == "commands";
            if path[1] == file.room() || !is_inside || is_item {
                continue;
            }
            let inner = path[1..3].join("::");
            match SIDE_DOORS
                .iter()
                .find(|(from, door, _)| *from == file.room() && *door == inner)
            {
                Some(door) => drop(side_doors.insert(door)),
                None => drop(wrong.insert(format!("{}: {}", file.name, path.join("::")))),
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(
        side_doors.len(),
        SIDE_DOORS.len(),
        "a side door that nobody uses"
    );
}

#[test]
fn every_foreign_crate_stays_in_its_rooms() {
    let rooms: BTreeMap<_, _> = FOREIGN.iter().copied().collect();
    let mut wrong = BTreeSet::new();
    let mut used = BTreeSet::new();
    for file in files() {
        for name in file.first_names() {
            let Some(rooms) = rooms.get(name.as_str()) else {
                continue;
            };
            used.insert((name.clone(), file.room().to_owned()));
            if !rooms.contains(&file.room()) {
                wrong.insert(format!("{}: {name}", file.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let listed = FOREIGN.iter().flat_map(|(name, rooms)| {
        rooms
            .iter()
            .map(|room| ((*name).to_owned(), (*room).to_owned()))
    });
    assert_eq!(used, listed.collect(), "a room that does not use its crate");
}

#[test]
fn pure_files_do_no_io_and_read_no_clock() {
    let mut wrong = BTreeSet::new();
    for file in files().iter().filter(|file| file.is_under(PURE)) {
        for path in &file.paths {
            let path = path.join("::");
            let is = |name: &str| path == name || path.starts_with(&format!("{name}::"));
            if IMPURE.iter().any(|name| is(name)) || CLOCKS.iter().any(|now| path.ends_with(now)) {
                wrong.insert(format!("{}: {path}", file.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// No circle of imports between files; a file may use what its front doors define.
#[test]
fn imports_have_one_direction() {
    let files = files();
    let mut uses: BTreeMap<String, BTreeSet<String>> = files
        .iter()
        .map(|file| (file.name.clone(), file.files_used(files)))
        .collect();
    // What nobody is left to wait for can go, until only circles are left.
    while let Some(name) = uses
        .iter()
        .find(|(_, used)| used.is_empty())
        .map(|(name, _)| name.clone())
    {
        uses.remove(&name);
        for used in uses.values_mut() {
            used.remove(&name);
        }
    }
    assert!(uses.is_empty(), "in circles, or before one: {uses:#?}");
}

/// A name of a type says which one is meant, wherever it is read.
#[test]
fn no_two_public_types_have_one_name() {
    let mut defined: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for file in files() {
        for name in &file.public_types {
            defined.entry(name).or_default().push(&file.name);
        }
    }
    defined.retain(|_, files| files.len() > 1);
    assert!(defined.is_empty(), "{defined:#?}");
}

/// No module and no dependency escapes the rules: the tables name all of them.
#[test]
fn the_tables_are_complete() {
    let rooms: BTreeSet<_> = files().iter().map(|file| file.room().to_owned()).collect();
    let listed = ROOMS
        .iter()
        .map(|(room, _)| *room)
        .chain(LEAVES.iter().copied());
    assert_eq!(rooms, listed.map(str::to_owned).collect());

    let names = FOREIGN.iter().map(|(name, _)| *name);
    let names = names.chain(EVERYWHERE.iter().copied()).map(str::to_owned);
    assert_eq!(dependencies(), names.collect());
}

/// The crates that Cargo.toml names as dependencies of what is shipped.
fn dependencies() -> BTreeSet<String> {
    let manifest = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap();
    let section = manifest.split("\n[dependencies]\n").nth(1).unwrap();
    let section = section.split("\n[").next().unwrap();
    let names = section.lines().filter(|line| !line.starts_with('#'));
    names
        .filter_map(|line| Some(line.split_once(" = ")?.0.replace('-', "_")))
        .collect()
}

impl File {
    /// Whether it is one of these files, or in one of these folders.
    fn is_under(&self, names: &[&str]) -> bool {
        let name = self.name.trim_end_matches(".rs");
        names.iter().any(|under| {
            name.strip_prefix(under)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}
