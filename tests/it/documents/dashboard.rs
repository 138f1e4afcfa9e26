//! deploy/grafana/ticketd.json, as far as it can be read without a Prometheus.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use super::root;

/// The columns of a dashboard.
const COLUMNS: u64 = 24;

/// The dashboard.
pub(crate) fn dashboard() -> Value {
    let text = fs::read_to_string(root().join("deploy/grafana/ticketd.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Its panels, without the rows' headings.
pub(crate) fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    panels.filter(|panel| panel["type"] != "row")
}

/// Each panel says what it shows, in a unit, and asks for something.
#[test]
fn every_panel_is_described() {
    for panel in panels(&dashboard()) {
        let title = panel["title"].as_str().unwrap();
        let says = |text: &Value| text.as_str().is_some_and(|text| !text.is_empty());
        assert!(says(&panel["description"]), "{title} has no description");
        let unit = &panel["fieldConfig"]["defaults"]["unit"];
        assert!(says(unit), "{title} has no unit");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title} asks for nothing");
        assert!(targets.iter().all(|target| says(&target["expr"])));
    }
}

/// No two panels have one id, and none covers another or leaves the page.
#[test]
fn panels_do_not_overlap() {
    let dashboard = dashboard();
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let at = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        let (x, y) = (at("x"), at("y"));
        assert!(x + at("w") <= COLUMNS, "{panel}");
        for column in x..x + at("w") {
            for line in y..y + at("h") {
                assert!(taken.insert((column, line)), "{panel}");
            }
        }
    }
}
