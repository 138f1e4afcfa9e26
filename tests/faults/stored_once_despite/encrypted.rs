//! The same faults with TLS on both links: a record that is torn, or a session that is gone, is no
//! ticket lost and none stored twice.

use super::links::{on_each_link, on_every_link};
use super::{Alone, Until, alone};
use crate::fault::Fault;
use crate::plan::Plan;
use crate::proxy::Mode;
use crate::stack::{Exclusivity, Server};
use crate::ticketd::Role;

fn plan() -> Plan {
    Plan {
        is_encrypted: true,
        ..super::plan(Exclusivity::Shared)
    }
}

fn encrypted(fault: Fault) -> Alone {
    alone(fault).encrypted()
}

/// Attacks: sessions that end without a word, on each link, and are made anew.
#[tokio::test(flavor = "multi_thread")]
async fn reset_on_every_link() {
    on_each_link(plan(), Mode::Reset).await;
}

/// Attacks: what was decrypted and not stored yet, and what was stored and not acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_consume() {
    let kill = Fault::KillRole(Role::Consume);
    encrypted(kill).times(2).assert_exactly_once().await;
}

/// Attacks: what was encrypted and not sent.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_accept() {
    let kill = Fault::KillRole(Role::Accept);
    encrypted(kill).times(2).assert_exactly_once().await;
}

/// Attacks: records may come in any pieces.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn sliced_on_every_link() {
    on_every_link(plan(), Mode::Slice).await;
}

/// Attacks: nothing listens for a while.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn refused_on_every_link() {
    on_each_link(plan(), Mode::Refuse).await;
}

/// Attacks: a broker that is gone in the middle of records.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn kill_9_of_the_broker() {
    let kill = encrypted(Fault::Kill(Server::Broker));
    kill.until(Until::Refused).assert_exactly_once().await;
}

/// Attacks: a database that is gone in the middle of COPY.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn kill_9_of_the_database() {
    let kill = encrypted(Fault::Kill(Server::Database));
    kill.until(Until::Unready(Role::Consume))
        .assert_exactly_once()
        .await;
}
