//! The images and docker-compose.yml, as far as they can be read without an engine; `make compose_check` runs them.

use std::collections::BTreeMap;
use std::time::Duration;

use ticketd_testing::*;

use crate::TICKETD;

const DOCKERFILE: &str = include_str!("../../Dockerfile");
const IGNORE: &str = include_str!("../../.dockerignore");
const COMPOSE: &str = include_str!("../../docker-compose.yml");

/// What stands after a word at the beginning of a line.
fn lines<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| line.strip_prefix(word))
}

/// The images that ours are made from, and their tags.
fn bases() -> BTreeMap<&'static str, &'static str> {
    lines(DOCKERFILE, "FROM ")
        .map(|from| from.split_whitespace().next().unwrap())
        .map(|image| image.split_once(':').expect("an image and its tag"))
        .collect()
}

/// The lines of each service in docker-compose.yml, without comments.
fn services() -> BTreeMap<&'static str, Vec<&'static str>> {
    let mut services = BTreeMap::<_, Vec<_>>::new();
    let mut name = None;
    let all = COMPOSE.lines().skip_while(|line| *line != "services:");
    for line in all.skip(1).take_while(|line| !line.starts_with("volumes:")) {
        let text = line.trim();
        match line.find(|c| c != ' ') {
            Some(2) if text.ends_with(':') => name = text.strip_suffix(':'),
            Some(4..) if !text.starts_with('#') => {
                services.entry(name.unwrap()).or_default().push(text);
            }
            _ => {}
        }
    }
    services
}

/// The value of a duration flag, such as `--timeout=5s`, or of a key, such as `stop_grace_period: 5s`.
fn seconds(text: &str, name: &str) -> Duration {
    let (_, value) = text.split_once(name).expect("it is set");
    let number = value.trim_start_matches([':', '=', ' ']);
    let (number, _) = number.split_once('s').expect("seconds");
    Duration::from_secs(number.parse().expect("whole seconds"))
}

/// A build of next year makes the same: looks for bases without a release.
#[test]
fn every_base_is_pinned_to_a_release() {
    let bases = bases();
    assert_eq!(bases.len(), 4, "{bases:?}");
    for (image, tag) in &bases {
        let dated = tag
            .split('-')
            .any(|part| part.len() == 8 && part.parse::<u32>().is_ok());
        assert!(dated || tag.contains('.'), "{image}:{tag}");
    }
}

/// The compiler is one that the crate allows, and what it made finds its C library: compares the bases.
#[test]
fn the_binary_runs_on_the_release_it_was_built_on() {
    let bases = bases();
    let (version, release) = bases["rust"].split_once('-').unwrap();
    assert_eq!(bases["debian"].split('-').next(), Some(release));
    let numbers = |version: &str| -> Vec<u32> {
        version
            .split('.')
            .map(|part| part.parse().unwrap())
            .collect()
    };
    assert!(numbers(version) >= numbers(env!("CARGO_PKG_RUST_VERSION")));
}

/// The labels say of the image what Cargo.toml says of the crate: compares them.
#[test]
fn the_labels_are_those_of_the_crate() {
    assert!(DOCKERFILE.contains(concat!("ARG VERSION=", env!("CARGO_PKG_VERSION"), "\n")));
    for (label, value) in [
        ("title", env!("CARGO_PKG_NAME")),
        ("description", env!("CARGO_PKG_DESCRIPTION")),
        ("licenses", env!("CARGO_PKG_LICENSE")),
        ("version", "${VERSION}"),
        ("revision", "${REVISION}"),
        ("source", "${SOURCE}"),
    ] {
        let label = format!("org.opencontainers.image.{label}=\"{value}\"");
        assert!(DOCKERFILE.contains(&label), "{label}");
    }
}

/// The image listens where the host and a platform look for it: starts with its settings, and with the
/// port that a platform sets instead.
#[tokio::test]
async fn the_image_listens_on_every_address() {
    let settings: Vec<_> = lines(DOCKERFILE, "ENV ")
        .filter(|line| !line.starts_with("CARGO_"))
        .map(|line| line.split_once('=').unwrap())
        .collect();
    for (settings, port) in [(&settings, "8080"), (&vec![("PORT", "5000")], "5000")] {
        let shown = Process::run(TICKETD, &["config", "accept"], settings).await;
        let listen = format!("LISTEN\t0.0.0.0:{port}\t");
        assert!(shown.text().contains(&listen), "{}", shown.text());
    }
    assert!(settings.iter().all(|(name, _)| *name != "LISTEN"));
    assert!(lines(DOCKERFILE, "EXPOSE ").any(|port| port == "8080"));
}

/// The binary is told the revision that the label says, after the dependencies are built, which another
/// commit leaves as they are: looks at the order of the steps.
#[test]
fn the_binary_in_the_image_knows_its_revision() {
    let (build, image) = DOCKERFILE.split_once(" AS ticketd\n").unwrap();
    let told = "\nARG REVISION=unknown\n";
    let (dependencies, binary) = build.split_once(told).expect("told to the build");
    assert!(dependencies.contains("cargo build ") && dependencies.contains("\nCOPY . .\n"));
    assert!(binary.contains("TICKETD_REVISION=$REVISION cargo build "));
    assert!(image.contains(told), "told to the label");
    assert!(lines(IGNORE, "!").any(|kept| kept == "build.rs"));
}

/// The servers can read their settings though nobody else can read the checkout: looks for what is
/// mounted from it, and for what is copied without a mode, or into a folder that the copy would make.
#[test]
fn settings_do_not_depend_on_the_umask() {
    assert!(!COMPOSE.contains("./"), "mounted from the checkout");
    let copied: Vec<_> = lines(DOCKERFILE, "COPY ")
        .filter(|copy| copy.contains("deploy/"))
        .collect();
    assert_eq!(copied.len(), 3, "{copied:?}");
    for copy in copied {
        let words: Vec<_> = copy.split_whitespace().collect();
        let [mode, from, to] = words[..] else {
            panic!("{copy}")
        };
        let (folder, _) = to.rsplit_once('/').unwrap();
        assert_eq!(mode, "--chmod=644", "{copy}");
        assert!(
            ["/etc", "/etc/rabbitmq", "/etc/rabbitmq/conf.d"].contains(&folder),
            "{copy}"
        );
        assert!(
            lines(IGNORE, "!").any(|kept| kept == from),
            "{from} is ignored"
        );
    }
}

/// cargo asks for every member of the workspace, though it builds one: compares them with what is
/// copied before the dependencies are built.
#[test]
fn every_manifest_is_copied() {
    let manifest = include_str!("../../Cargo.toml");
    let (_, members) = manifest.split_once("\nmembers = [").unwrap();
    let (members, _) = members.split_once(']').unwrap();
    for member in members
        .split(',')
        .map(|member| member.trim().trim_matches('"'))
    {
        let copy = format!("{member}/Cargo.toml {member}/");
        assert!(
            lines(DOCKERFILE, "COPY ").any(|copied| copied == copy),
            "{copy}"
        );
        let kept = format!("{member}/Cargo.toml");
        assert!(lines(IGNORE, "!").any(|it| it == kept), "{kept} is ignored");
    }
}

/// A change is built, logs are bounded, no limit is asked for that an engine may refuse, and all of
/// it comes up again: looks at every service.
#[test]
fn every_service_is_built_bounded_and_restarted() {
    let services = services();
    assert_eq!(services.len(), 3, "{services:?}");
    for (name, lines) in &services {
        for needed in [
            "pull_policy: build",
            "logging: *logging",
            "restart: unless-stopped",
        ] {
            assert!(lines.contains(&needed), "{name} lacks {needed}");
        }
        assert!(
            !lines.iter().any(|line| line.starts_with("nofile")),
            "{name}"
        );
        assert!(DOCKERFILE.contains(&format!(" AS {name}\n")), "{name}");
    }
    assert!(COMPOSE.contains("\n    max-size: ") && COMPOSE.contains("\n    max-file: "));
}

/// The engine kills ticketd only after its own limits have passed: compares them.
#[tokio::test]
async fn the_drain_may_last_as_long_as_it_does_at_most() {
    let help = Process::run::<&str>(TICKETD, &["serve", "--help"], &[]).await;
    let default = |setting: &str| {
        let (_, rest) = help
            .text()
            .split_once(&format!("[env: {setting}=]"))
            .unwrap();
        seconds(rest, "[default")
    };
    let most = default("LAME_DUCK") + default("SHUTDOWN_GRACE");
    let ticketd = services()["ticketd"].join("\n");
    assert!(seconds(&ticketd, "stop_grace_period") >= most + Duration::from_secs(5));
}
