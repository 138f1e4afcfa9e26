//! Three nodes of RabbitMQ as one cluster, which the tests of this run share.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::stack::{StackLease, number};
use ticketd_testing::{proc, wait_within};

/// Their names, as stack.sh has them.
const NAMES: [&str; 3] = ["rabbitmq", "rabbitmq2", "rabbitmq3"];

/// Maximum time until each queue has all its members again.
const MEMBERS_DEADLINE: Duration = Duration::from_secs(90);

/// All nodes, up.
pub(crate) struct Nodes {
    place: PathBuf,
    nodes: [Node; 3],
}

#[derive(Debug, Clone, Copy, Default)]
struct Node {
    pid: u32,
    port: u16,
}

/// What the cluster says of a queue.
#[derive(Debug)]
pub(crate) struct ClusterQueue {
    /// The node that leads it.
    pub leader: usize,
    /// How many nodes have it, and how many of these are there.
    pub members: usize,
    pub online: usize,
    /// What waits in it, or is with a consumer.
    pub messages: u64,
}

impl Nodes {
    /// All of them, whatever an earlier test has left behind.
    pub(crate) fn up(stack: &StackLease) -> Self {
        let place = stack.dir().join("cluster");
        let mut nodes = Self {
            place,
            nodes: Default::default(),
        };
        if nodes.place.is_dir() {
            nodes.look(stack);
            (0..NAMES.len()).for_each(|node| nodes.signal(node, "CONT"));
        }
        nodes.start(stack, &[0, 1, 2]);
        nodes
    }

    /// Starts these, and waits until they are there.
    pub(crate) fn start(&mut self, stack: &StackLease, nodes: &[usize]) {
        let names: Vec<_> = nodes.iter().map(|&node| NAMES[node]).collect();
        self.run(stack, &[&["up"], &names[..]].concat());
        self.look(stack);
    }

    /// Stops one as its operator would.
    pub(crate) fn stop(&self, stack: &StackLease, node: usize) {
        self.run(stack, &["down", NAMES[node]]);
    }

    /// Sends a signal to all processes of a node, if there are any.
    pub(crate) fn signal(&self, node: usize, signal: &str) {
        let pid = self.nodes[node].pid;
        if pid != 0 && proc::is_alive(pid) {
            ticketd_testing::signal(signal, &proc::family(pid));
        }
    }

    /// The node that listens on this port.
    pub(crate) fn on_port(&self, port: u16) -> usize {
        let node = self.nodes.iter().position(|node| node.port == port);
        node.unwrap_or_else(|| panic!("no node on port {port}"))
    }

    /// The URL that names these.
    pub(crate) fn url(&self, nodes: &[usize]) -> String {
        let urls = nodes
            .iter()
            .map(|&node| crate::stack::amqp_url(self.nodes[node].port));
        urls.collect::<Vec<_>>().join(",")
    }

    /// Runs one of RabbitMQ's tools on a node.
    pub(crate) fn tool(&self, stack: &StackLease, node: usize, args: &[&str]) -> String {
        self.run(stack, &[&["tool", NAMES[node]], args].concat())
    }

    /// What the cluster says of its queues, by way of this node.
    pub(crate) fn queues(&self, stack: &StackLease, by: usize) -> HashMap<String, ClusterQueue> {
        const ASK: [&str; 9] = [
            "rabbitmqctl",
            "--silent",
            "--formatter=json",
            "list_queues",
            "name",
            "leader",
            "members",
            "online",
            "messages",
        ];
        let listed = self.tool(stack, by, &ASK);
        let listed: Vec<serde_json::Value> = serde_json::from_str(&listed).expect("a list as JSON");
        let queues = listed.iter().filter_map(|queue| {
            let count = |field: &str| queue[field].as_array().map_or(0, Vec::len);
            let state = ClusterQueue {
                leader: of_erlang(queue["leader"].as_str()?),
                members: count("members"),
                online: count("online"),
                messages: queue["messages"].as_u64()?,
            };
            Some((queue["name"].as_str()?.to_owned(), state))
        });
        queues.collect()
    }

    /// Waits until each of these queues is on all three nodes, and all three are there.
    pub(crate) async fn expect_all_members(&self, stack: &StackLease, queues: &[String]) {
        let is_whole = |queue: &ClusterQueue| queue.members == 3 && queue.online == 3;
        wait_within(
            "three members of each queue",
            MEMBERS_DEADLINE,
            async || {
                let seen = self.queues(stack, 0);
                let mut queues = queues.iter().map(|queue| seen.get(queue));
                queues
                    .all(|queue| queue.is_some_and(is_whole))
                    .then_some(())
            },
        )
        .await;
    }

    /// Which process and port each node has now.
    fn look(&mut self, stack: &StackLease) {
        let status = self.command(stack, &["status"]).output().unwrap();
        let status = String::from_utf8(status.stdout).unwrap();
        for (node, name) in self.nodes.iter_mut().zip(NAMES) {
            let line = status
                .lines()
                .find(|line| line.starts_with(&format!("{name} pid=")));
            let Some(line) = line else {
                node.pid = 0;
                continue;
            };
            *node = Node {
                pid: number(line, "pid="),
                port: number(line, "port="),
            };
        }
    }

    fn command(&self, stack: &StackLease, args: &[&str]) -> Command {
        let mut command = stack.command(&self.place, args);
        command.env("NODES", "3");
        command
    }

    fn run(&self, stack: &StackLease, args: &[&str]) -> String {
        let output = self.command(stack, args).output().expect("bash starts");
        let (out, err) = (output.stdout, output.stderr);
        let err = String::from_utf8_lossy(&err);
        assert!(output.status.success(), "stack.sh {args:?} failed: {err}");
        String::from_utf8(out).unwrap()
    }
}

/// The node of an Erlang name such as `ticketd2@localhost`.
fn of_erlang(name: &str) -> usize {
    let number = name.trim_start_matches("ticketd").split('@').next();
    match number {
        Some("2") => 1,
        Some("3") => 2,
        _ => 0,
    }
}

/// When tickets were answered 202 between two moments, in µs since 1970: the longest time without.
pub(crate) fn longest_gap(ledger: &Path, from_us: u64, to_us: u64) -> Duration {
    let ledger = std::fs::read_to_string(ledger).unwrap();
    let accepted = ledger.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let is_answer = words.next() == Some("answered");
        let at: u64 = words.nth(1)?.parse().ok()?;
        let is_accepted = is_answer && words.next() == Some("202");
        (is_accepted && (from_us..to_us).contains(&at)).then_some(at)
    });
    let mut moments: Vec<_> = accepted.chain([from_us, to_us]).collect();
    moments.sort_unstable();
    let gaps = moments.windows(2).map(|pair| pair[1] - pair[0]);
    Duration::from_micros(gaps.max().unwrap_or(0))
}
