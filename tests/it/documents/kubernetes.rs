//! deploy/kubernetes: names, ports, waits and settings are the binary's, and those of the servers what deploy/conf
//! says. `make lint` holds the rest against Kubernetes' schemas.

use ticketd_testing::*;

use super::settings::known;
use crate::TICKETD;

const ACCEPT: &str = include_str!("../../../deploy/kubernetes/base/accept.yaml");
const CONSUME: &str = include_str!("../../../deploy/kubernetes/base/consume.yaml");
const MIGRATE: &str = include_str!("../../../deploy/kubernetes/base/migrate.yaml");
const MONITOR: &str = include_str!("../../../deploy/kubernetes/base/monitor.yaml");
const EXAMPLE: &str = include_str!("../../../deploy/kubernetes/example/kustomization.yaml");
const RABBITMQ: &str = include_str!("../../../deploy/kubernetes/servers/rabbitmq.yaml");
const POSTGRES: &str = include_str!("../../../deploy/kubernetes/servers/postgres.yaml");

/// Each command that a pod runs, and the file that says how.
const PODS: [(&str, &str); 3] = [
    ("accept", ACCEPT),
    ("consume", CONSUME),
    ("migrate", MIGRATE),
];

/// The values of a key, wherever it stands.
fn values<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| {
        let line = line.trim_start().trim_start_matches("- ");
        line.strip_prefix(key)?.strip_prefix(": ")
    })
}

fn value<'a>(text: &'a str, key: &'a str) -> &'a str {
    let mut values = values(text, key);
    values.next().unwrap_or_else(|| panic!("{key} is set"))
}

/// The variables that a pod gets: each `name` with a `value` in the line below it.
fn environment(pod: &str) -> Vec<(&str, &str)> {
    let lines: Vec<_> = pod.lines().map(str::trim).collect();
    let pairs = lines.windows(2).filter_map(|pair| {
        let name = pair[0].strip_prefix("- name: ")?;
        Some((name, pair[1].strip_prefix("value: ")?))
    });
    pairs.collect()
}

fn number(text: &str, key: &str) -> u64 {
    value(text, key).parse().expect("a number")
}

fn seconds(duration: &str) -> u64 {
    duration
        .strip_suffix('s')
        .expect("seconds")
        .parse()
        .unwrap()
}

/// The lines of a file of settings that are some, without blanks.
fn lines_of(conf: &str) -> impl Iterator<Item = &str> {
    conf.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Each pod runs a command of this version, with settings that it has, and values that it takes: shows those
/// that name no file, which only a pod has.
#[tokio::test]
async fn every_pod_runs_the_binary_with_settings_that_it_has() {
    let version = env!("CARGO_PKG_VERSION");
    for (command, pod) in PODS {
        assert_eq!(
            value(pod, "image"),
            format!("ticketd:{version}"),
            "{command}"
        );
        assert_eq!(value(pod, "args"), format!("[{command}]"));
        let (given, known) = (environment(pod), known(command).await);
        assert!(given.len() >= 4, "{command}: {given:?}");
        for (name, _) in &given {
            assert!(known.contains_key(*name), "{command}: {name}");
        }
        let is_file = |value: &str| value.starts_with('/');
        let mut tried = given.clone();
        tried.retain(|(name, value)| !is_file(value) && *name != "PGSSLMODE");
        tried.retain(|(_, value)| !value.contains("$("));
        tried.push(("DATABASE_URL", "postgres://db/x"));
        let shown = Process::run(TICKETD, &["config", command], &tried).await;
        assert_eq!(shown.code(), Some(0), "{command}: {}", shown.log);
        for (name, value) in &tried[..tried.len() - 1] {
            let line = format!("{name}\t{value}\t");
            assert!(shown.text().contains(&line), "{command}: {line}");
        }
    }
    assert!(value(MIGRATE, "name").ends_with(version), "{MIGRATE}");
    assert_eq!(value(EXAMPLE, "newTag"), version);
}

/// Each file that a setting names is mounted: looks for its folder among the mounts, and for its name in the
/// volume that is there.
#[test]
fn every_file_is_mounted() {
    for (command, pod) in PODS {
        for (name, path) in environment(pod) {
            let Some((folder, file)) = path.rsplit_once('/').filter(|_| path.starts_with('/'))
            else {
                continue;
            };
            assert!(
                values(pod, "mountPath").any(|mounted| mounted == folder),
                "{command} {name}"
            );
            let volume = folder.strip_prefix("/run/secrets/").unwrap();
            let (_, volume) = pod
                .split_once(&format!("        - name: {volume}\n          secret:"))
                .unwrap();
            let volume = volume.split("        - name: ").next().unwrap();
            // A secret without items is mounted as it is.
            let is_there =
                !volume.contains("items:") || values(volume, "path").any(|it| it == file);
            assert!(is_there, "{command} {name}");
        }
    }
}

/// A pod is killed only after its drain, and gets no new connections before it stops taking them: compares
/// the waits.
#[test]
fn a_pod_has_the_time_to_end() {
    for (command, pod) in [("accept", ACCEPT), ("consume", CONSUME)] {
        let given = environment(pod);
        let given = |name: &str| {
            given
                .iter()
                .find(|(other, _)| *other == name)
                .map(|(_, it)| seconds(it))
        };
        let lame_duck = given("LAME_DUCK").unwrap_or_default();
        let most = lame_duck + given("SHUTDOWN_GRACE").unwrap();
        assert!(
            number(pod, "terminationGracePeriodSeconds") >= most + 5,
            "{command}"
        );
        let (_, readiness) = pod.split_once("readinessProbe:").unwrap();
        let noticed = number(readiness, "periodSeconds") * number(readiness, "failureThreshold");
        assert!(
            command == "consume" || noticed * 2 <= lame_duck,
            "{noticed} s, {lame_duck} s"
        );
    }
}

/// Probes, scrapes and senders come to ports where they are answered: has each role listen there, and asks it.
#[tokio::test]
async fn every_port_and_path_is_answered() {
    for (command, pod) in [("accept", ACCEPT), ("consume", CONSUME)] {
        for (name, setting) in [("http", "LISTEN"), ("admin", "ADMIN_LISTEN")] {
            let given = environment(pod);
            let Some((_, address)) = given.iter().find(|(other, _)| *other == setting) else {
                assert_eq!((command, name), ("consume", "http"));
                continue;
            };
            let (_, port) = pod
                .split_once(&format!("- name: {name}\n              containerPort: "))
                .unwrap();
            assert_eq!(
                address.strip_prefix("0.0.0.0:"),
                port.lines().next(),
                "{command} {name}"
            );
        }
        let away = [
            ("LISTEN", "127.0.0.1:0"),
            ("ADMIN_LISTEN", "127.0.0.1:0"),
            ("AMQP_URL", "amqp://127.0.0.1:1/%2f"),
            ("DATABASE_URL", "postgres://127.0.0.1:1/nothing"),
        ];
        let mut ticketd = Process::start(TICKETD, &[command], &away);
        let mut admin = ticketd.admin().await;
        for path in values(pod, "path").chain(values(MONITOR, "path")) {
            if path.starts_with('/') {
                let status = admin.ask(get(path)).await.status;
                assert!([200, 503].contains(&status), "{command} {path}: {status}");
            }
        }
    }
}

/// More consumers are started by a metric that there is, of the job that the pods are scraped as.
#[test]
fn the_backlogs_age_scales_consumers() {
    let query = value(CONSUME, "query");
    let (metric, _) = query.strip_prefix("max(").unwrap().split_once('{').unwrap();
    let metrics = include_str!("../../../docs/reference/metrics.md");
    assert!(metrics.contains(&format!("`{metric}`")), "{metric}");
    let job = value(MONITOR, "replacement");
    assert!(query.ends_with(&format!("{{job=\"{job}\"}})")), "{query}");
    assert_eq!(number(CONSUME, "minReplicaCount"), 2);
    assert_eq!(number(CONSUME, "maxReplicaCount"), 4);
    assert_eq!(
        value(CONSUME, "metricType"),
        "Value",
        "not a share for each consumer"
    );
}

/// No pod may do more than it has to.
#[test]
fn every_pod_is_hardened() {
    for (command, pod) in PODS {
        for line in [
            "automountServiceAccountToken: false",
            "runAsNonRoot: true",
            "runAsUser: 10001",
            "type: RuntimeDefault",
            "allowPrivilegeEscalation: false",
            "readOnlyRootFilesystem: true",
            "drop: [ALL]",
        ] {
            assert!(pod.lines().any(|it| it.trim() == line), "{command}: {line}");
        }
    }
    let dockerfile = include_str!("../../../Dockerfile");
    assert!(dockerfile.contains("\nUSER 10001:10001\n"));
}

/// The servers are three each, of the versions of the images and with the settings of deploy/conf, and what was
/// confirmed or committed is on two.
#[test]
fn the_servers_are_set_up_as_everywhere() {
    let dockerfile = include_str!("../../../Dockerfile");
    let image = value(RABBITMQ, "image")
        .strip_suffix("-management")
        .unwrap();
    assert!(
        dockerfile.contains(&format!("FROM {image} AS rabbitmq\n")),
        "{image}"
    );
    let settings: Vec<_> = lines_of(RABBITMQ).collect();
    for line in lines_of(include_str!("../../../deploy/conf/rabbitmq.conf")) {
        assert!(settings.contains(&line), "{line}");
    }
    for line in ["replicas: 3", "cluster_partition_handling = pause_minority"] {
        assert!(settings.contains(&line), "{line}");
    }
    for line in lines_of(include_str!("../../../deploy/conf/postgresql.conf")) {
        let (name, set) = line.split_once(" = ").unwrap();
        let set = set.trim_matches('\'');
        // The operator names its clusters itself.
        let is_there = values(POSTGRES, name).any(|it| it.trim_matches('"') == set);
        assert_eq!(is_there, name != "cluster_name", "{line}");
    }
    for line in [
        "instances: 3",
        "method: any",
        "number: 1",
        "dataDurability: required",
        "failoverQuorum: true",
    ] {
        assert!(lines_of(POSTGRES).any(|it| it == line), "{line}");
    }
}
