//! What layouts.sh measured, beside what the model says of the same layouts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::cost::{Costs, Layout, Replication};
use super::plan::{Host, highest_rate};
use super::sources::{FOLLOWER, PRIMARY, STANDBY, STORED, WAL};

/// How far the model may be from what was measured, as a share of it.
const ERROR_MAX: f64 = 0.15;

/// The file in which layouts.sh lists its runs.
const LIST: &str = "runs";

/// What was measured: a few runs of each layout and placement.
pub(super) struct Measured(Vec<Run>);

/// One run of the load generator.
struct Run {
    layout: Layout,
    /// The cores that parts shared; empty where each might use all.
    hosts: Vec<Host>,
    per_second: f64,
    /// CPU microseconds a ticket, by part.
    costs: BTreeMap<String, f64>,
    wal_bytes: f64,
    stored_bytes: f64,
}

/// The table, and whether the model is as close as it has to be.
pub(super) struct Compared {
    pub(super) markdown: String,
    pub(super) is_close: bool,
}

impl Measured {
    /// Reads a folder of layouts.sh.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let list = fs::read_to_string(folder.join(LIST))
            .with_context(|| folder.join(LIST).display().to_string())?;
        let run = |line: &str| {
            let figures = line.split(' ').nth(3).context("no file")?;
            let figures = fs::read_to_string(folder.join(figures))?;
            Run::read(line, &serde_json::from_str(&figures)?)
                .with_context(|| format!("{LIST}: {line}"))
        };
        Ok(Self(list.lines().map(run).collect::<Result<_>>()?))
    }

    /// The runs of a layout in which parts shared cores, or did not.
    fn of(&self, layout: Layout, shared: bool) -> impl Iterator<Item = &Run> {
        let runs = self.0.iter();
        runs.filter(move |run| run.layout == layout && run.hosts.is_empty() != shared)
    }

    /// The median over these of a figure.
    fn median(&self, layout: Layout, shared: bool, figure: impl Fn(&Run) -> f64) -> Result<f64> {
        let figures: Vec<_> = self.of(layout, shared).map(figure).collect();
        median(figures).with_context(|| {
            let Layout { brokers, standbys } = layout;
            format!("{brokers} node(s) of RabbitMQ and {standbys} standby(s) were not measured")
        })
    }

    fn replication(&self) -> Result<Replication> {
        let layout = |brokers, standbys| Layout { brokers, standbys };
        let cost = |of, part: &str| self.median(of, false, |run| run.cost(part));
        let postgres = cost(layout(1, 0), "postgres")?;
        let nodes = cost(layout(3, 1), "rabbitmq")? / cost(layout(1, 1), "rabbitmq")?;
        let alone = layout(1, 0);
        Ok(Replication {
            follower: (nodes - 1.0) / 2.0,
            standby: cost(layout(1, 1), "standby")? / postgres,
            primary: cost(layout(1, 1), "postgres")? / postgres,
            wal_bytes: self.median(alone, false, |run| run.wal_bytes)?,
            stored_bytes: self.median(alone, false, |run| run.stored_bytes)?,
        })
    }
}

impl Run {
    /// From a line of the list, `BROKERS STANDBYS HOSTS FILE WAL STORED`, and that file.
    fn read(line: &str, figures: &Value) -> Result<Self> {
        let [brokers, standbys, hosts, _, wal, stored] = line
            .split(' ')
            .collect::<Vec<_>>()
            .try_into()
            .map_err(|_fields| anyhow::anyhow!("six fields are expected"))?;
        let hosts = match hosts {
            "-" => Vec::new(),
            hosts => Host::parse_all(hosts).map_err(anyhow::Error::msg)?,
        };
        let mut costs = BTreeMap::new();
        for (part, cost) in figures["costs"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(cost_of)
        {
            *costs.entry(part.to_owned()).or_insert(0.0) += cost;
        }
        Ok(Self {
            layout: Layout {
                brokers: brokers.parse()?,
                standbys: standbys.parse()?,
            },
            hosts,
            per_second: figures
                .pointer("/stored/per_second")
                .and_then(Value::as_f64)
                .context("not all tickets were stored")?,
            costs,
            wal_bytes: wal.parse()?,
            stored_bytes: stored.parse()?,
        })
    }

    fn cost(&self, part: &str) -> f64 {
        self.costs.get(part).copied().unwrap_or(0.0)
    }
}

fn cost_of(cost: &Value) -> Option<(&str, f64)> {
    let name = part(cost["name"].as_str()?);
    Some((name, cost["cpu_seconds_per_million"].as_f64()?))
}

/// The part that a process belongs to: `rabbitmq2` is a node of RabbitMQ.
fn part(process: &str) -> &str {
    match process {
        "loadtest" => "load",
        process => process.trim_end_matches(|end: char| end.is_ascii_digit()),
    }
}

fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let (low, high) = (figures.len().checked_sub(1)? / 2, figures.len() / 2);
    Some((figures.get(low)? + figures.get(high)?) / 2.0)
}

/// Compares each layout with the model.
pub(super) fn compare(costs: &Costs, measured: &Measured) -> Result<Compared> {
    let replication = measured.replication()?;
    let mut rows = Vec::new();
    let mut layouts: Vec<_> = measured.0.iter().map(|run| run.layout).collect();
    layouts.dedup();
    for layout in layouts {
        let parts = costs.parts(layout, &replication);
        let modelled = parts.iter().map(|(_, cost)| cost).sum();
        let all = measured.median(layout, false, |run| run.costs.values().sum())?;
        rows.push(Row::new(
            layout,
            "CPU µs a ticket, all parts",
            all,
            modelled,
        ));
        let Some(hosts) = measured.of(layout, true).next().map(|run| &run.hosts) else {
            continue;
        };
        let rate = measured.median(layout, true, |run| run.per_second)?;
        let (modelled, _) = highest_rate(hosts, &parts).context("no part costs anything")?;
        rows.push(Row::new(
            layout,
            "tickets/s, roles on one core each",
            rate,
            modelled,
        ));
    }
    let is_close = rows.iter().all(Row::is_close);
    Ok(Compared {
        markdown: markdown(&replication, &rows),
        is_close,
    })
}

/// A measured figure, and the model's.
struct Row {
    layout: Layout,
    what: &'static str,
    measured: f64,
    modelled: f64,
}

impl Row {
    fn new(layout: Layout, what: &'static str, measured: f64, modelled: f64) -> Self {
        Self {
            layout,
            what,
            measured,
            modelled,
        }
    }

    fn ratio(&self) -> f64 {
        self.modelled / self.measured
    }

    fn is_close(&self) -> bool {
        (self.ratio() - 1.0).abs() <= ERROR_MAX
    }
}

fn markdown(replication: &Replication, rows: &[Row]) -> String {
    let mut text = "# Measured layouts\n\n\
        Written by `make layouts`, medians. What replicas cost is out of runs in which each part may use all cores; \
        everything else in the column of the model is out of [the last bench](README.md).\n\n\
        | what replicas cost | |\n|---|---:|\n"
        .to_owned();
    for (name, value, decimals) in [
        (FOLLOWER, replication.follower, 2),
        (STANDBY, replication.standby, 2),
        (PRIMARY, replication.primary, 2),
        (WAL, replication.wal_bytes, 0),
        (STORED, replication.stored_bytes, 0),
    ] {
        let _written = writeln!(text, "| {name} | {value:.decimals$} |");
    }
    text.push_str(
        "\n| RabbitMQ | standbys | what | measured | model | model over measured | |\n\
         |---:|---:|---|---:|---:|---:|---|\n",
    );
    for row in rows {
        let Layout { brokers, standbys } = row.layout;
        let decimals = if row.measured < 1000.0 { 2 } else { 0 };
        let _written = writeln!(
            text,
            "| {brokers} | {standbys} | {} | {:.decimals$} | {:.decimals$} | {:.2} | {} |",
            row.what,
            row.measured,
            row.modelled,
            row.ratio(),
            if row.is_close() {
                "within 15 %"
            } else {
                "further off"
            },
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cost::tests::COSTS;
    use crate::model::sources;
    use serde_json::json;

    fn run(line: &str, per_second: f64, nodes: &[&str]) -> Run {
        let cost = |name: &str, cpu: f64| json!({"name": name, "cpu_seconds_per_million": cpu});
        let mut costs = vec![
            cost("loadtest", 6.6),
            cost("accept", 9.9),
            cost("consume", 0.75),
        ];
        costs.extend(nodes.iter().map(|node| match *node {
            "postgres" => cost(node, 3.86),
            "standby" => cost(node, 1.93),
            node => cost(node, 1.85),
        }));
        let figures = json!({"stored": {"per_second": per_second}, "costs": costs});
        Run::read(line, &figures).unwrap()
    }

    #[test]
    fn layouts_are_compared_with_the_model() {
        let three = ["rabbitmq", "rabbitmq2", "rabbitmq3", "postgres", "standby"];
        let hosts = "load+accept=1,consume+rabbitmq+postgres+standby=1";
        let runs = |rate: f64| {
            Measured(vec![
                run("1 0 - a.json 340 270", 70_000.0, &["rabbitmq", "postgres"]),
                run(
                    "1 1 - b.json 340 270",
                    60_000.0,
                    &["rabbitmq", "postgres", "standby"],
                ),
                run("3 1 - c.json 340 270", 50_000.0, &three),
                run(&format!("3 1 {hosts} d.json 340 270"), rate, &three),
            ])
        };
        let compared = compare(&COSTS, &runs(60_000.0)).unwrap();
        assert!(compared.is_close, "{}", compared.markdown);
        let replication = sources::replication(&compared.markdown).unwrap();
        assert_eq!((replication.follower, replication.standby), (1.0, 0.5));
        assert_eq!((replication.primary, replication.wal_bytes), (1.0, 340.0));
        assert!(!compare(&COSTS, &runs(50_000.0)).unwrap().is_close);
        let few = Measured(vec![run(
            "1 0 - a.json 1 1",
            1.0,
            &["rabbitmq", "postgres"],
        )]);
        let error = compare(&COSTS, &few).err().unwrap().to_string();
        assert!(error.contains("not measured"), "{error}");
    }

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }
}
