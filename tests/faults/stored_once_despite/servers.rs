//! RabbitMQ and PostgreSQL are killed, hang, are restarted, and run short of what they need.

use super::{Until, alone};
use crate::fault::{self, Fault};
use crate::stack::Server;
use crate::ticketd::Role;

/// Attacks: a confirmed message survives the broker's death.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_the_broker() {
    let kill = alone(Fault::Kill(Server::Broker));
    kill.until(Until::Refused).assert_exactly_once().await;
}

/// Attacks: 503 while the broker hangs, and a way back without a restart for both roles.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn the_broker_hangs() {
    let hang = alone(Fault::Stop(Server::Broker)).until(Until::Unlinked(Role::Consume));
    let rig = hang.run().await;
    assert!(rig.ledger.refused() > 0, "nothing was answered 503");
    rig.finish().await;
}

/// Attacks: a broker that closes politely takes nothing with it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn the_broker_is_restarted() {
    let restart = alone(Fault::Restart(Server::Broker));
    restart.until(Until::Refused).assert_exactly_once().await;
}

/// Attacks: 503 while the broker is blocked for want of memory; the consumer goes on.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn memory_alarm() {
    let alarm = alone(Fault::MemoryAlarm);
    alarm.until(Until::Refused).assert_exactly_once().await;
}

/// Attacks: 503 while the broker is blocked for want of disk; the consumer goes on.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn disk_alarm() {
    let alarm = alone(Fault::DiskAlarm);
    alarm.until(Until::Refused).assert_exactly_once().await;
}

/// Attacks: deliveries go back before the broker loses patience, and none is stored twice for it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn the_broker_would_lose_patience() {
    let impatient = alone(Fault::ImpatientBroker).with("HOLD_MAX", "1s");
    // Long enough for the broker's patience to end, too.
    let rig = impatient.until(Until::Elapsed(8)).run().await;
    let log = rig.log(Role::Consume);
    assert!(log.contains(fault::GAVE_UP), "{log}");
    assert_eq!(
        fault::patience_lost(&log),
        0,
        "the broker was first:\n{log}"
    );
    rig.finish().await;
}

/// Attacks: a consumer whose channel or subscription the broker has ended, deliveries and all, comes back.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn the_broker_loses_patience() {
    let rig = alone(Fault::ImpatientBroker).run().await;
    let log = rig.log(Role::Consume);
    assert!(
        fault::patience_lost(&log) > 0,
        "the fault did not bite:\n{log}"
    );
    rig.finish().await;
}

/// Attacks: what COMMIT said is on disk, and only that is acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_postgres() {
    alone(Fault::Kill(Server::Database))
        .assert_exactly_once()
        .await;
}

/// Attacks: a transaction that dies with its backend, and takes all others with it, is done again.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn kill_9_of_a_backend() {
    alone(Fault::KillBackend)
        .times(2)
        .assert_exactly_once()
        .await;
}

/// Attacks: tickets are taken while the database hangs, and stored after it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn postgres_hangs() {
    let hang = alone(Fault::Stop(Server::Database));
    hang.until(Until::Elapsed(6)).assert_exactly_once().await;
}

/// Attacks: tickets are accepted while the database is unavailable, and stored after it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn postgres_is_restarted() {
    let restart = alone(Fault::Restart(Server::Database)).until(Until::Unready(Role::Consume));
    restart.assert_exactly_once().await;
}
