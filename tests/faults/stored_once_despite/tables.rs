//! What happens to the backends and the tables of a transaction.

use super::{Until, alone};
use crate::fault::Fault;
use crate::ticketd::Role;

/// Attacks: a backend that hangs does not hold the rows for ever.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn a_backend_hangs() {
    let hang = alone(Fault::StopBackend);
    hang.until(Until::NotStored).assert_exactly_once().await;
}

/// Attacks: a statement that failed is not followed by an acknowledgement.
#[tokio::test(flavor = "multi_thread")]
async fn statements_are_cancelled() {
    alone(Fault::CancelStatements).assert_exactly_once().await;
}

/// Attacks: a lock time-out is not taken for the tickets' fault.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn the_table_is_locked() {
    // Longer than the 10 s after which the writer's statement gives up.
    let locked = alone(Fault::LockTable);
    locked.until(Until::NotStored).assert_exactly_once().await;
}

/// Attacks: a full disk is waited out, and dead-letters no ticket.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn the_disk_is_full() {
    alone(Fault::FullDisk).assert_exactly_once().await;
}

/// Attacks: a fault of the table is not taken for the tickets', whose next rows it would be.
#[tokio::test(flavor = "multi_thread")]
async fn the_table_takes_nothing() {
    let refuse = alone(Fault::RefuseAll).times(2);
    refuse
        .until(Until::Unready(Role::Consume))
        .assert_exactly_once()
        .await;
}
