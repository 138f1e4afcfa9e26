//! `config`, which shows what settings count, and where they come from.

use std::collections::{BTreeMap, BTreeSet};

use ticketd_testing::*;

use crate::TICKETD;

/// What stands for a password: pieces of it are looked for in all that is shown.
const SECRET: &str = "Xq7ZvJ9wKr2Y";

/// The commands that `config` takes.
const COMMANDS: [&str; 5] = ["serve", "accept", "consume", "migrate", "healthcheck"];

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
            names.insert("RABBITMQ_URL".to_owned());
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
    let database = "host=db,other user=till password=Xq7ZvJ9wKr2Y dbname=x port=1,2";
    let args = ["consume", "--prefetch=7", "--queue", "till"];
    let settings = [("DATABASE_URL", database), ("WRITERS", "2")];
    let shown = config(&args, &settings).await;
    for (name, value, origin) in [
        ("PREFETCH", "7", "flag --prefetch"),
        ("WRITERS", "2", "environment WRITERS"),
        (
            "DATABASE_URL",
            "postgres://till:***@db:1,other:2/x",
            "environment DATABASE_URL",
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
    ] {
        let own = Process::run(TICKETD, &args, &settings).await;
        let shown = Process::run(TICKETD, &[&["config"], &*args].concat(), &settings).await;
        assert_eq!((own.code(), shown.code()), (Some(2), Some(2)), "{args:?}");
        let (own, shown) = (own.log, shown.log.replace("ticketd config ", "ticketd "));
        assert_eq!(own, shown);
        assert!(own.len() > 40, "{own}");
    }
}
