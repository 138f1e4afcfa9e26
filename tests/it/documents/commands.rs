//! docs/reference/commands.md against the built binary.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use super::{NO_SETTINGS, codes, rows_of};
use ticketd_testing::*;

use crate::TICKETD;

/// Every command, and every action of one, is in the page, and the page has no other:
/// compares it with what `--help` lists.
#[tokio::test]
async fn every_command_is_in_the_reference() {
    let mut real = listed(&["--help"]).await;
    for command in ["credential", "dead", "partitions"] {
        real.remove(command);
        let actions = listed(&[command, "--help"]).await;
        real.extend(
            actions
                .into_iter()
                .map(|action| format!("{command} {action}")),
        );
    }
    let rows = rows_of("commands", "command").into_iter();
    // Arguments are written in capitals.
    let is_name = |word: &&str| word.starts_with(|c: char| c.is_lowercase());
    let name = |row: Vec<String>| {
        let words: Vec<_> = codes(&row[0])[0].split(' ').filter(is_name).collect();
        words.join(" ")
    };
    assert_eq!(real, rows.map(name).collect::<BTreeSet<_>>());
}

/// Each exit code comes of what the page says, and the page has no other: provokes each.
#[tokio::test]
async fn every_exit_code_is_in_the_reference() {
    let valid = sample("valid/example.txt");
    let valid = valid.to_str().unwrap();
    let code = async |args: &[&str]| Process::run(TICKETD, args, NO_SETTINGS).await.code();
    let mut codes = BTreeSet::new();
    for (args, expected) in [
        (&["check", valid][..], 0),
        (&["check", "/nothing"], 1),
        (
            &[
                "healthcheck",
                "--listen=127.0.0.1:1",
                "--admin-listen=127.0.0.1:1",
            ],
            1,
        ),
        (&["check"], 2),
        (&["accept", "--prefetch=1"], 2),
    ] {
        assert_eq!(code(args).await, Some(expected), "{args:?}");
        codes.insert(expected.to_string());
    }
    assert_eq!(without_a_reader(&["check", valid]), Some(141));
    codes.insert("141".into());
    let rows = rows_of("commands", "exit code").into_iter();
    assert_eq!(codes, rows.map(|row| row[0].clone()).collect());
}

/// The names that a help text lists.
async fn listed(args: &[&str]) -> BTreeSet<String> {
    let help = Process::run(TICKETD, args, NO_SETTINGS).await;
    let (_, commands) = help.text().split_once("Commands:\n").expect("commands");
    let names = commands.lines().take_while(|line| !line.is_empty());
    let names = names.filter_map(|line| line.split_whitespace().next());
    names
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

/// The exit code of a command whose standard output nobody reads.
fn without_a_reader(args: &[&str]) -> Option<i32> {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(TICKETD);
    let status = command
        .args(args)
        .stdin(Stdio::null())
        .stdout(writer)
        .status();
    status.unwrap().code()
}
