//! Outages as long as they are in life, which take minutes: `make test_long` runs them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::plan::Plan;
use crate::rig::Rig;
use crate::stack::Server;
use crate::ticketd::Role;
use ticketd_testing::proc::{Usage, is_alive, usage};
use ticketd_testing::wait_within;

/// What may be held more for as long as a server is unavailable, in KiB.
const GROWTH_KIB: u64 = 64 * 1024;

/// The confirm time-out of these tests, and a second for two busy cores.
const ANSWERED_WITHIN: Duration = Duration::from_secs(4);

/// How long after its server's return a role may be unready.
const READY_WITHIN: Duration = Duration::from_secs(5);

/// Lets a server be away for so long, and memory is flat all the while.
async fn away(rig: &mut Rig, server: Server, longest: Duration) {
    rig.note(&format!("{server:?} is unavailable for {longest:?}"));
    rig.stack.down(server);
    let before: Vec<Usage> = rig
        .processes
        .iter()
        .map(|ticketd| usage(ticketd.pid()))
        .collect();
    let started = Instant::now();
    while started.elapsed() < longest {
        tokio::time::sleep(Duration::from_secs(1)).await;
        for (ticketd, before) in rig.processes.iter().zip(&before) {
            let now = usage(ticketd.pid());
            if now.rss_kib > before.rss_kib + GROWTH_KIB {
                rig.fail(&[format!(
                    "{:?} grew from {before:?} to {now:?}",
                    ticketd.role
                )]);
            }
        }
    }
    rig.stack.up(server);
    rig.reconnect_proxies();
    rig.note("back");
}

async fn soon_ready(rig: &mut Rig, role: Role) {
    let ticketd = rig.process(role);
    wait_within("ready again", READY_WITHIN, async || {
        ticketd.is_ready().await.then_some(())
    })
    .await;
}

/// Attacks: without a broker, 503 in time and memory that does not grow; with it again, ready at once.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "it takes 5 minutes"]
async fn the_broker_is_away_for_5_minutes() {
    let mut rig = Rig::start(Plan::new(1)).await;
    away(&mut rig, Server::Broker, Duration::from_secs(300)).await;
    soon_ready(&mut rig, Role::Accept).await;
    rig.expect_progress().await;
    let late = late_refusals(&std::fs::read_to_string(rig.ledger.path()).unwrap());
    if !late.is_empty() {
        rig.fail(&late);
    }
    rig.finish().await;
}

/// The 503s that came later than they should.
fn late_refusals(ledger: &str) -> Vec<String> {
    let mut sent: HashMap<&str, (u64, &str)> = HashMap::new();
    let mut late = Vec::new();
    for line in ledger.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let at: u64 = words[2].parse().unwrap();
        match words[0] {
            "sent" => drop(sent.insert(words[1], (at, words[3]))),
            "answered" if words[3] == "503" => {
                let (since, kind) = sent[words[1]];
                let waited = Duration::from_micros(at - since);
                // A slow till's own time counts for nothing.
                if waited > ANSWERED_WITHIN && kind != "Slow" {
                    late.push(format!(
                        "ticket {} was answered 503 after {waited:?}",
                        words[1]
                    ));
                }
            }
            _ => {}
        }
    }
    late
}

/// Attacks: without the database the queue grows, and nothing else; with it again, all is stored.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "it takes 10 minutes"]
async fn postgres_is_away_for_10_minutes() {
    let mut rig = Rig::start(Plan::new(1)).await;
    let pids: Vec<_> = rig.processes.iter().map(|ticketd| ticketd.pid()).collect();
    let refused = rig.ledger.refused();
    away(&mut rig, Server::Database, Duration::from_secs(600)).await;
    soon_ready(&mut rig, Role::Consume).await;
    rig.expect_progress().await;
    assert_eq!(
        rig.ledger.refused(),
        refused,
        "tickets are taken without the database"
    );
    let alive = pids.iter().all(|pid| is_alive(*pid));
    assert!(alive, "no process ends because the database is unavailable");
    let log = rig.log(Role::Consume);
    let subscriptions = log.matches("consuming from RabbitMQ\n").count();
    assert!(
        subscriptions < 3,
        "deliveries went round and round: {subscriptions} subscriptions"
    );
    rig.finish().await;
}
