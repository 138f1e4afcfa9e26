//! Each fault alone, so that a test's name says what is promised: stored exactly once, despite that.
//!
//! Every test runs the whole mix of tills against ticketd, does what its name says, expects a new
//! 202 and a new row within 10 s of the heal, and has the checker compare ledger and tables.

mod cuts;
mod links;
mod processes;
mod queues;
mod servers;
mod tables;

use std::time::Duration;

use tokio::time::sleep;

use crate::fault::Fault;
use crate::plan::Plan;
use crate::rig::Rig;
use crate::stack::Share;
use crate::ticketd::Role;
use ticketd_testing::wait_within;

/// Longest for a fault to be felt: the slowest sign of one is a flush that is given up after 40 s.
const FELT_DEADLINE: Duration = Duration::from_secs(90);

/// How long a fault lasts after it was felt.
const BEYOND: Duration = Duration::from_secs(1);

/// When a fault has lasted long enough.
#[derive(Debug, Clone, Copy)]
enum Lasts {
    /// After so many seconds, where nobody is to notice more than a pause.
    Seconds(u64),
    /// Once a till was told to come again.
    UntilRefused,
    /// Once a role knows that it has lost the broker.
    UntilUnlinked(Role),
    /// Once a role says that it is not ready.
    UntilUnready(Role),
    /// Once the broker has given up the consumer.
    UntilNoConsumer,
    /// Once a batch could not be stored.
    UntilNotStored,
}

/// What one fault is done to, for how long, and how often.
struct Alone {
    fault: Fault,
    plan: Plan,
    lasts: Lasts,
    times: u32,
}

/// One fault, for a second, once.
fn alone(fault: Fault) -> Alone {
    Alone {
        fault,
        plan: plan(fault.share()),
        lasts: Lasts::Seconds(1),
        times: 1,
    }
}

fn plan(share: Share) -> Plan {
    Plan {
        share,
        ..Plan::new(1)
    }
}

impl Alone {
    fn lasts(self, lasts: Lasts) -> Self {
        Self { lasts, ..self }
    }

    fn times(self, times: u32) -> Self {
        Self { times, ..self }
    }

    fn together(mut self) -> Self {
        self.plan.together = true;
        self
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.plan.env.push((name, value.to_owned()));
        self
    }

    /// Does it, heals it, expects progress; returns what is left to be looked at and finished.
    async fn strike(self) -> Rig {
        let mut rig = Rig::start(self.plan).await;
        for _ in 0..self.times {
            let before = Signs::of(&mut rig).await;
            self.fault.inject(&mut rig).await;
            before.changed(&mut rig, self.lasts).await;
            self.fault.heal(&mut rig).await;
            rig.expect_progress().await;
        }
        rig
    }

    async fn survived(self) {
        self.strike().await.finish().await;
    }
}

/// What tells that a fault is felt.
struct Signs {
    refused: u64,
    not_stored: f64,
}

impl Signs {
    async fn of(rig: &mut Rig) -> Self {
        Self {
            refused: rig.ledger.refused(),
            not_stored: rig.flush_failures().await,
        }
    }

    /// Waits until a fault has lasted long enough.
    async fn changed(&self, rig: &mut Rig, lasts: Lasts) {
        if let Lasts::Seconds(seconds) = lasts {
            return sleep(Duration::from_secs(seconds)).await;
        }
        wait_within(&format!("{lasts:?}"), FELT_DEADLINE, async || {
            let felt = match lasts {
                Lasts::Seconds(_) => true,
                Lasts::UntilRefused => rig.ledger.refused() > self.refused,
                Lasts::UntilUnlinked(role) => !rig.is_linked(role).await,
                Lasts::UntilUnready(role) => !rig.process(role).is_ready().await,
                Lasts::UntilNoConsumer => rig.consumers().await == Some(0),
                Lasts::UntilNotStored => rig.flush_failures().await > self.not_stored,
            };
            felt.then_some(())
        })
        .await;
        // What is under way when the first sign shows is not to be all that meets it.
        sleep(BEYOND).await;
    }
}
