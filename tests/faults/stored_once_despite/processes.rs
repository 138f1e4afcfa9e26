//! ticketd itself is killed, told to end, and stopped.

use std::time::Duration;

use super::{Until, alone, plan};
use crate::fault::Fault;
use crate::rig::Rig;
use crate::stack::Exclusivity;
use crate::ticketd::Role;
use ticketd_testing::wait_within;

/// Connections that wait with a batch each, and longest for all of them to have one.
const WRITERS: i64 = 4;
const WAIT_DEADLINE: Duration = Duration::from_secs(20);

/// Attacks: what accept has answered 202 does not live in accept.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_accept() {
    let kill = Fault::KillRole(Role::Accept);
    alone(kill).times(3).assert_exactly_once().await;
}

/// Attacks: a delivery is acknowledged only when its rows are committed.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_consume() {
    let kill = Fault::KillRole(Role::Consume);
    alone(kill).times(3).assert_exactly_once().await;
}

/// Attacks: the same while batches wait for PostgreSQL, when nothing of them is stored for sure.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_consume_that_waits() {
    // A batch may be a single ticket that nobody would miss, such as one with a key that is sent
    // again; of several there is always one that counts.
    let mut plan = plan(Exclusivity::Shared);
    plan.env.push(("WRITERS", WRITERS.to_string()));
    let mut rig = Rig::start(plan).await;
    for _ in 0..3 {
        Fault::LockTable.inject(&mut rig).await;
        wait_within("all writers behind the lock", WAIT_DEADLINE, async || {
            (rig.waiting_backends().await == WRITERS).then_some(())
        })
        .await;
        Fault::KillRole(Role::Consume).inject(&mut rig).await;
        Fault::LockTable.heal(&mut rig).await;
        Fault::KillRole(Role::Consume).heal(&mut rig).await;
        rig.expect_progress().await;
    }
    rig.finish().await;
}

/// Attacks: both at once, where one process has both roles.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn kill_9_of_serve() {
    let kill = Fault::KillRole(Role::Serve);
    alone(kill).together().times(3).assert_exactly_once().await;
}

/// Attacks: SIGTERM answers what was taken, and stores what was begun.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn sigterm_of_accept() {
    let end = Fault::EndRole(Role::Accept);
    alone(end).times(3).assert_exactly_once().await;
}

/// Attacks: SIGTERM acknowledges what it has stored, and nothing else.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn sigterm_of_consume() {
    let end = Fault::EndRole(Role::Consume);
    alone(end).times(3).assert_exactly_once().await;
}

/// Attacks: the order in which one process with both roles drains.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn sigterm_of_serve() {
    let end = Fault::EndRole(Role::Serve);
    alone(end).together().times(3).assert_exactly_once().await;
}

/// Attacks: a process that slept through all its deadlines does not take old news for new.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn accept_stopped() {
    // Longer than the confirm time-out.
    let stop = Fault::StopRole(Role::Accept);
    alone(stop)
        .until(Until::Elapsed(6))
        .assert_exactly_once()
        .await;
}

/// Attacks: the same where rows and acknowledgements are under way, until the broker takes its
/// deliveries back.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn consume_stopped() {
    let stop = Fault::StopRole(Role::Consume);
    alone(stop)
        .until(Until::NoConsumer)
        .assert_exactly_once()
        .await;
}
