//! Faults composed by chance: which, when, for how long, and at times two at once.
//!
//! A seed gives the same load and the same schedule again; what the processes make of it is theirs.

use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::time::sleep;

use crate::fault::Fault;
use crate::plan::Plan;
use crate::rig::Rig;

/// The seeds that make test_faults always runs, and for how long each.
const SEEDS: [u64; 4] = [1, 2, 3, 4];
const SEED_TIME: Duration = Duration::from_secs(35);

async fn run(seed: u64, time: Duration) {
    let mut rng = Rng::with_seed(seed);
    let mut plan = Plan::new(seed);
    plan.together = rng.u8(0..4) == 0;
    println!("nemesis: SEED={seed} for {time:?}");
    let started = Instant::now();
    let mut rig = Rig::start(plan).await;
    while started.elapsed() < time {
        episode(&mut rig, &mut rng).await;
    }
    rig.finish().await;
}

/// One fault or two that go together, then all well again, with progress.
async fn episode(rig: &mut Rig, rng: &mut Rng) {
    let first = Fault::any(rng);
    let second = Some(Fault::any(rng)).filter(|second| rng.bool() && first.goes_with(*second));
    let mut pause = async || sleep(Duration::from_millis(rng.u64(100..3_000))).await;
    first.inject(rig).await;
    pause().await;
    if let Some(second) = second {
        second.inject(rig).await;
        pause().await;
        second.heal(rig).await;
    }
    first.heal(rig).await;
    rig.expect_progress().await;
    pause().await;
}

/// Attacks: everything, a little.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_short_seed() {
    run(42, Duration::from_secs(30)).await;
}

/// Attacks: everything, with the seeds that are always the same.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn of_the_fixed_seeds() {
    for seed in SEEDS {
        run(seed, SEED_TIME).await;
    }
}

/// Attacks: everything, with the seed `SEED` (else one of the clock) for `MINUTES` (else 2).
#[tokio::test(flavor = "multi_thread")]
#[ignore = "for SEED= and MINUTES="]
#[expect(
    clippy::disallowed_methods,
    reason = "the settings of this test, of which there are two"
)]
async fn random_faults_from_env_seed() {
    let number = |name: &str| {
        let value = std::env::var(name).ok().filter(|value| !value.is_empty())?;
        Some(value.parse::<u64>().expect(name))
    };
    let seed = number("SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    run(
        seed,
        Duration::from_secs(60 * number("MINUTES").unwrap_or(2)),
    )
    .await;
}
