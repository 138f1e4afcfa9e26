//! The alerts of deploy/prometheus/ against the run-book, their tests, and the table of failures.

use std::collections::BTreeSet;
use std::fs;

use super::{root, tables};

/// What a heading of the run-book says of its alert.
const SAYS: [&str; 3] = ["- **Means:** ", "- **Look at:** ", "- **Do:** "];

/// Each alert has its heading in docs/operating.md, which says what it means, where to look and what
/// to do; there is no other; and the alert names it.
#[test]
fn every_alert_has_its_heading_in_the_run_book() {
    let page = fs::read_to_string(root().join("docs/operating.md")).unwrap();
    let sections = page.split("\n### Ticketd").skip(1);
    let mut headings = BTreeSet::new();
    for section in sections {
        let (name, text) = section.split_once('\n').unwrap();
        let text = text.split("\n#").next().unwrap();
        for says in SAYS {
            assert!(text.contains(&format!("\n{says}")), "Ticketd{name}: {says}");
        }
        headings.insert(format!("Ticketd{name}"));
    }
    let rules = read("ticketd.rules.yml");
    assert_eq!(headings, alerts());
    for alert in alerts() {
        let link = format!("runbook: docs/operating.md#{}\n", alert.to_lowercase());
        assert!(rules.contains(&link), "{link}");
    }
}

/// Each alert is tried by promtool to fire and to stay quiet, and by a fault to fire in Prometheus:
/// looks for it in both tests.
#[test]
fn every_alert_is_tried() {
    let tests = read("rules.test.yml");
    let faults = fs::read_to_string(root().join("tests/it/alerts.rs")).unwrap();
    for alert in alerts() {
        let fires = format!("alertname: {alert}\n        exp_alerts:\n          - ");
        assert!(tests.contains(&fires), "{alert} is not seen to fire");
        let quiet = format!("alertname: {alert}, exp_alerts: []");
        assert!(tests.contains(&quiet), "{alert} is not seen to be quiet");
        let by_fault = format!("fires(\"{alert}\")");
        assert!(faults.contains(&by_fault), "{alert} has no fault");
    }
}

/// Each row of the table of failures leads to an alert, in its last column.
#[test]
fn every_failure_has_its_alert() {
    let tables = tables(&root().join("docs/operating.md")).into_iter();
    let failures = tables.filter(|table| table.section == "When something fails");
    let rows: Vec<_> = failures.flat_map(|table| table.rows).collect();
    assert!(!rows.is_empty());
    for row in rows {
        let last = row.last().unwrap();
        assert!(last.contains("](#ticketd"), "{}", row[0]);
    }
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join("deploy/prometheus").join(file)).unwrap()
}

fn alerts() -> BTreeSet<String> {
    let rules = read("ticketd.rules.yml");
    let names = rules
        .lines()
        .filter_map(|line| line.split_once("- alert: "));
    let alerts: BTreeSet<_> = names.map(|(_, name)| name.to_owned()).collect();
    assert!(!alerts.is_empty());
    alerts
}
