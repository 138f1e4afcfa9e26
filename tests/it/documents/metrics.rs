//! docs/reference/metrics.md against what running processes serve.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::{codes, root, rows_of};
use ticketd_testing::*;

use crate::TICKETD;
use crate::senders::LINES;

/// What is known of a metric.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Metric {
    kind: String,
    /// The values of each label.
    labels: BTreeMap<String, BTreeSet<String>>,
}

type Metrics = BTreeMap<String, Metric>;

/// Each role serves the metrics that the page gives it, of their types, and no other: reads /metrics
/// of each.
#[tokio::test]
async fn every_metric_of_each_role_is_in_the_reference() {
    let namespace = Namespace::new(TICKETD).await;
    for role in ["serve", "accept", "consume"] {
        let kinds = |metrics: Metrics| -> BTreeMap<String, String> {
            let kind = |(name, metric): (String, Metric)| (name, metric.kind);
            metrics.into_iter().map(kind).collect()
        };
        let served = metrics(&scrape(&namespace, role).await);
        assert_eq!(kinds(served), kinds(documented(Some(role))), "{role}");
    }
}

/// Both roles together have all the labels that the page names, with all their values, and the
/// buckets: reads /metrics of `serve`.
#[tokio::test]
async fn every_label_and_bucket_is_in_the_reference() {
    let namespace = Namespace::new(TICKETD).await;
    let text = scrape(&namespace, "serve").await;
    let mut served = metrics(&text);
    for (name, label) in [
        ("ticketd_build_info", "version"),
        ("ticketd_build_info", "revision"),
        ("ticketd_source_accepted_total", "source"),
        ("ticketd_source_rejected_total", "source"),
        ("ticketd_last_ticket_timestamp_seconds", "source"),
    ] {
        let metric = served.get_mut(name).unwrap();
        metric.labels.insert(label.into(), BTreeSet::new());
    }
    assert_eq!(served, documented(None));
    let page = fs::read_to_string(root().join("docs/reference/metrics.md")).unwrap();
    let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
    for name in [
        "ticketd_end_to_end_seconds",
        "ticketd_batch_rows",
        "ticketd_publish_group_size",
    ] {
        let buckets = buckets(&text, name).join(", ");
        assert!(page.contains(&format!(": {buckets}.")), "{name}: {buckets}");
    }
}

/// /metrics of a process of that role.
async fn scrape(namespace: &Namespace, role: &str) -> String {
    let mut settings = vec![("ADMIN_LISTEN", "127.0.0.1:0")];
    if role != "consume" {
        settings.push(("CREDENTIALS", LINES));
    }
    let mut ticketd = namespace.ready(role, &settings).await;
    let answer = ticketd.admin().await.ask(get("/metrics")).await;
    answer.text().to_owned()
}

/// The metrics in a text of Prometheus' format. What a histogram is made of counts as the histogram.
fn metrics(text: &str) -> Metrics {
    let mut metrics = Metrics::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        metrics.entry(name.into()).or_default().kind = kind.into();
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, labels)) = line.split_once('{') else {
            continue;
        };
        let suffixes = ["_bucket", "_sum", "_count"];
        let base = suffixes
            .iter()
            .find_map(|suffix| series.strip_suffix(suffix));
        let name = base
            .filter(|base| metrics.contains_key(*base))
            .unwrap_or(series);
        let metric = metrics.get_mut(name).expect("a series has a type");
        let (labels, _) = labels.rsplit_once('}').unwrap();
        for (label, value) in labels.split(',').map(|pair| pair.split_once('=').unwrap()) {
            if label != "le" {
                let values = metric.labels.entry(label.into()).or_default();
                values.insert(value.trim_matches('"').into());
            }
        }
    }
    metrics
}

/// The bounds of a histogram's buckets.
fn buckets(text: &str, name: &str) -> Vec<String> {
    let start = format!("{name}_bucket{{le=\"");
    let bounds = text.lines().filter_map(|line| line.strip_prefix(&start));
    let bounds = bounds.map(|rest| rest.split_once('"').unwrap().0.to_owned());
    bounds.filter(|bound| bound != "+Inf").collect()
}

/// The metrics of the page, or those of one role.
fn documented(role: Option<&str>) -> Metrics {
    let rows = rows_of("metrics", "metric").into_iter();
    rows.filter(|row| role.is_none_or(|role| row[2].split(", ").any(|of| of == role)))
        .map(|row| {
            let mut labels = BTreeMap::new();
            for label in row[3].split("; ") {
                if let Some((name, values)) = codes(label).split_first() {
                    let values = values.iter().map(ToString::to_string).collect();
                    labels.insert(name.to_string(), values);
                }
            }
            let kind = row[1].clone();
            (codes(&row[0])[0].to_owned(), Metric { kind, labels })
        })
        .collect()
}
