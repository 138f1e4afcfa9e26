//! RabbitMQ as three nodes, of which one or two are killed, stopped or restarted: what was answered 202
//! is on a majority of them, and how long tickets are not taken has a bound.
//!
//! The nodes share one machine and one disk, so that nothing here says how fast a cluster is. Each test
//! ends with every queue on all three nodes.

mod nemesis;
mod nodes;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ticketd_testing::{wait_until, wait_within};
use tokio::time::sleep;
use tokio_postgres::Client;

use self::nodes::{Nodes, longest_gap};
use crate::checker;
use crate::ledger::{Driver, Ledger, now_us};
use crate::plan::PRODUCT_REFRESH;
use crate::stack::{self, Exclusivity, Server, StackLease, database_url};
use crate::ticketd::{Role, Settings, Ticketd};

/// Tickets a second.
const RATE: u32 = 120;

/// Longest time without a 202 when the node that leads the queue is killed, or one that only follows.
const LEADER_KILLED: Duration = Duration::from_secs(1);

/// The same of the node that ticketd is connected to, and of a rolling restart.
const OWN_KILLED: Duration = Duration::from_secs(2);

/// The same when a node hangs, which has to be noticed first.
const HUNG: Duration = Duration::from_secs(10);

/// The same when ticketd's own node hangs, and is the leader: what other nodes know of the leader
/// changes only once they take it for dead, for which `net_ticktime` counts.
const OWN_LEADER_HUNG: Duration = Duration::from_secs(30);

/// How many of a million tickets may be answered 503 in a rolling restart.
const ROLLING_REFUSED_PPM: u64 = 1_000;

/// How long tickets are watched after a fault.
const WATCH: Duration = Duration::from_secs(15);
const WATCH_LONG: Duration = Duration::from_secs(35);

/// After this, nothing that was under way is answered any more.
const SETTLED: Duration = Duration::from_secs(2);

/// Maximum time until tickets are taken again once there is a majority.
const BACK: Duration = Duration::from_secs(60);

/// Maximum time until all that was answered 202 is stored.
const STORED_DEADLINE: Duration = Duration::from_secs(60);

/// How often ticketd is started until chance has it connect as it should.
const CONNECTIONS_MAX: usize = 30;

/// Between two looks for what is still on its way.
const STEP: Duration = Duration::from_millis(200);

/// Attacks: another node has to lead, and to resend what the old one had not confirmed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_cluster"]
async fn the_leader_is_killed() {
    let mut cluster = Clustered::start(Connect::AwayFromLeader).await;
    let leader = cluster.leader();
    assert_ne!(leader, cluster.own());
    cluster.lose(leader, "KILL", LEADER_KILLED).await;
    cluster.finish().await;
}

/// Attacks: a leader that hangs still answers TCP.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_cluster"]
async fn the_leader_hangs() {
    let mut cluster = Clustered::start(Connect::AwayFromLeader).await;
    let leader = cluster.leader();
    cluster.lose(leader, "STOP", HUNG).await;
    cluster.finish().await;
}

/// Attacks: a majority is left, and nobody has to elect anything.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_cluster"]
async fn a_follower_is_killed() {
    let mut cluster = Clustered::start(Connect::Anywhere).await;
    let follower = cluster.follower();
    cluster.lose(follower, "KILL", LEADER_KILLED).await;
    cluster.finish().await;
}

/// Attacks: the other two confirm without it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_cluster"]
async fn a_follower_hangs() {
    let mut cluster = Clustered::start(Connect::Anywhere).await;
    let follower = cluster.follower();
    cluster.lose(follower, "STOP", LEADER_KILLED).await;
    cluster.finish().await;
}

/// Attacks: what was not confirmed is published again by way of another node.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_cluster"]
async fn the_node_of_ticketd_is_killed() {
    let mut cluster = Clustered::start(Connect::Anywhere).await;
    let own = cluster.own();
    cluster.lose(own, "KILL", OWN_KILLED).await;
    cluster.finish().await;
}

/// Attacks: the node takes connections and says nothing, and the others cannot declare anything.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_cluster"]
async fn the_node_of_ticketd_hangs() {
    let mut cluster = Clustered::start(Connect::AwayFromLeader).await;
    let own = cluster.own();
    cluster.lose(own, "STOP", HUNG).await;
    cluster.finish().await;
}

/// Attacks: nobody is left who knows of another leader.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_cluster"]
async fn the_node_of_ticketd_hangs_and_leads() {
    let mut cluster = Clustered::start(Connect::ToLeader).await;
    let own = cluster.own();
    assert_eq!(cluster.leader(), own);
    cluster.lose(own, "STOP", OWN_LEADER_HUNG).await;
    cluster.finish().await;
}

/// Attacks: one node of three confirms nothing, and tickets are taken again by themselves.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_cluster"]
async fn two_of_three_nodes_are_lost() {
    let mut cluster = Clustered::start(Connect::Anywhere).await;
    for node in [1, 2] {
        cluster.nodes.signal(node, "KILL");
    }
    sleep(SETTLED).await;
    let (accepted, refused) = (cluster.ledger.accepted(), cluster.ledger.refused());
    sleep(WATCH).await;
    assert_eq!(cluster.ledger.accepted(), accepted, "202 by a minority");
    assert!(
        cluster.ledger.refused() > refused,
        "nothing is answered 503"
    );
    cluster.nodes.start(&cluster.stack, &[1, 2]);
    let back = cluster.accepted_again(BACK).await;
    println!("  taken again {back:?} after two nodes came back");
    cluster.finish().await;
}

/// Attacks: every node is drained and restarted, one after the other, as for an upgrade.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_cluster"]
async fn every_node_is_restarted() {
    let mut cluster = Clustered::start(Connect::Anywhere).await;
    let (from, accepted, refused) = (
        now_us(),
        cluster.ledger.accepted(),
        cluster.ledger.refused(),
    );
    for node in 0..3 {
        cluster.restart(node).await;
    }
    let gap = longest_gap(cluster.ledger.path(), from, now_us());
    let accepted = cluster.ledger.accepted() - accepted;
    let refused = cluster.ledger.refused() - refused;
    println!("  rolling restart: {accepted} taken, {refused} answered 503, longest gap {gap:?}");
    let ppm = refused * 1_000_000 / (accepted + refused);
    assert!(
        ppm <= ROLLING_REFUSED_PPM,
        "{refused} of {accepted} answered 503"
    );
    assert!(gap <= OWN_KILLED, "no 202 for {gap:?}");
    cluster.finish().await;
}

/// Which nodes ticketd may be connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Connect {
    /// Any.
    Anywhere,
    /// At first any but the one that leads the queue, and then any.
    AwayFromLeader,
    /// At first the one that leads the queue, and then any.
    ToLeader,
}

/// ticketd with a load on it, and a cluster behind it.
struct Clustered {
    nodes: Nodes,
    ticketd: Ticketd,
    driver: Driver,
    ledger: Arc<Ledger>,
    sql: Client,
    name: String,
    stack: StackLease,
}

impl Clustered {
    /// Starts everything, and lets the first tickets through.
    async fn start(connect: Connect) -> Self {
        Self::start_with(connect, 1).await
    }

    /// The same with the load of a seed.
    async fn start_with(connect: Connect, seed: u64) -> Self {
        let stack = stack::lease(Exclusivity::Exclusive).await;
        let nodes = Nodes::up(&stack);
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("cluster{}", COUNT.fetch_add(1, Ordering::SeqCst));
        let dir = stack.dir().join("tests").join(&name);
        std::fs::create_dir_all(&dir).unwrap();
        let sql = stack.session(&name).await;
        sql.batch_execute(&format!("create schema {name}"))
            .await
            .unwrap();
        let settings = settings(&stack, nodes.url(&[0, 1, 2]), &name);
        let ticketd = connected(connect, &stack, &nodes, settings).await;
        let ledger = Arc::new(Ledger::new(dir.join("ledger")));
        let driver = Driver::start(ledger.clone(), ticketd.address, &name, seed, RATE);
        let cluster = Self {
            nodes,
            ticketd,
            driver,
            ledger,
            sql,
            name,
            stack,
        };
        wait_until("the first rows", async || {
            cluster.rows().await >= i64::from(RATE)
        })
        .await;
        cluster
            .nodes
            .expect_all_members(&cluster.stack, &cluster.queues())
            .await;
        cluster
    }

    /// Does without a node for a while: sends it a signal, and has it back.
    async fn lose(&mut self, node: usize, signal: &str, bar: Duration) {
        let (leader, own) = (self.leader(), self.own());
        let from = now_us();
        self.nodes.signal(node, signal);
        sleep(if bar < WATCH { WATCH } else { WATCH_LONG }).await;
        let gap = longest_gap(self.ledger.path(), from, now_us());
        println!(
            "  {signal} of node {node} (leader {leader}, ticketd's {own}): longest gap {gap:?}"
        );
        assert!(gap <= bar, "no 202 for {gap:?}\n{}", self.ticketd.log());
        self.bring_back(node);
        self.accepted_again(BACK).await;
    }

    /// A node that was killed or stopped is there again.
    fn bring_back(&mut self, node: usize) {
        self.nodes.signal(node, "CONT");
        self.nodes.start(&self.stack, &[node]);
    }

    /// As RabbitMQ's documentation of upgrades has it.
    async fn restart(&mut self, node: usize) {
        let (nodes, stack) = (&self.nodes, &self.stack);
        nodes.tool(
            stack,
            node,
            &["rabbitmq-upgrade", "await_online_quorum_plus_one"],
        );
        nodes.tool(stack, node, &["rabbitmq-upgrade", "drain"]);
        nodes.stop(stack, node);
        self.nodes.start(&self.stack, &[node]);
        self.nodes
            .expect_all_members(&self.stack, &self.queues())
            .await;
        let rebalance = ["rabbitmq-queues", "rebalance", "quorum"];
        self.nodes.tool(&self.stack, node, &rebalance);
    }

    /// Waits until tickets are taken, and returns how long that was.
    async fn accepted_again(&self, within: Duration) -> Duration {
        let (started, before) = (Instant::now(), self.ledger.accepted());
        wait_within("tickets are taken", within, async || {
            (self.ledger.accepted() > before).then_some(())
        })
        .await;
        started.elapsed()
    }

    /// The node that leads the queue.
    fn leader(&self) -> usize {
        self.nodes.queues(&self.stack, 0)[&self.name].leader
    }

    /// The node that ticketd publishes to.
    fn own(&self) -> usize {
        own(&self.ticketd, &self.nodes)
    }

    /// A node that neither leads the queue nor is ticketd's own.
    fn follower(&self) -> usize {
        let (leader, own) = (self.leader(), self.own());
        let other = (0..3).find(|&node| node != leader && node != own);
        other.expect("a third node")
    }

    /// Those that tickets wait in.
    fn queues(&self) -> [String; 2] {
        [self.name.clone(), format!("{}.unrouted", self.name)]
    }

    async fn rows(&self) -> i64 {
        let count = "select count(*) from tickets";
        let counted = self.sql.query_one(count, &[]).await;
        counted.map_or(0, |row| row.get(0))
    }

    /// Ends the load, and compares what was answered with the tables.
    async fn finish(mut self) {
        self.driver.pause().await;
        let deadline = Instant::now() + STORED_DEADLINE;
        let path = self.ledger.path();
        while !checker::is_all_stored(path, &self.sql).await && Instant::now() < deadline {
            sleep(STEP).await;
        }
        let violations = checker::check(path, &self.sql, PRODUCT_REFRESH).await;
        let log = self.ticketd.log();
        assert!(violations.is_empty(), "{}\n{log}", violations.join("\n"));
        self.nodes
            .expect_all_members(&self.stack, &self.queues())
            .await;
        self.ticketd.signal("TERM");
        assert!(self.ticketd.end().await.success());
        let seen = self.nodes.queues(&self.stack, 0);
        for queue in self.queues() {
            assert_eq!(seen[&queue].messages, 0, "{queue}");
        }
        let drop = format!("drop schema {} cascade", self.name);
        self.sql.batch_execute(&drop).await.unwrap();
        std::fs::remove_dir_all(self.stack.dir().join("tests").join(&self.name)).unwrap();
    }
}

/// A ticketd that is connected as it should be, which is left to chance, again and again.
async fn connected(
    connect: Connect,
    stack: &StackLease,
    nodes: &Nodes,
    settings: Settings,
) -> Ticketd {
    let name = &settings
        .iter()
        .find(|(name, _)| name == "QUEUE")
        .expect("QUEUE")
        .1;
    let dir = stack.dir().join("tests").join(name);
    let mut leader = None;
    for _ in 0..CONNECTIONS_MAX {
        let mut ticketd = Ticketd::start(Role::Serve, &dir, settings.clone(), None).await;
        wait_until("ready", async || ticketd.is_ready().await).await;
        let own = own(&ticketd, nodes);
        let leader = *leader.get_or_insert_with(|| nodes.queues(stack, 0)[name].leader);
        match connect {
            Connect::AwayFromLeader if own == leader => {}
            Connect::ToLeader if own != leader => {}
            _ => return ticketd,
        }
        ticketd.signal("TERM");
        assert!(ticketd.end().await.success());
    }
    panic!("never connected {connect:?} in {CONNECTIONS_MAX} times");
}

/// The node that it publishes to.
fn own(ticketd: &Ticketd, nodes: &Nodes) -> usize {
    let log = ticketd.log();
    let is_own = |line: &&str| line.contains("connected to RabbitMQ purpose=\"publish\"");
    let last = log.lines().rfind(is_own).expect("a connection");
    let (_, port) = last.rsplit_once(':').expect("a port");
    nodes.on_port(port.trim().parse().expect("a port"))
}

fn settings(stack: &StackLease, amqp_url: String, name: &str) -> Settings {
    let refresh = format!("{}ms", PRODUCT_REFRESH.as_millis());
    let settings = [
        ("AMQP_URL", amqp_url),
        ("QUEUE", name.to_owned()),
        (
            "DATABASE_URL",
            database_url(stack.port(Server::Database), name),
        ),
        ("PRODUCT_REFRESH", refresh),
        ("FAULTS_DIR", stack.dir().display().to_string()),
    ];
    settings
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
}
