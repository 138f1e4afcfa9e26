//! deploy/systemd: the units and their settings are the binary's. `make lint` has systemd read them.

use std::time::Duration;

use ticketd_testing::*;

use super::settings::known;
use crate::TICKETD;

const SERVE: &str = include_str!("../../../deploy/systemd/ticketd.service");
const ACCEPT: &str = include_str!("../../../deploy/systemd/ticketd-accept.service");
const CONSUME: &str = include_str!("../../../deploy/systemd/ticketd-consume.service");

/// Each role, its unit, and the settings that are its own.
const UNITS: [(&str, &str, &str); 3] = [
    (
        "serve",
        SERVE,
        include_str!("../../../deploy/systemd/serve.env"),
    ),
    (
        "accept",
        ACCEPT,
        include_str!("../../../deploy/systemd/accept.env"),
    ),
    (
        "consume",
        CONSUME,
        include_str!("../../../deploy/systemd/consume.env"),
    ),
];

/// The settings of all roles.
const COMMON: &str = include_str!("../../../deploy/systemd/ticketd.env");

/// What stands in a unit behind that name, each time.
fn values<'a>(unit: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    unit.lines().filter_map(move |line| {
        let line = line.strip_prefix('#').unwrap_or(line);
        line.strip_prefix(name)?.strip_prefix('=')
    })
}

/// The settings of a file, those that are commented out as well.
fn assignments(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = text
        .lines()
        .map(|line| line.strip_prefix('#').unwrap_or(line));
    let lines = lines.filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()));
    lines
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| !name.contains(' '))
}

/// A unit starts its role, and every setting that it or its files name is one of that role, with the default
/// that is shown; of the common file, of every role.
#[tokio::test]
async fn each_unit_has_settings_of_its_role() {
    for (role, unit, own) in UNITS {
        let known = known(role).await;
        let start: Vec<_> = values(unit, "ExecStart").collect();
        assert_eq!(start, [format!("/usr/bin/ticketd {role}")]);
        let files: Vec<_> = values(unit, "EnvironmentFile").collect();
        let own_file = format!("/etc/ticketd/{role}.env");
        assert_eq!(files, ["/etc/ticketd/ticketd.env", &own_file]);
        for (name, value) in assignments(COMMON).chain(assignments(own)) {
            let default = known.get(name).unwrap_or_else(|| panic!("{role}: {name}"));
            // A default may be told with a condition behind it.
            let is_default = default.split(' ').next() == Some(value);
            assert!(default == "none" || is_default, "{role}: {name}");
        }
        let given = values(unit, "Environment").flat_map(|given| given.split(' '));
        for (name, path) in given.map(|given| given.split_once('=').unwrap()) {
            assert!(known.contains_key(name), "{role}: {name}");
            let file = path.strip_prefix("%d/").expect("a credential");
            let loaded = format!("{file}:/etc/ticketd/secrets/{file}");
            assert!(
                values(unit, "LoadCredential").any(|it| it == loaded),
                "{role}: {file}"
            );
        }
    }
}

/// The three run under the same conditions, and systemd waits for as long as the end may take.
#[tokio::test]
async fn the_units_differ_in_their_roles_alone() {
    let conditions = |unit: &'static str| unit.split_once("\n# How it runs.").unwrap().1;
    assert_eq!(conditions(ACCEPT), conditions(SERVE));
    assert_eq!(conditions(CONSUME), conditions(SERVE));
    let known = known("serve").await;
    let seconds = |text: &str| {
        let number = text.strip_suffix('s').expect("seconds").parse().unwrap();
        Duration::from_secs(number)
    };
    let most = seconds(&known["LAME_DUCK"]) + seconds(&known["SHUTDOWN_GRACE"]);
    let waits = values(SERVE, "TimeoutStopSec").next().unwrap();
    assert!(seconds(waits) >= most + Duration::from_secs(5), "{waits}");
}

/// systemd does not try again what cannot become right: gives a wrong setting, and compares the exit code.
#[tokio::test]
async fn wrong_settings_are_not_tried_again() {
    let ended = Process::run(TICKETD, &["serve"], &[("LISTEN", "nowhere")]).await;
    let code = ended.code().unwrap().to_string();
    let kept = values(SERVE, "RestartPreventExitStatus").next().unwrap();
    assert!(kept.split(' ').any(|kept| kept == code), "{code}");
}
