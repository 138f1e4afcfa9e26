//! The network between ticketd and its servers is slow, torn, silent, or gone.

use std::time::Duration;

use super::{Until, alone, plan};
use crate::fault::{Fault, Link};
use crate::plan::Plan;
use crate::proxy::{Mode, Way};
use crate::rig::Rig;
use crate::stack::Exclusivity;
use crate::ticketd::Role;

const LINKS: [Link; 3] = [Link::Publish, Link::Consume, Link::Database];

/// A link that swallows what goes that way, or everything.
async fn survives_a_blackhole(link: Link, swallowed: Option<Way>, until: Until) {
    let fault = Fault::Network(link, Mode::Blackhole(swallowed));
    alone(fault).until(until).assert_exactly_once().await;
}

/// Attacks: slow confirms are still confirms of their own messages.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn delayed_on_every_link() {
    on_every_link(shared(), Mode::Delay(Duration::from_millis(150))).await;
}

/// Attacks: frames and messages may come in any pieces.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn sliced_on_every_link() {
    on_every_link(shared(), Mode::Slice).await;
}

fn shared() -> Plan {
    plan(Exclusivity::Shared)
}

/// All links at once, with progress meanwhile.
pub(super) async fn on_every_link(plan: Plan, mode: Mode) {
    let mut rig = Rig::start(plan).await;
    for link in LINKS {
        Fault::Network(link, mode).inject(&mut rig).await;
    }
    for _ in 0..10 {
        rig.expect_progress().await;
    }
    for link in LINKS {
        Fault::Network(link, mode).heal(&mut rig).await;
    }
    rig.expect_progress().await;
    rig.finish().await;
}

/// Attacks: no confirm, no 202, however long the silence.
#[tokio::test(flavor = "multi_thread")]
async fn publishing_into_a_blackhole() {
    survives_a_blackhole(Link::Publish, None, Until::Refused).await;
}

/// Attacks: the broker has it and cannot say so; what is sent again has the same id.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn confirms_into_a_blackhole() {
    survives_a_blackhole(Link::Publish, Some(Way::Down), Until::Refused).await;
}

/// Attacks: what lies in the socket when its time is up is not answered 202 later.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn publishes_into_a_blackhole() {
    survives_a_blackhole(Link::Publish, Some(Way::Up), Until::Refused).await;
}

/// Attacks: a consumer that hears nothing notices, and subscribes anew.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn consuming_from_a_blackhole() {
    let unlinked = Until::Unlinked(Role::Consume);
    survives_a_blackhole(Link::Consume, None, unlinked).await;
}

/// Attacks: acknowledgements that do not arrive make duplicates, which count once.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn acknowledgements_into_a_blackhole() {
    let unlinked = Until::Unlinked(Role::Consume);
    survives_a_blackhole(Link::Consume, Some(Way::Up), unlinked).await;
}

/// Attacks: a consumer that hears nothing but can speak.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn deliveries_into_a_blackhole() {
    let unlinked = Until::Unlinked(Role::Consume);
    survives_a_blackhole(Link::Consume, Some(Way::Down), unlinked).await;
}

/// Attacks: a flush without an answer is done again on another connection, though the first may still commit.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn storing_into_a_blackhole() {
    survives_a_blackhole(Link::Database, None, Until::NotStored).await;
}

/// Attacks: statements that do not arrive until later.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn statements_into_a_blackhole() {
    survives_a_blackhole(Link::Database, Some(Way::Up), Until::Elapsed(6)).await;
}

/// Attacks: results that do not arrive until later.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn results_into_a_blackhole() {
    survives_a_blackhole(Link::Database, Some(Way::Down), Until::Elapsed(6)).await;
}

/// Attacks: connections that are reset for a while, on each link.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn reset_on_every_link() {
    on_each_link(shared(), Mode::Reset).await;
}

/// Attacks: servers at which nothing listens for a while, on each link.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn refused_on_every_link() {
    on_each_link(shared(), Mode::Refuse).await;
}

/// One link after the other, each until that took effect.
pub(super) async fn on_each_link(plan: Plan, mode: Mode) {
    let mut rig = Rig::start(plan).await;
    let until = [
        Until::Refused,
        Until::Unlinked(Role::Consume),
        Until::Unready(Role::Consume),
    ];
    for (link, until) in LINKS.into_iter().zip(until) {
        let before = super::Signs::of(&mut rig).await;
        let fault = Fault::Network(link, mode);
        fault.inject(&mut rig).await;
        before.changed(&mut rig, until).await;
        fault.heal(&mut rig).await;
        rig.expect_progress().await;
    }
    rig.finish().await;
}
