//! RabbitMQ gives up delivering, has no room for what it gave up, and what repairs that is killed.

use std::time::Duration;

use super::plan;
use crate::given_up::{
    COLLECT, DEADLINE, REPLAY, give_up, listed, repair, repair_killed, repaired, waiting,
};
use crate::plan::Plan;
use crate::proxy::Mode;
use crate::rig::Rig;
use crate::stack::Exclusivity;
use crate::ticketd::Role;
use ticketd_testing::wait_within;

/// RabbitMQ offers what its queue of dead letters has refused again after a second, not after three
/// minutes. It counts for queues that are declared from then on.
const SOON_AGAIN: &[&str] = &[
    "eval",
    "application:set_env(rabbit, dead_letter_worker_publisher_confirm_timeout, 1000).",
];

/// Has every row of `dead_tickets` wait for as long as the session lives. A lock on the table would stop
/// a collector before it reads, where it prepares its statement.
const HELD_BACK: &str = "\
    create function hold_back() returns trigger language plpgsql as $$ begin \
        perform pg_advisory_xact_lock(hashtext(current_schema)); return new; end $$; \
    create trigger hold_back before insert on dead_tickets for each row execute function hold_back(); \
    select pg_advisory_lock(hashtext(current_schema))";

/// How many messages that queue takes, about, and how many it should.
const ROOM: u16 = 5;
const GIVEN_UP: u16 = 25;

/// Attacks: what RabbitMQ gave up delivering, and has no room for, stays in the queue of tickets; it
/// stops nobody else, and follows once there is room.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn the_queue_of_dead_letters_is_full() {
    let plan = Plan {
        broker: SOON_AGAIN,
        ..plan(Exclusivity::Shared)
    };
    let mut rig = Rig::start(plan).await;
    let policy = format!("{}-dead", rig.name);
    let pattern = format!(r"^{}\.dead$", rig.name);
    let limit = format!(r#"{{"max-length": {ROOM}, "overflow": "reject-publish"}}"#);
    let set = ["set_policy", "--priority", "1", "--apply-to", "queues"];
    rig.stack
        .ctl(&[&set[..], &[&policy, &pattern, &limit]].concat());
    give_up(&rig, GIVEN_UP).await;
    wait_within("a full queue", DEADLINE, async || {
        (waiting(&rig).await >= u32::from(ROOM)).then_some(())
    })
    .await;
    rig.expect_progress().await;
    let taken = waiting(&rig).await;
    assert!(taken < u32::from(GIVEN_UP), "it took {taken}");
    repaired(&mut rig).await;
    let stack = rig.finish().await;
    stack.ctl(&["clear_policy", &policy]);
}

/// Attacks: a collector that is killed before its rows are committed has acknowledged nothing.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_a_collector_that_waits() {
    let mut rig = Rig::start(plan(Exclusivity::Shared)).await;
    give_up(&rig, 6).await;
    wait_within("dead letters", DEADLINE, async || {
        (waiting(&rig).await == 6).then_some(())
    })
    .await;
    let lock = rig.stack.session(&rig.name).await;
    lock.batch_execute(HELD_BACK).await.unwrap();
    let collector = rig.process(Role::Consume).start_command(&COLLECT);
    wait_within("a collector behind the lock", DEADLINE, async || {
        (waiting(&rig).await == 0 && rig.waiting_backends().await > 0).then_some(())
    })
    .await;
    collector.signal("KILL");
    collector.ended().await;
    drop(lock);
    repaired(&mut rig).await;
    rig.finish().await;
}

/// Attacks: a replay that is killed before RabbitMQ has confirmed leaves its ticket on the list.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_a_replay_that_waits() {
    let mut rig = Rig::start(plan(Exclusivity::Shared)).await;
    give_up(&rig, 6).await;
    let sql = rig.stack.session(&rig.name).await;
    let before = wait_within("dead tickets", DEADLINE, async || {
        rig.process(Role::Consume).run(&COLLECT).await;
        let dead = listed(&sql).await;
        (dead.len() >= 6).then_some(dead)
    })
    .await;
    rig.consume.set(Mode::Blackhole(None));
    let replay = rig.process(Role::Consume).start_command(&REPLAY);
    wait_within("a replay under way", DEADLINE, async || {
        (listed(&sql).await.len() < before.len()).then_some(())
    })
    .await;
    replay.signal("KILL");
    replay.ended().await;
    rig.consume.set(Mode::Pass);
    rig.expect_progress().await;
    repaired(&mut rig).await;
    rig.finish().await;
}

/// Attacks: whatever repairs may be killed anywhere, and run again beside another one.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn kill_9_of_repairs() {
    let mut rig = Rig::start(plan(Exclusivity::Shared)).await;
    for after in [20, 50, 90, 140, 200].map(Duration::from_millis) {
        give_up(&rig, 60).await;
        repair_killed(&mut rig, after).await;
        repair(&mut rig).await;
    }
    repaired(&mut rig).await;
    rig.finish().await;
}
