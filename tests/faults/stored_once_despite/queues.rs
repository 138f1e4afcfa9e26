//! Queues and bindings are taken away, and queues are full.

use super::{Until, alone, plan};
use crate::fault::Fault;
use crate::rig::Rig;
use crate::stack::Exclusivity;
use crate::ticketd::Role;

/// Attacks: without a queue there is no 202 that leads nowhere, and the queue comes back by itself.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn the_queue_is_deleted() {
    alone(Fault::DeleteQueue)
        .times(2)
        .assert_exactly_once()
        .await;
}

/// Attacks: a message that is routed nowhere is not confirmed into nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_binding_is_deleted() {
    let unbound = alone(Fault::DeleteBinding);
    unbound.until(Until::Elapsed(3)).assert_exactly_once().await;
}

/// Attacks: a refused message is never answered 202.
#[tokio::test(flavor = "multi_thread")]
async fn the_queue_is_full() {
    let full = alone(Fault::FullQueue);
    full.until(Until::Refused)
        .times(2)
        .assert_exactly_once()
        .await;
}

/// Attacks: no restart is ever needed. RabbitMQ 3.10 goes on refusing on channels that it has refused on
/// once a limit is taken away altogether; only a new channel is free of it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn the_limit_of_a_full_queue_is_taken_away() {
    let mut rig = Rig::start(plan(Exclusivity::Shared)).await;
    let before = super::Signs::of(&mut rig).await;
    Fault::FullQueue.inject(&mut rig).await;
    before.changed(&mut rig, Until::Refused).await;
    rig.stack.ctl(&["clear_policy", &rig.name]);
    rig.process(Role::Consume).signal("CONT");
    rig.expect_progress().await;
    rig.finish().await;
}
