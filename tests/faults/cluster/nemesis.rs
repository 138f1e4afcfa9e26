//! Faults of the cluster composed by chance: which node, what is done to it, for how long, and at times to two at once.

use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::time::sleep;

use super::{BACK, Clustered, Connect};

/// Attacks: everything, with the seed `SEED` (else one of the clock) for `MINUTES` (else 2).
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_cluster"]
#[expect(
    clippy::disallowed_methods,
    reason = "the settings of this test, of which there are two"
)]
async fn random_faults() {
    let number = |name: &str| {
        let value = std::env::var(name).ok().filter(|value| !value.is_empty())?;
        Some(value.parse::<u64>().expect(name))
    };
    let seed = number("SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    let time = Duration::from_secs(60 * number("MINUTES").unwrap_or(2));
    println!("cluster: SEED={seed} for {time:?}");
    let mut rng = Rng::with_seed(seed);
    let started = Instant::now();
    let mut cluster = Clustered::start_with(Connect::Anywhere, seed).await;
    while started.elapsed() < time {
        episode(&mut cluster, &mut rng).await;
    }
    cluster.finish().await;
}

/// One node or two are killed or hang, in turn or at once; then all are there again, with progress.
async fn episode(cluster: &mut Clustered, rng: &mut Rng) {
    let first = rng.usize(0..3);
    let second = (first + rng.usize(1..3)) % 3;
    let nodes = if rng.u8(0..4) == 0 {
        vec![first, second]
    } else {
        vec![first]
    };
    for &node in &nodes {
        let signal = if rng.bool() { "KILL" } else { "STOP" };
        println!("  {signal} of node {node}");
        cluster.nodes.signal(node, signal);
        sleep(Duration::from_millis(rng.u64(0..3_000))).await;
    }
    if rng.u8(0..4) == 0 {
        println!("  KILL of ticketd");
        cluster.ticketd.signal("KILL");
        cluster.ticketd.restart().await;
    }
    sleep(Duration::from_millis(rng.u64(100..12_000))).await;
    for &node in &nodes {
        cluster.nodes.signal(node, "CONT");
    }
    cluster.nodes.start(&cluster.stack, &nodes);
    let back = cluster.accepted_again(BACK).await;
    println!("  taken again after {back:?}");
    cluster
        .nodes
        .expect_all_members(&cluster.stack, &cluster.queues())
        .await;
}
