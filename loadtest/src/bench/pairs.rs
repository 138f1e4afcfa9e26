//! What credentials, TLS and open pages cost, and many tickets in a request spare: end to end with and without them, in pairs.
//!
//! The bounds are a few percent, and a machine's speed moves by more within minutes. So each is measured right beside
//! its own twin without it, several times, and what is told is the median of the ratios.

use super::beside;
use super::budget::Budget;
use super::outcome::Outcome;
use super::results::{Results, quotient};
use super::scenarios::{Job, Rig};
use super::target::Target;
use super::{LOAD_CONNECTIONS, failed, say};

/// How often each is measured beside its twin.
const PAIRS: usize = 5;

/// The share of another measurement's time that each takes: there are many.
const TIME_SHARE: f64 = 0.5;

/// Two measurements, one right after the other.
pub(super) struct Pair {
    /// What is compared with end to end.
    pub(super) target: Target,
    pub(super) outcome: Outcome,
    /// End to end, without anything.
    pub(super) plain: Outcome,
}

impl Pair {
    /// The rate over that without.
    pub(super) fn ratio(&self) -> Option<f64> {
        quotient(Some(self.outcome.per_second), Some(self.plain.per_second))
    }
}

/// How often each is measured beside its twin in a run of so many rounds.
fn pairs(rounds: usize) -> usize {
    if rounds == 1 { 1 } else { PAIRS }
}

/// The time of all pairs, in that of other measurements.
pub(super) fn scenarios(rounds: usize) -> usize {
    let measurements = 2 * Target::GUARDED.len() * pairs(rounds);
    (measurements as f64 * TIME_SHARE) as usize + beside::scenarios(rounds)
}

/// Measures all pairs, every other time in reverse order.
pub(super) async fn measure(
    rig: &Rig,
    rounds: usize,
    (budget, seconds): (&Budget, f64),
    results: &mut Results,
) {
    let seconds = seconds * TIME_SHARE;
    results.pair_seconds = Some(seconds);
    let mut targets = Target::GUARDED;
    for round in 0..pairs(rounds) {
        for target in targets {
            if budget.is_overdrawn() {
                failed(results, target.label(), &anyhow::anyhow!("out of time"));
                continue;
            }
            match pair(rig, target, seconds, round % 2 == 1).await {
                Ok(pair) => {
                    say_pair((round, pairs(rounds)), &pair);
                    results.pairs.push(pair);
                }
                Err(error) => failed(results, target.label(), &error),
            }
        }
        targets.reverse();
    }
}

async fn pair(rig: &Rig, target: Target, seconds: f64, reversed: bool) -> anyhow::Result<Pair> {
    let job = |target: Target| Job {
        target,
        connections: target
            .connections()
            .last()
            .copied()
            .unwrap_or(LOAD_CONNECTIONS),
        seconds,
        rate: None,
        tickets: None,
    };
    let (plain, guarded) = (job(Target::EndToEnd), job(target));
    let (outcome, plain) = if reversed {
        let outcome = rig.measure(&guarded).await?;
        (outcome, rig.measure(&plain).await?)
    } else {
        let plain = rig.measure(&plain).await?;
        (rig.measure(&guarded).await?, plain)
    };
    Ok(Pair {
        target,
        outcome,
        plain,
    })
}

fn say_pair((round, rounds): (usize, usize), pair: &Pair) {
    say(&format!(
        "pair {} of {rounds}: {}: {:.0}/s, without {:.0}/s",
        round + 1,
        pair.target.label(),
        pair.outcome.per_second,
        pair.plain.per_second,
    ));
}
