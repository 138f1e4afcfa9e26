//! What a rate takes, and which rate some cores reach. Pure.

use std::fmt::Write as _;

use super::cost::{Costs, Layout, PartCost, Replication};

/// Bytes of a ticket in a message beside its text: id, time and length.
const RECORD_BYTES: f64 = 28.0;

/// Bytes of a row in a COPY beside the text: the other columns, and their lengths.
const COPY_BYTES: f64 = 90.0;

/// Bytes of a request beside the text, and of its answer: heads, and TCP's share.
const HTTP_BYTES: f64 = 400.0;

const SECONDS_OF_A_DAY: f64 = 86_400.0;

/// What the model is told besides the rate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Assumptions {
    pub(super) body_bytes: f64,
    pub(super) days: f64,
    pub(super) cores_of_a_machine: f64,
    pub(super) load: f64,
    pub(super) stripe_per_second: f64,
}

/// Cores that some parts share.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Host {
    pub(super) parts: Vec<String>,
    pub(super) cores: f64,
}

impl Host {
    /// Reads `accept+load=1,consume+rabbitmq=2`: the parts of each host, and its cores.
    pub(super) fn parse_all(text: &str) -> Result<Vec<Self>, String> {
        text.split(',').map(Self::parse).collect()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let (parts, cores) = text.split_once('=').ok_or("a host is PARTS=CORES")?;
        let cores: f64 = cores
            .parse()
            .map_err(|_form| format!("{cores} are no cores"))?;
        if !(cores.is_finite() && cores > 0.0) {
            return Err(format!("{cores} are no cores"));
        }
        let parts: Vec<_> = parts.split('+').map(str::to_owned).collect();
        let known = [
            "load", "accept", "rabbitmq", "consume", "postgres", "standby",
        ];
        match parts.iter().find(|part| !known.contains(&part.as_str())) {
            Some(unknown) => Err(format!("{unknown} is none of {}", known.join(", "))),
            None => Ok(Self { parts, cores }),
        }
    }
}

/// The rate at which the first host is busy, and the parts that are on it; none where none costs anything.
pub(super) fn highest_rate(hosts: &[Host], parts: &[PartCost]) -> Option<(f64, String)> {
    let rates = hosts.iter().filter_map(|host| {
        let here = parts
            .iter()
            .filter(|(name, _)| host.parts.iter().any(|part| part == name));
        let cost: f64 = here.map(|(_, cost)| cost).sum();
        (cost > 0.0).then(|| (host.cores * 1e6 / cost, host.parts.join("+")))
    });
    rates.min_by(|a, b| a.0.total_cmp(&b.0))
}

/// What a rate takes.
#[derive(Debug)]
pub(super) struct Plan {
    rate: f64,
    layout: Layout,
    stripes: f64,
    /// Part, microseconds a ticket, cores, machines.
    tiers: Vec<(&'static str, f64, f64, f64)>,
    /// From where to where, and Gbit/s.
    links: Vec<(&'static str, f64)>,
    /// TB a day of one copy, and TB of all copies of all days that are kept.
    disk: (f64, f64),
    days: f64,
}

/// Plans for a rate.
pub(super) fn plan(
    rate: f64,
    layout: Layout,
    costs: &Costs,
    replication: &Replication,
    assumptions: &Assumptions,
) -> Plan {
    let stripes = (rate / assumptions.stripe_per_second).ceil().max(1.0);
    let parts = costs.parts(layout, replication);
    let tiers = parts.into_iter().filter(|(name, _)| *name != "load");
    let tiers = tiers.map(|(name, cost)| {
        let cores = rate * cost / 1e6 / assumptions.load;
        let at_least = at_least(name, layout, stripes);
        let machines = (cores / assumptions.cores_of_a_machine).ceil();
        (name, cost, cores, machines.max(at_least))
    });
    let stored = rate * replication.stored_bytes * SECONDS_OF_A_DAY / 1e12;
    let copies = 1.0 + f64::from(layout.standbys);
    Plan {
        rate,
        layout,
        stripes,
        tiers: tiers.collect(),
        links: links(rate, layout, replication, assumptions.body_bytes),
        disk: (stored, stored * copies * assumptions.days),
        days: assumptions.days,
    }
}

/// The fewest machines of a part: what is there so that one may fail needs machines of its own.
fn at_least(part: &str, layout: Layout, stripes: f64) -> f64 {
    match part {
        "accept" if layout.brokers > 1 => 2.0,
        "consume" if layout.brokers > 1 => stripes.max(2.0),
        "rabbitmq" => f64::from(layout.brokers) * stripes,
        "standby" => f64::from(layout.standbys) * stripes,
        "accept" => 1.0,
        _ => stripes,
    }
}

fn links(
    rate: f64,
    layout: Layout,
    replication: &Replication,
    body: f64,
) -> Vec<(&'static str, f64)> {
    let record = body + RECORD_BYTES;
    let followers = f64::from(layout.brokers.saturating_sub(1));
    let bytes = [
        ("tills to accept, and back", body + HTTP_BYTES),
        ("accept to RabbitMQ", record),
        ("between RabbitMQ's nodes", record * followers),
        ("RabbitMQ to consume", record),
        ("consume to PostgreSQL", body + COPY_BYTES),
        (
            "PostgreSQL to its standbys",
            replication.wal_bytes * f64::from(layout.standbys),
        ),
    ];
    bytes
        .map(|(link, bytes)| (link, rate * bytes * 8.0 / 1e9))
        .into()
}

impl Plan {
    /// As a text for people.
    pub(super) fn markdown(&self) -> String {
        let mut text = format!(
            "{:.0} tickets/s, {} stripe(s), RabbitMQ on {} node(s), {} standby(s) each\n\n\
             | part | CPU µs a ticket | cores | machines |\n|---|---:|---:|---:|\n",
            self.rate, self.stripes, self.layout.brokers, self.layout.standbys
        );
        for (name, cost, cores, machines) in &self.tiers {
            let _written = writeln!(text, "| {name} | {cost:.2} | {cores:.1} | {machines:.0} |");
        }
        let sum = |of: fn(&(&str, f64, f64, f64)) -> f64| self.tiers.iter().map(of).sum::<f64>();
        let (cost, cores, machines) = (sum(|tier| tier.1), sum(|tier| tier.2), sum(|tier| tier.3));
        let _written = writeln!(text, "| **sum** | {cost:.2} | {cores:.1} | {machines:.0} |");
        text.push_str("\n| link | Gbit/s |\n|---|---:|\n");
        for (link, gigabits) in &self.links {
            let _written = writeln!(text, "| {link} | {gigabits:.2} |");
        }
        let (day, all) = self.disk;
        let _written = writeln!(
            text,
            "\nDisk: {day:.2} TB a day and copy, {all:.1} TB for {:.0} days in all copies.",
            self.days
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cost::tests::{COSTS, REPLICATION};

    const ASSUMPTIONS: Assumptions = Assumptions {
        body_bytes: 112.0,
        days: 30.0,
        cores_of_a_machine: 8.0,
        load: 0.65,
        stripe_per_second: 250_000.0,
    };

    const LAYOUT: Layout = Layout {
        brokers: 3,
        standbys: 2,
    };

    #[test]
    fn a_million_a_second_is_planned() {
        let plan = plan(1e6, LAYOUT, &COSTS, &REPLICATION, &ASSUMPTIONS);
        assert_eq!(plan.stripes, 4.0);
        let (name, cost, cores, machines) = plan.tiers[0];
        assert_eq!((name, cost, machines), ("accept", 9.9, 2.0));
        assert!((cores - 15.23).abs() < 0.01, "{cores}");
        let rabbitmq = plan.tiers[1];
        assert_eq!((rabbitmq.0, rabbitmq.3), ("rabbitmq", 12.0));
        let gigabits: f64 = plan.links.iter().map(|(_, gigabits)| gigabits).sum();
        assert!((gigabits - 15.7).abs() < 0.1, "{gigabits}");
        assert!((plan.disk.0 - 23.59).abs() < 0.01, "{:?}", plan.disk);
        assert!((plan.disk.1 - 23.59 * 90.0).abs() < 1.0, "{:?}", plan.disk);
        assert!(plan.markdown().contains("| accept | 9.90 | 15.2 | 2 |"));
    }

    #[test]
    fn few_tickets_take_one_of_each() {
        let alone = Layout {
            brokers: 1,
            standbys: 0,
        };
        let plan = plan(100.0, alone, &COSTS, &REPLICATION, &ASSUMPTIONS);
        let machines: Vec<_> = plan.tiers.iter().map(|tier| tier.3).collect();
        assert_eq!(machines, [1.0, 1.0, 1.0, 1.0, 0.0]);
        assert_eq!(plan.stripes, 1.0);
    }

    #[test]
    fn the_busiest_host_limits() {
        let hosts = Host::parse_all("load+accept=1,consume+rabbitmq+postgres+standby=1").unwrap();
        let parts = COSTS.parts(LAYOUT, &REPLICATION);
        let (rate, limit) = highest_rate(&hosts, &parts).unwrap();
        assert_eq!(limit, "load+accept");
        assert!((rate - 1e6 / 16.5).abs() < 1.0, "{rate}");
        let hosts = Host::parse_all("load+accept=4,consume+rabbitmq+postgres+standby=1").unwrap();
        let (rate, _) = highest_rate(&hosts, &parts).unwrap();
        assert!(
            (rate - 1e6 / (0.75 + 3.7 + 4.246 + 3.088)).abs() < 1.0,
            "{rate}"
        );
        for wrong in [
            "",
            "accept",
            "accept=0",
            "accept=x",
            "redis=1",
            "accept=inf",
        ] {
            assert!(Host::parse_all(wrong).is_err(), "{wrong}");
        }
        assert_eq!(highest_rate(&[], &parts), None);
    }
}
