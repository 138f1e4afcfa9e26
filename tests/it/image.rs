//! The images and docker-compose.yml, as far as they can be read without an engine; `make compose_check` runs them.

mod scale;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ticketd_testing::servers::{amqps_url, stack_certificate};
use ticketd_testing::*;

use crate::TICKETD;
use crate::https::curl;

const DOCKERFILE: &str = include_str!("../../Dockerfile");
const IGNORE: &str = include_str!("../../.dockerignore");
const COMPOSE: &str = include_str!("../../docker-compose.yml");

/// Folders that the images have, into which settings are copied.
const FOLDERS: [&str; 7] = [
    "/etc",
    "/etc/rabbitmq",
    "/etc/rabbitmq/conf.d",
    "/etc/prometheus",
    "/usr/local/etc/haproxy",
    "/etc/grafana/provisioning/datasources",
    "/etc/grafana/provisioning/dashboards",
];

/// What stands after a word at the beginning of a line.
fn lines<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| line.strip_prefix(word))
}

/// The images that ours are made from, and their tags; not those of the file itself.
fn bases() -> BTreeMap<&'static str, &'static str> {
    lines(DOCKERFILE, "FROM ")
        .map(|from| from.split_whitespace().next().unwrap())
        .filter(|image| !DOCKERFILE.contains(&format!(" AS {image}\n")))
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
    assert_eq!(bases.len(), 7, "{bases:?}");
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
    assert_eq!(copied.len(), 11, "{copied:?}");
    for copy in copied {
        let words: Vec<_> = copy.split_whitespace().collect();
        let [mode, from, to] = words[..] else {
            panic!("{copy}")
        };
        let (folder, _) = to.rsplit_once('/').unwrap();
        assert_eq!(mode, "--chmod=644", "{copy}");
        assert!(FOLDERS.contains(&folder), "{copy}");
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
    assert_eq!(services.len(), 14, "{services:?}");
    for (name, lines) in &services {
        let restart = if name.contains("policy") {
            "restart: on-failure"
        } else {
            "restart: unless-stopped"
        };
        for needed in ["pull_policy: build", "logging: *logging", restart] {
            assert!(lines.contains(&needed), "{name} lacks {needed}");
        }
        assert!(
            !lines.iter().any(|line| line.starts_with("nofile")),
            "{name}"
        );
        let target = lines.iter().find_map(|line| line.strip_prefix("target: "));
        let stage = format!(" AS {}\n", target.expect("a stage"));
        assert!(DOCKERFILE.contains(&stage), "{name}");
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
    for name in ["ticketd", "ticketd-tls", "accept", "consume"] {
        let ticketd = services()[name].join("\n");
        assert!(seconds(&ticketd, "stop_grace_period") >= most + Duration::from_secs(5));
    }
}

/// The value of a key among the lines of a service.
fn value<'a>(lines: &[&'a str], key: &str) -> &'a str {
    let mut values = lines.iter().filter_map(|line| line.strip_prefix(key));
    let value = values.next().expect(key);
    value.strip_prefix(": ").expect(key)
}

/// The profile `tls` is apart from the installation without it, has no default password, and encrypts
/// and checks each link: reads its settings and those of its servers.
#[test]
fn the_profile_tls_is_encrypted_and_checked() {
    let services = services();
    let secured: Vec<_> = services
        .iter()
        .filter(|(_, lines)| lines.contains(&"profiles: [tls]"))
        .map(|(name, _)| *name)
        .collect();
    assert_eq!(
        secured,
        [
            "postgres-tls",
            "rabbitmq-policy-tls",
            "rabbitmq-tls",
            "ticketd-tls"
        ]
    );
    for name in secured {
        let text = services[name].join("\n");
        assert!(!text.contains("PASSWORD:-ticketd"), "{name}");
    }
    let ticketd = &services["ticketd-tls"];
    let database = value(ticketd, "DATABASE_URL");
    assert!(database.contains("@postgres-tls:5432/"), "{database}");
    assert!(database.ends_with("?sslmode=verify-full&sslrootcert=/etc/ticketd/ca.pem"));
    let broker = value(ticketd, "AMQP_URL");
    assert!(broker.starts_with("amqps://") && broker.contains("@rabbitmq-tls:5671/"));
    let hba = include_str!("../../deploy/conf/pg_hba-tls.conf");
    assert_eq!(lines(hba, "hostssl ").count(), 1, "{hba}");
    assert!(!hba.lines().any(|line| line.starts_with("host ")), "{hba}");
    let rabbitmq = include_str!("../../deploy/conf/rabbitmq-tls.conf");
    assert_eq!(
        lines(rabbitmq, "listeners.tcp = ").collect::<Vec<_>>(),
        ["none"]
    );
}

/// The queue of dead letters is bounded wherever RabbitMQ is ours, as the reference says: looks for the
/// policy in the compose file, in the private server's script and in the document.
#[test]
fn dead_letters_are_bounded_everywhere() {
    let reference = include_str!("../../docs/reference/rabbitmq.md");
    let command = lines(
        reference,
        "rabbitmqctl set_policy --apply-to queues dead-letters ",
    );
    let [command] = command.collect::<Vec<_>>()[..] else {
        panic!("the command once");
    };
    let (pattern, limits) = command.split_once(' ').unwrap();
    let limits = limits.trim_matches('\'');
    assert_eq!(
        lines(COMPOSE, "  ").filter(|line| *line == limits).count(),
        1
    );
    let applied = format!("{}, *dead-letters]", pattern.replace("$'", "$$'"));
    assert_eq!(COMPOSE.matches(&applied).count(), 2, "{applied}");
    let stack = include_str!("../../deploy/stack/rabbitmq.sh");
    assert!(stack.contains(&format!("='{limits}'\n")), "{limits}");
}

/// The profile `observability` is for this host alone, and its parts find each other: reads its services
/// and their settings.
#[test]
fn the_profile_observability_is_provisioned() {
    let services = services();
    for (name, port) in [("prometheus", "9090"), ("grafana", "3000")] {
        let lines = &services[name];
        assert!(lines.contains(&"profiles: [observability]"), "{name}");
        let published: Vec<_> = lines
            .iter()
            .filter(|line| {
                line.starts_with("- \"127.0.0.1:") && line.ends_with(&format!(":{port}\""))
            })
            .collect();
        assert_eq!(published.len(), 1, "{name}");
    }
    let scraped = include_str!("../../deploy/prometheus/prometheus.yml");
    assert!(scraped.contains("[\"ticketd:8080\"]") && services.contains_key("ticketd"));
    let source = include_str!("../../deploy/grafana/datasource.yml");
    assert!(source.contains("url: http://prometheus:9090\n"));
    let dashboards = include_str!("../../deploy/grafana/dashboards.yml");
    let (_, path) = dashboards.split_once("path: ").unwrap();
    let (folder, _) = path.split_once('}').unwrap();
    let copied = format!("deploy/grafana/ticketd.json {folder}/ticketd.json");
    assert!(lines(DOCKERFILE, "COPY ").any(|copy| copy.ends_with(&copied)));
}

/// The profile `demo` sends made-up tickets to the plain installation, and is reached by nobody: reads its
/// service, and has the command that is in it send none.
#[tokio::test]
async fn the_profile_demo_sends_made_up_tickets() {
    let services = services();
    let demo = &services["demo"];
    assert!(demo.contains(&"profiles: [demo]") && !demo.contains(&"ports:"));
    let command: Vec<String> = serde_json::from_str(value(demo, "command")).unwrap();
    let mut command: Vec<_> = command.iter().map(String::as_str).collect();
    assert!(command.contains(&"http://ticketd:8080") && services.contains_key("ticketd"));
    command.extend(["--count", "0"]);
    let ended = Process::run(TICKETD, &command, &[("PORT", "8080")]).await;
    assert_eq!(ended.text(), "0 tickets accepted\n", "{}", ended.log);
}

/// What deploy/compose_tls.sh makes, beside what is on this machine. It goes with the value.
struct Hardened {
    folder: PathBuf,
}

impl Hardened {
    /// With the private servers' CA beside the new one, and one source.
    fn new(token: &str) -> Self {
        let name = format!("ticketd-compose-{}", uuid::Uuid::now_v7());
        let made = Self {
            folder: std::env::temp_dir().join(name),
        };
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/compose_tls.sh");
        let mut script = Command::new(script);
        let output = script.arg(&made.folder).arg("localhost").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let ca = |path: &Path| fs::read_to_string(path).unwrap();
        let both = ca(&made.ca()) + &ca(stack_certificate("ca.pem").as_ref());
        made.write("ca.pem", &both);
        made.write("credentials", &format!("shop bearer {token}\n"));
        made
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder.join("ticketd").join(name);
        // One that is there cannot be written to.
        fs::remove_file(&path).ok();
        fs::write(path, text).unwrap();
    }

    fn ca(&self) -> PathBuf {
        self.folder.join("ca/ca.pem")
    }

    /// A setting of the profile, with this folder in the place of the mounted one.
    fn setting(&self, name: &str) -> String {
        let own = format!("{}/", self.folder.join("ticketd").display());
        value(&services()["ticketd-tls"], name).replace("/etc/ticketd/", &own)
    }
}

impl Drop for Hardened {
    fn drop(&mut self) {
        // What is left behind is in the folder for such things.
        let _removed = fs::remove_dir_all(&self.folder);
    }
}

/// With what deploy/compose_tls.sh makes, the settings of the profile `tls` take a ticket by HTTPS
/// from who has a token, and from nobody else: runs both, on the private servers.
#[tokio::test]
async fn the_profile_tls_takes_tickets() {
    let namespace = Namespace::new(TICKETD).await;
    let token = "t".repeat(40);
    let made = Hardened::new(&token);
    let database = made.setting("DATABASE_URL");
    let (_, options) = database.split_once('?').unwrap();
    let database = namespace.database_url().replace("127.0.0.1", "localhost");
    let mut settings = vec![
        ("ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
        ("DATABASE_URL", database.replace("sslmode=disable", options)),
        ("AMQP_URL", amqps_url()),
    ];
    assert!(settings[1].1.contains("verify-full"), "{settings:?}");
    let files = ["TLS_CERT", "TLS_KEY", "CREDENTIALS_FILE", "AMQP_TLS_CA"];
    settings.extend(files.map(|name| (name, made.setting(name))));
    let settings: Vec<_> = settings
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let mut ticketd = namespace.start("serve", &settings);
    ticketd.logged("publishing to RabbitMQ").await;
    ticketd.logged("storing in PostgreSQL").await;
    let port = ticketd.address("LISTEN").await.port();
    let (url, ca) = (format!("https://localhost:{port}/ticket"), made.ca());
    let mine = format!("authorization: Bearer {token}");
    let status = ["--output", "/dev/null", "--write-out", "%{http_code}"];
    for (header, expected) in [(mine.as_str(), "202"), ("x: y", "401")] {
        let ca = ca.to_str().unwrap();
        let post = ["--cacert", ca, "--header", header, "--data-binary", EXAMPLE];
        let curled = curl(&[&status[..], &post, &[&url]].concat()).await;
        assert_eq!(curled.out, expected, "{header}");
    }
    namespace.stored(1).await;
}
