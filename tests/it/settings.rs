//! Where settings come from: files of secrets, the names that platforms use, and `config`, which shows
//! what counts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use ticketd_testing::*;

use crate::TICKETD;

/// What stands for a password: pieces of it are looked for in all that is shown.
const SECRET: &str = "Xq7ZvJ9wKr2Y";

/// The commands that `config` takes.
const COMMANDS: [&str; 5] = ["serve", "accept", "consume", "migrate", "healthcheck"];

/// A file with this content, in a folder of its own that goes with it.
struct TestFile(PathBuf);

impl TestFile {
    fn new(content: impl AsRef<[u8]>) -> Self {
        let name = format!("settings-{}", uuid::Uuid::now_v7());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::write(&path, content).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        let _removed = fs::remove_file(&self.0);
    }
}

/// Nothing has four letters in a row of the password.
fn assert_hidden(ended: &Ended, of: &str) {
    let shown = format!("{}{}", ended.text(), ended.log);
    for piece in SECRET.as_bytes().windows(4) {
        let piece = std::str::from_utf8(piece).unwrap();
        assert!(!shown.contains(piece), "{of} shows {piece}: {shown}");
    }
}

/// What `config` of a command says: each setting's value and origin.
async fn config(args: &[&str], settings: &[(&str, &str)]) -> BTreeMap<String, (String, String)> {
    let ended = Process::run(TICKETD, &[&["config"], args].concat(), settings).await;
    assert_eq!(ended.code(), Some(0), "{args:?}: {}", ended.log);
    assert_hidden(&ended, &args.join(" "));
    let setting = |line: &str| match line.split('\t').collect::<Vec<_>>()[..] {
        [name, value, origin] => (name.to_owned(), (value.to_owned(), origin.to_owned())),
        _ => panic!("{line}"),
    };
    let lines = ended.text().lines();
    let settings: BTreeMap<_, _> = lines.clone().map(setting).collect();
    assert_eq!(settings.len(), lines.count(), "a setting twice");
    settings
}

/// A process starts with its secrets in files, as an orchestrator mounts them, with a line end behind
/// each: has a ticket stored.
#[tokio::test]
async fn secrets_are_read_from_files() {
    let namespace = Namespace::new(TICKETD).await;
    let database = TestFile::new(format!("{}\n", namespace.database_url()));
    let broker = namespace.amqp_url();
    let broker = TestFile::new(format!("{broker},{broker}\r\n"));
    let files = [
        ("DATABASE_URL_FILE", database.path()),
        ("AMQP_URL_FILE", broker.path()),
    ];
    let settings = namespace.settings("serve", &[]).into_iter();
    let settings = settings.filter(|(name, _)| !["DATABASE_URL", "AMQP_URL"].contains(name));
    let files = files.map(|(name, path)| (name, path.to_owned()));
    let settings: Vec<_> = settings.chain(files).collect();
    let mut ticketd = Process::start(TICKETD, &["serve"], &settings);
    ticketd.ready().await;
    let id = namespace
        .accepted(&mut ticketd.client().await, &[], EXAMPLE)
        .await;
    namespace.row(id).await;
    ticketd.drained().await;
}

/// A secret's file that cannot be used stops the start with the names of the setting and of the file,
/// and with nothing of what is in it: gives each such file for each secret.
#[tokio::test]
async fn a_wrong_file_is_named_and_not_shown() {
    let files = [
        (TestFile::new(""), "it is empty"),
        (TestFile::new("\n"), "it is empty"),
        (
            TestFile::new([SECRET.as_bytes(), b"\xff"].concat()),
            "it is not UTF-8",
        ),
        (
            TestFile::new(SECRET.repeat(10_000)),
            "more than 65536 bytes",
        ),
    ];
    let files = files.iter().map(|(file, why)| (file.path(), *why));
    let others = [("/nothing/there", "No such file"), ("/tmp", "directory")];
    let files: Vec<_> = files.chain(others).collect();
    for (role, name) in secrets().await {
        let name = format!("{name}_FILE");
        for (path, why) in &files {
            let ended = Process::run(TICKETD, &[&role], &[(&name, path)]).await;
            assert_eq!(ended.code(), Some(2), "{name} {path}: {}", ended.log);
            for part in [&*name, path, why] {
                assert!(ended.log.contains(part), "{part}: {}", ended.log);
            }
            assert_hidden(&ended, path);
        }
        let url = format!("postgres://till:{SECRET}@db/x");
        let ended = Process::run(TICKETD, &[&role], &[(&name, &url)]).await;
        assert_eq!(ended.code(), Some(2), "{name}: {}", ended.log);
        assert_hidden(&ended, "a secret for a name");
    }
}

/// A secret that is given twice stops the start, by whichever way, with both names: gives each secret
/// and its file.
#[tokio::test]
async fn a_secret_and_its_file_are_not_both_taken() {
    let file = TestFile::new(format!("amqp://till:{SECRET}@rabbit/%2f"));
    for (role, name) in secrets().await {
        let scheme = if name == "DATABASE_URL" {
            "postgres"
        } else {
            "amqp"
        };
        let url = format!("{scheme}://till:{SECRET}@rabbit/x");
        let other = format!("{name}_FILE");
        let flag = |name: &str| format!("--{}", name.to_lowercase().replace('_', "-"));
        let (by_flag, by_other) = (
            format!("{}={url}", flag(&name)),
            format!("{}={}", flag(&other), file.path()),
        );
        let (own, its) = ((&*name, &*url), (&*other, file.path()));
        for (args, settings) in [
            (vec![&*role], vec![own, its]),
            (vec![&*role, &by_flag], vec![its]),
            (vec![&*role, &by_other], vec![own]),
            (vec![&*role, &by_other, &by_flag], vec![]),
        ] {
            let ended = Process::run(TICKETD, &args, &settings).await;
            assert_eq!(ended.code(), Some(2), "{name}: {}", ended.log);
            let both = format!("{name} and {other} are both set");
            assert!(ended.log.contains(&both), "{}", ended.log);
            assert_hidden(&ended, &name);
        }
    }
}

/// The secrets that have a file, each with a command: those that `config` finds a name for. CREDENTIALS
/// has a file of its own kind, which is read again.
async fn secrets() -> Vec<(String, String)> {
    let shown = config(&["accept"], &[]).await;
    let files = shown.keys().filter_map(|name| name.strip_suffix("_FILE"));
    let files = files.filter(|name| *name != "CREDENTIALS");
    let hidden = ["RABBITMQ_URL", "CLOUDAMQP_URL"].map(str::to_owned);
    let secrets: Vec<_> = files.map(str::to_owned).chain(hidden).collect();
    assert!(secrets.len() >= 4, "{secrets:?}");
    secrets
        .into_iter()
        .map(|name| ("accept".into(), name))
        .collect()
}

/// Where LISTEN is not set, the port is the one that a platform sets, on every address: starts with
/// it, and with both.
#[tokio::test]
async fn a_platforms_port_is_listened_on() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let port = port.to_string();
    let mut ticketd = Process::start(TICKETD, &["accept"], &[("PORT", &*port)]);
    let address = ticketd.address("LISTEN").await;
    assert_eq!(address.to_string(), format!("0.0.0.0:{port}"));
    let asked = Process::run(TICKETD, &["healthcheck"], &[("PORT", &*port)]).await;
    assert_eq!(asked.code(), Some(0), "{}", asked.log);

    let both = [("PORT", &*port), ("LISTEN", "127.0.0.1:9")];
    let listen = config(&["accept"], &both).await.remove("LISTEN");
    let own = ("127.0.0.1:9".to_owned(), "environment LISTEN".to_owned());
    assert_eq!(listen, Some(own));
    for wrong in ["0", "65536", "http", ""] {
        let ended = Process::run(TICKETD, &["accept"], &[("PORT", wrong)]).await;
        assert_eq!(ended.code(), Some(2), "{wrong}: {}", ended.log);
        assert!(ended.log.contains("--port"), "{}", ended.log);
    }
}

/// RabbitMQ's URL is taken under the names that others have for it, its own first, each also from a
/// file: sets more and more of them.
#[tokio::test]
async fn the_brokers_url_has_other_names() {
    let url = |host: &str| format!("amqp://till:{SECRET}@{host}/v");
    let file = TestFile::new(url("filed"));
    let from_file = format!("file {} (environment RABBITMQ_URL_FILE)", file.path());
    let (cloud, rabbit) = (url("cloud"), url("rabbit"));
    let own = [url("own"), url("second")].join(",");
    let steps = [
        (
            ("CLOUDAMQP_URL", &*cloud),
            "cloud",
            "environment CLOUDAMQP_URL",
        ),
        (("RABBITMQ_URL_FILE", file.path()), "filed", &from_file),
        (
            ("RABBITMQ_URL", &*rabbit),
            "rabbit",
            "environment RABBITMQ_URL",
        ),
        (
            ("AMQP_URL", &*own),
            "own:5672/v,amqp://till:***@second",
            "environment AMQP_URL",
        ),
    ];
    let mut settings = Vec::new();
    for (setting, host, origin) in steps {
        settings.retain(|(name, _)| *name != "RABBITMQ_URL_FILE");
        settings.push(setting);
        let shown = config(&["accept"], &settings).await.remove("AMQP_URL");
        let value = format!("amqp://till:***@{host}:5672/v");
        assert_eq!(shown, Some((value, origin.to_owned())));
    }
}

/// `config` shows every setting that `--help` of the command has, and no secret of any: sets each one
/// that holds a secret.
#[tokio::test]
async fn every_setting_is_shown() {
    let database = format!("postgres://till:{SECRET}@db/x?sslmode=require");
    let broker = format!("amqp://till:{SECRET}@rabbit/%2f");
    let credentials = format!("shop bearer tkd_{}", SECRET.repeat(4));
    let secrets = [
        ("DATABASE_URL", &*database),
        ("AMQP_URL", &broker),
        ("RABBITMQ_URL", &broker),
        ("CLOUDAMQP_URL", &broker),
        ("CREDENTIALS", &credentials),
        // By mistake.
        ("QUEUE", &broker),
    ];
    for command in COMMANDS {
        let help = Process::run::<&str>(TICKETD, &[command, "--help"], &[]).await;
        let names = help.text().split("[env: ").skip(1);
        let names = names.map(|rest| rest.split(['=', ']']).next().unwrap().to_owned());
        let mut names: BTreeSet<_> = names.collect();
        let shown = config(&[command], &secrets).await;
        if shown.contains_key("AMQP_URL") {
            names.extend(["RABBITMQ_URL", "CLOUDAMQP_URL"].map(str::to_owned));
        }
        assert_eq!(
            shown.keys().cloned().collect::<BTreeSet<_>>(),
            names,
            "{command}"
        );
        for (name, value) in secrets {
            let Some((shown, origin)) = shown.get(name) else {
                continue;
            };
            assert_ne!(shown, value, "{name}");
            assert!(shown.contains("***"), "{name}: {shown}");
            assert_eq!(*origin, format!("environment {name}"));
        }
    }
}

/// Each value comes with its origin: sets settings in each way.
#[tokio::test]
async fn values_are_shown_with_their_origin() {
    let file = TestFile::new("host=db,other user=till password=Xq7ZvJ9wKr2Y dbname=x port=1,2");
    let args = ["consume", "--prefetch=7", "--queue", "till"];
    let settings = [("DATABASE_URL_FILE", file.path()), ("WRITERS", "2")];
    let shown = config(&args, &settings).await;
    let from_file = format!("file {} (environment DATABASE_URL_FILE)", file.path());
    for (name, value, origin) in [
        ("PREFETCH", "7", "flag --prefetch"),
        ("WRITERS", "2", "environment WRITERS"),
        (
            "DATABASE_URL",
            "postgres://till:***@db:1,other:2/x",
            &*from_file,
        ),
        ("BATCH_AGE", "40ms", "default"),
        ("QUEUE", "till", "flag --queue"),
        ("UNROUTED_QUEUE", "till.unrouted", "default"),
        ("EXCHANGE", "till", "default"),
        ("AMQP_URL", "amqp://127.0.0.1:5672/%2f", "default"),
        ("TLS_CERT", "none", "default"),
    ] {
        assert_eq!(shown[name], (value.to_owned(), origin.to_owned()), "{name}");
    }
}

/// Wrong settings are told by `config` as by the command itself: compares what both say.
#[tokio::test]
async fn wrong_settings_are_told_as_by_the_command() {
    let url = format!("postgres://till:{SECRET}@db:x/x");
    for (args, settings) in [
        (vec!["consume"], vec![]),
        (vec!["consume", "--prefetch=0"], vec![]),
        (vec!["consume"], vec![("DATABASE_URL", &*url)]),
        (vec!["migrate", "now"], vec![]),
        (vec!["accept"], vec![("AMQP_TLS_CA", "/ca")]),
        (vec!["accept"], vec![("TLS_CERT", "/cert")]),
        (vec!["accept"], vec![("AMQP_URL_FILE", "/nothing")]),
    ] {
        let own = Process::run(TICKETD, &args, &settings).await;
        let shown = Process::run(TICKETD, &[&["config"], &*args].concat(), &settings).await;
        assert_eq!((own.code(), shown.code()), (Some(2), Some(2)), "{args:?}");
        let (own, shown) = (own.log, shown.log.replace("ticketd config ", "ticketd "));
        assert_eq!(own, shown);
        assert!(own.len() > 40, "{own}");
    }
}

/// So are files that cannot be used, after the settings: gives wrong ones, and none that is wrong.
#[tokio::test]
async fn wrong_files_are_told_as_by_the_command() {
    let wrong = TestFile::new(format!("shop bearer {SECRET}"));
    let urls = [
        ("AMQP_URL", "amqps://127.0.0.1:1"),
        ("DATABASE_URL", "host=127.0.0.1 port=1 sslmode=verify-full"),
    ];
    let certificate = [("TLS_CERT", wrong.path()), ("TLS_KEY", wrong.path())];
    for (role, more) in [
        ("accept", vec![("CREDENTIALS_FILE", wrong.path())]),
        ("serve", vec![("CREDENTIALS_FILE", "/nothing/there")]),
        ("serve", certificate.to_vec()),
        ("consume", certificate.to_vec()),
        ("consume", vec![("PGSSLROOTCERT", "/nothing/there")]),
        ("accept", vec![("PGSSLROOTCERT", "/nothing/there")]),
        ("migrate", vec![("PGSSLROOTCERT", "/nothing/there")]),
        ("accept", vec![("AMQP_TLS_CA", wrong.path())]),
    ] {
        let settings = [&urls[..], &more].concat();
        let own = Process::run(TICKETD, &[role], &settings).await;
        let shown = Process::run(TICKETD, &["config", role], &settings).await;
        assert_eq!(
            (own.code(), shown.code()),
            (Some(1), Some(1)),
            "{role} {more:?}"
        );
        let error = |ended: &Ended| {
            let line = ended.log.lines().last().unwrap_or_default().to_owned();
            line.split_once("ERROR ").map(|(_, error)| error.to_owned())
        };
        assert!(error(&own).is_some_and(|error| !error.is_empty()));
        assert_eq!(error(&own), error(&shown), "{role} {more:?}");
        assert!(shown.text().contains(more[0].0), "{}", shown.text());
        assert_hidden(&shown, role);
    }
}
