//! Each fault alone, so that a test's name says what is promised: stored exactly once, despite that.
//!
//! Every test runs the whole mix of tills against ticketd, does what its name says, expects a new
//! 202 and a new row within 10 s of the heal, and has the checker compare ledger and tables.

mod cuts;
mod dead_letters;
mod encrypted;
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
use crate::stack::Exclusivity;
use crate::ticketd::Role;
use ticketd_testing::wait_within;

/// Maximum wait for a fault to take effect: the slowest sign of one is a flush that is given up after 40 s.
const EFFECT_DEADLINE: Duration = Duration::from_secs(90);

/// How long a fault lasts after it took effect.
const BEYOND: Duration = Duration::from_secs(1);

/// When a fault has lasted long enough, and is healed.
#[derive(Debug, Clone, Copy)]
enum Until {
    /// After so many seconds, where nobody is to notice more than a pause.
    Elapsed(u64),
    /// Once a till was told to come again.
    Refused,
    /// Once a role knows that it has lost the broker.
    Unlinked(Role),
    /// Once a role says that it is not ready.
    Unready(Role),
    /// Once the broker has given up the consumer.
    NoConsumer,
    /// Once a batch could not be stored.
    NotStored,
}

/// What one fault is done to, for how long, and how often.
struct Alone {
    fault: Fault,
    plan: Plan,
    until: Until,
    times: u32,
}

/// One fault, for a second, once.
fn alone(fault: Fault) -> Alone {
    Alone {
        fault,
        plan: plan(fault.exclusivity()),
        until: Until::Elapsed(1),
        times: 1,
    }
}

fn plan(exclusivity: Exclusivity) -> Plan {
    Plan {
        exclusivity,
        ..Plan::new(1)
    }
}

impl Alone {
    fn until(self, until: Until) -> Self {
        Self { until, ..self }
    }

    fn times(self, times: u32) -> Self {
        Self { times, ..self }
    }

    fn together(mut self) -> Self {
        self.plan.together = true;
        self
    }

    fn encrypted(mut self) -> Self {
        self.plan.is_encrypted = true;
        self
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.plan.env.push((name, value.to_owned()));
        self
    }

    /// Does it, heals it, expects progress; returns what is left to be looked at and finished.
    async fn run(self) -> Rig {
        let mut rig = Rig::start(self.plan).await;
        for _ in 0..self.times {
            let before = Signs::of(&mut rig).await;
            self.fault.inject(&mut rig).await;
            before.changed(&mut rig, self.until).await;
            self.fault.heal(&mut rig).await;
            rig.expect_progress().await;
        }
        rig
    }

    async fn assert_exactly_once(self) {
        self.run().await.finish().await;
    }
}

/// What tells that a fault took effect.
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
    async fn changed(&self, rig: &mut Rig, until: Until) {
        if let Until::Elapsed(seconds) = until {
            return sleep(Duration::from_secs(seconds)).await;
        }
        wait_within(&format!("{until:?}"), EFFECT_DEADLINE, async || {
            let took_effect = match until {
                Until::Elapsed(_) => true,
                Until::Refused => rig.ledger.refused() > self.refused,
                Until::Unlinked(role) => !rig.is_linked(role).await,
                Until::Unready(role) => !rig.process(role).is_ready().await,
                Until::NoConsumer => rig.consumers().await == Some(0),
                Until::NotStored => rig.flush_failures().await > self.not_stored,
            };
            took_effect.then_some(())
        })
        .await;
        // What is under way when the first sign shows is not to be all that meets it.
        sleep(BEYOND).await;
    }
}
