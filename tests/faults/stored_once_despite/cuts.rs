//! A connection is cut at the message on which a promise hangs.

use super::{Until, alone};
use crate::fault::Fault;
use crate::proxy::Cut;

async fn survives(cut: Cut) {
    let cut = alone(Fault::CutAt(cut)).until(Until::Elapsed(0));
    cut.times(3).assert_exactly_once().await;
}

/// Attacks: the broker has the message and the publisher does not know; it is sent again with the same id.
#[tokio::test(flavor = "multi_thread")]
async fn the_confirm_is_lost() {
    survives(Cut::Confirm).await;
}

/// Attacks: the rows are there and the broker does not know; the second delivery changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_acknowledgement_is_lost() {
    survives(Cut::Ack).await;
}

/// Attacks: COMMIT happened and the writer does not know; doing it again changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_reply_to_commit_is_lost() {
    survives(Cut::CommitReply).await;
}

/// Attacks: COMMIT did not happen and the writer does not know; it is done again.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn commit_is_lost() {
    survives(Cut::Commit).await;
}

/// Attacks: half a batch is no batch.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn cut_inside_copy_data() {
    survives(Cut::CopyData).await;
}
