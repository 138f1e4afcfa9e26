//! docs/reference/settings.md against the built binary.

use std::collections::{BTreeMap, BTreeSet};

use super::{NO_SETTINGS, codes, rows_of};
use ticketd_testing::*;

use crate::TICKETD;

/// A command, its setting, and the setting's default.
type Setting = (String, String, String);

/// Each setting of each command is in the page with its default, and the page has no other: compares
/// the page with what `--help` of each command says.
#[tokio::test]
async fn every_setting_is_in_the_reference() {
    let rows = rows_of("commands", "command").into_iter();
    let commands = rows.map(|row| codes(&row[0])[0].split(' ').next().unwrap().to_owned());
    let mut real = BTreeSet::new();
    for command in commands.collect::<BTreeSet<_>>() {
        let help = Process::run(TICKETD, &[&command, "--help"], NO_SETTINGS).await;
        real.extend(settings(&command, help.text()));
    }
    let documented: BTreeSet<_> = documented().collect();
    let missing: Vec<_> = real.difference(&documented).collect();
    let made_up: Vec<_> = documented.difference(&real).collect();
    assert!(
        missing.is_empty() && made_up.is_empty(),
        "missing: {missing:#?}\nmade up: {made_up:#?}"
    );
}

/// The defaults of the page are what counts where nothing is set: compares them with what `config` shows
/// of each command that it takes.
#[tokio::test]
async fn every_default_in_the_reference_counts() {
    let database = [("DATABASE_URL", "postgres://db/x")];
    let commands = ["serve", "accept", "consume", "migrate", "healthcheck"];
    for command in commands {
        let settings = if command == "accept" {
            &database[..0]
        } else {
            &database
        };
        let shown = Process::run(TICKETD, &["config", command], settings).await;
        for (_, name, default) in documented().filter(|(of, ..)| of == command) {
            let value = default.replace("{QUEUE}", "tickets");
            let line = format!("{name}\t{value}\tdefault\n");
            let is_required = value == "required";
            assert!(
                is_required || shown.text().contains(&line),
                "{command} {line}"
            );
        }
    }
}

/// A setting's bounds are those of the page, and each amount has some: gives each the values at its
/// bounds, and those beyond.
#[tokio::test]
async fn every_bound_in_the_reference_holds() {
    for row in rows_of("settings", "setting") {
        let (name, default, bounds) = (codes(&row[0])[0], &row[1], &row[2]);
        let command = row[3].split(", ").next().unwrap();
        let takes = async |value: &str| takes(command, name, value).await;
        match (codes(bounds)[..].as_ref(), bounds.contains("` to `")) {
            ([least, most], true) => {
                assert!(takes(least).await && takes(most).await, "{name} {bounds}");
                assert!(!takes(&beyond(most, 1)).await, "{name} above {most}");
                let below = beyond(least, -1);
                assert!(
                    below.starts_with('-') || !takes(&below).await,
                    "{name} below {least}"
                );
            }
            (values, false) => {
                for value in values {
                    assert!(takes(value).await, "{name} {value}");
                }
                assert!(values.is_empty() || !takes("x").await, "{name}");
                assert!(!is_amount(default), "{name} has no bounds");
            }
            _ => panic!("{name}: {bounds}"),
        }
    }
}

/// A role's settings with their defaults, as its help has them.
pub(super) async fn known(role: &str) -> BTreeMap<String, String> {
    let help = Process::run(TICKETD, &[role, "--help"], NO_SETTINGS).await;
    let known = settings(role, help.text()).into_iter();
    known.map(|(_, name, default)| (name, default)).collect()
}

/// What `--help` of a command tells of its settings.
fn settings(command: &str, help: &str) -> Vec<Setting> {
    let (usage, options) = help.split_once("Options:\n").expect("options");
    let mut settings = Vec::new();
    for option in options
        .split("\n      --")
        .map(|text| text.trim_start_matches([' ', '-']))
    {
        let text = option.split_whitespace().collect::<Vec<_>>().join(" ");
        let Some((_, variable)) = text.split_once("[env: ") else {
            continue;
        };
        let (variable, _) = variable.split_once(['=', ']']).unwrap();
        let flag = text.split(' ').next().unwrap();
        assert_eq!(flag, flag_of(variable), "{command}: flag and variable");
        let default = match text.rsplit_once("[default: ") {
            _ if usage.contains(&format!("--{flag} <")) => "required",
            Some((_, default)) => default.split_once(']').unwrap().0,
            None => "none",
        };
        settings.push((command.into(), variable.into(), default.into()));
    }
    assert!(!settings.is_empty(), "{command}");
    settings
}

/// What the page tells of them.
fn documented() -> impl Iterator<Item = Setting> {
    rows_of("settings", "setting").into_iter().flat_map(|row| {
        let default = row[1].replace('`', "");
        let commands = row[3].split(", ").map(str::to_owned).collect::<Vec<_>>();
        let name = codes(&row[0])[0].to_owned();
        let setting = move |command| (command, name.clone(), default.clone());
        commands.into_iter().map(setting)
    })
}

fn flag_of(variable: &str) -> String {
    // So are those of a ticketd elsewhere called, whose variables say whose URL it is.
    let name = variable.strip_prefix("TICKETD_").unwrap_or(variable);
    name.to_lowercase().replace('_', "-")
}

/// Whether a command takes that value: what is wrong is told before the help that is asked for.
async fn takes(command: &str, name: &str, value: &str) -> bool {
    let flag = format!("--{}={value}", flag_of(name));
    let ended = Process::run(TICKETD, &[command, &flag, "--help"], NO_SETTINGS).await;
    ended.code() == Some(0)
}

/// A number, or one with a unit, and that much more.
fn beyond(bound: &str, more: i64) -> String {
    let digits = bound.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = bound.split_at(digits.unwrap_or(bound.len()));
    format!("{}{unit}", number.parse::<i64>().unwrap() + more)
}

/// Whether a default is a number or a duration, and not an address.
fn is_amount(default: &str) -> bool {
    let text = default.trim_matches('`');
    text.starts_with(|c: char| c.is_ascii_digit()) && !text.contains('.')
}
