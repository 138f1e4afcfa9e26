//! Each fault alone, so that a test's name says what is promised.
//!
//! Every test runs the whole mix of tills against ticketd, does what its name says, expects a new
//! 202 and a new row within 10 s of the heal, and has the checker compare ledger and tables.

use std::time::Duration;

use tokio::time::sleep;

use crate::client::until;
use crate::fault::{self, Fault, Link};
use crate::proxy::{Cut, Mode, Way};
use crate::rig::{Plan, Rig, Role};
use crate::stack::Server;

/// What one fault is done to, for how long, and how often.
struct Alone {
    fault: Fault,
    plan: Plan,
    lasts: Duration,
    times: u32,
}

impl Alone {
    fn new(fault: Fault) -> Self {
        Self {
            fault,
            plan: Plan::new(1),
            lasts: Duration::from_secs(2),
            times: 1,
        }
    }

    fn together(mut self) -> Self {
        self.plan.together = true;
        self
    }

    fn lasting(mut self, seconds: u64) -> Self {
        self.lasts = Duration::from_secs(seconds);
        self
    }

    fn times(mut self, times: u32) -> Self {
        self.times = times;
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
            self.fault.inject(&mut rig).await;
            // The fault is there for as long as it lasts; nothing is waited for.
            sleep(self.lasts).await;
            self.fault.heal(&mut rig).await;
            rig.expect_progress().await;
        }
        rig
    }

    async fn survive(self) {
        self.strike().await.finish().await;
    }

    /// The same for a fault during which tills are told to come again.
    async fn survive_with_503s(self) {
        let rig = self.strike().await;
        let refused = rig.ledger.refused();
        assert!(
            refused > 0,
            "the fault did not bite: nothing was answered 503"
        );
        rig.finish().await;
    }
}

// ---- ticketd itself --------------------------------------------------------------------------------

/// Attacks: what accept has answered 202 does not live in accept.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_accept() {
    Alone::new(Fault::KillRole(Role::Accept))
        .lasting(1)
        .times(3)
        .survive()
        .await;
}

/// Attacks: a delivery is acknowledged only when its rows are committed.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_consume() {
    Alone::new(Fault::KillRole(Role::Consume))
        .lasting(1)
        .times(3)
        .survive()
        .await;
}

/// Attacks: the same while batches wait for PostgreSQL, when nothing of them is stored for sure.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_consume_that_waits() {
    // A batch may be a single ticket that nobody would miss, such as one with a key that is sent
    // again; of several there is always one that counts.
    let mut plan = Plan::new(1);
    plan.env.push(("WRITERS", "4".to_owned()));
    let mut rig = Rig::start(plan).await;
    for _ in 0..3 {
        Fault::LockTable.inject(&mut rig).await;
        // Time for every writer to have a batch behind the lock.
        sleep(Duration::from_secs(1)).await;
        Fault::KillRole(Role::Consume).inject(&mut rig).await;
        Fault::LockTable.heal(&mut rig).await;
        Fault::KillRole(Role::Consume).heal(&mut rig).await;
        rig.expect_progress().await;
    }
    rig.finish().await;
}

/// Attacks: both at once, where one process has both roles.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn kill_9_of_serve() {
    Alone::new(Fault::KillRole(Role::Serve))
        .together()
        .lasting(1)
        .times(3)
        .survive()
        .await;
}

/// Attacks: SIGTERM answers what was taken, and stores what was begun.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn sigterm_of_accept() {
    Alone::new(Fault::EndRole(Role::Accept))
        .lasting(1)
        .times(3)
        .survive()
        .await;
}

/// Attacks: SIGTERM acknowledges what it has stored, and nothing else.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn sigterm_of_consume() {
    Alone::new(Fault::EndRole(Role::Consume))
        .lasting(1)
        .times(3)
        .survive()
        .await;
}

/// Attacks: the order in which one process with both roles drains.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn sigterm_of_serve() {
    Alone::new(Fault::EndRole(Role::Serve))
        .together()
        .lasting(1)
        .times(3)
        .survive()
        .await;
}

/// Attacks: a process that slept through all its deadlines does not take old news for new.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn accept_stopped() {
    Alone::new(Fault::StopRole(Role::Accept))
        .lasting(6)
        .survive()
        .await;
}

/// Attacks: the same where rows and acknowledgements are under way, and the broker gives them to nobody else.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn consume_stopped() {
    Alone::new(Fault::StopRole(Role::Consume))
        .lasting(20)
        .survive()
        .await;
}

// ---- RabbitMQ --------------------------------------------------------------------------------------

/// Attacks: a confirmed message survives the broker's death.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_the_broker() {
    Alone::new(Fault::Kill(Server::Broker))
        .survive_with_503s()
        .await;
}

/// Attacks: 503 within the confirm deadline while the broker hangs, and a way back without a restart.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn the_broker_hangs() {
    Alone::new(Fault::Stop(Server::Broker))
        .lasting(15)
        .survive_with_503s()
        .await;
}

/// Attacks: a broker that closes politely takes nothing with it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn the_broker_is_restarted() {
    Alone::new(Fault::Restart(Server::Broker))
        .survive_with_503s()
        .await;
}

/// Attacks: 503 while the broker is blocked for want of memory; the consumer goes on.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn memory_alarm() {
    Alone::new(Fault::MemoryAlarm)
        .lasting(8)
        .survive_with_503s()
        .await;
}

/// Attacks: 503 while the broker is blocked for want of disk; the consumer goes on.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn disk_alarm() {
    Alone::new(Fault::DiskAlarm)
        .lasting(8)
        .survive_with_503s()
        .await;
}

/// Attacks: without a queue there is no 202 that leads nowhere, and the queue comes back by itself.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn the_queue_is_deleted() {
    Alone::new(Fault::DeleteQueue).times(2).survive().await;
}

/// Attacks: a message that is routed nowhere is not confirmed into nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_binding_is_deleted() {
    Alone::new(Fault::DeleteBinding).lasting(3).survive().await;
}

/// Attacks: a refused message is never answered 202.
#[tokio::test(flavor = "multi_thread")]
async fn the_queue_is_full() {
    Alone::new(Fault::FullQueue)
        .lasting(4)
        .survive_with_503s()
        .await;
}

/// Attacks: no restart is ever needed. RabbitMQ 3.10 goes on refusing on channels that it has refused on
/// once a limit is taken away altogether; only a new channel is free of it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn the_limit_of_a_full_queue_is_taken_away() {
    let mut rig = Rig::start(Plan::new(1)).await;
    Fault::FullQueue.inject(&mut rig).await;
    let refused = rig.ledger.refused();
    until("a refusal", Duration::from_secs(10), async || {
        (rig.ledger.refused() > refused).then_some(())
    })
    .await;
    rig.turn.ctl(&["clear_policy", &rig.name]);
    rig.process(Role::Consume).signal("CONT");
    rig.expect_progress().await;
    rig.finish().await;
}

/// Attacks: deliveries go back before the broker loses patience, and none is stored twice for it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn the_broker_would_lose_patience() {
    let alone = Alone::new(Fault::ImpatientBroker).with("HOLD_MAX", "1s");
    let rig = alone.lasting(12).strike().await;
    let log = std::fs::read_to_string(rig.dir.join("consume.log")).unwrap();
    assert!(log.contains("too long to hold deliveries"), "{log}");
    assert!(
        !log.contains("PRECONDITION_FAILED"),
        "the broker was first:\n{log}"
    );
    rig.finish().await;
}

/// Attacks: a consumer whose channel the broker has closed, deliveries and all, comes back.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn the_broker_loses_patience() {
    let rig = Alone::new(Fault::ImpatientBroker)
        .lasting(12)
        .strike()
        .await;
    let log = std::fs::read_to_string(rig.dir.join("consume.log")).unwrap();
    assert!(
        log.contains("PRECONDITION_FAILED"),
        "the fault did not bite:\n{log}"
    );
    rig.finish().await;
}

// ---- PostgreSQL ------------------------------------------------------------------------------------

/// Attacks: what COMMIT said is on disk, and only that is acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_postgres() {
    Alone::new(Fault::Kill(Server::Database)).survive().await;
}

/// Attacks: tickets are taken while the database hangs, and stored after it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn postgres_hangs() {
    Alone::new(Fault::Stop(Server::Database))
        .lasting(15)
        .survive()
        .await;
}

/// Attacks: tickets are taken while the database is away, and stored after it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn postgres_is_restarted() {
    Alone::new(Fault::Restart(Server::Database))
        .lasting(5)
        .survive()
        .await;
}

/// Attacks: a transaction that dies with its backend is done again.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn kill_9_of_a_backend() {
    Alone::new(Fault::KillBackend).times(3).survive().await;
}

/// Attacks: a backend that hangs does not hold the rows for ever.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn a_backend_hangs() {
    Alone::new(Fault::StopBackend).lasting(45).survive().await;
}

/// Attacks: a statement that failed is not followed by an acknowledgement.
#[tokio::test(flavor = "multi_thread")]
async fn statements_are_cancelled() {
    Alone::new(Fault::CancelStatements).survive().await;
}

/// Attacks: a lock time-out is not taken for the tickets' fault.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn the_table_is_locked() {
    let mut rig = Rig::start(Plan::new(1)).await;
    let failed_before = flush_failures(&mut rig).await;
    Fault::LockTable.inject(&mut rig).await;
    // Longer than the 10 s after which the writer's statement gives up.
    until("a lock time-out", Duration::from_secs(20), async || {
        (flush_failures(&mut rig).await > failed_before).then_some(())
    })
    .await;
    Fault::LockTable.heal(&mut rig).await;
    rig.expect_progress().await;
    rig.finish().await;
}

async fn flush_failures(rig: &mut Rig) -> f64 {
    rig.process(Role::Consume)
        .metric("ticketd_flush_failed_total{reason=\"away\"}")
        .await
}

/// Attacks: a full disk is waited out, and buries no ticket.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn the_disk_is_full() {
    if !fault::may_mount() {
        println!("skipped: only root may mount a disk that can be filled");
        return;
    }
    let mut rig = Rig::start(Plan::new(1)).await;
    let failed_before = flush_failures(&mut rig).await;
    Fault::FullDisk.inject(&mut rig).await;
    until("a full disk", Duration::from_secs(30), async || {
        (flush_failures(&mut rig).await > failed_before).then_some(())
    })
    .await;
    Fault::FullDisk.heal(&mut rig).await;
    rig.expect_progress().await;
    let turn = rig.finish().await;
    fault::unmount(&turn).await;
}

// ---- The network -----------------------------------------------------------------------------------

async fn network(link: Link, mode: Mode, seconds: u64) {
    Alone::new(Fault::Network(link, mode))
        .lasting(seconds)
        .survive()
        .await;
}

/// Attacks: slow confirms are still confirms of their own messages.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn delayed_on_every_link() {
    let mut rig = Rig::start(Plan::new(1)).await;
    let mode = Mode::Delay(Duration::from_millis(150));
    let faults =
        [Link::Publish, Link::Consume, Link::Database].map(|link| Fault::Network(link, mode));
    for fault in faults {
        fault.inject(&mut rig).await;
    }
    sleep(Duration::from_secs(6)).await;
    for fault in faults {
        fault.heal(&mut rig).await;
    }
    rig.expect_progress().await;
    rig.finish().await;
}

/// Attacks: frames and messages may come in any pieces.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn sliced_on_every_link() {
    let mut rig = Rig::start(Plan::new(1)).await;
    for link in [Link::Publish, Link::Consume, Link::Database] {
        Fault::Network(link, Mode::Slice).inject(&mut rig).await;
    }
    sleep(Duration::from_secs(4)).await;
    rig.expect_progress().await;
    for link in [Link::Publish, Link::Consume, Link::Database] {
        Fault::Network(link, Mode::Slice).heal(&mut rig).await;
    }
    rig.finish().await;
}

/// Attacks: no confirm, no 202, however long the silence.
#[tokio::test(flavor = "multi_thread")]
async fn publishing_into_a_blackhole() {
    let fault = Fault::Network(Link::Publish, Mode::Blackhole(None));
    Alone::new(fault).lasting(6).survive_with_503s().await;
}

/// Attacks: the broker has it and cannot say so; what is sent again has the same id.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn confirms_into_a_blackhole() {
    let fault = Fault::Network(Link::Publish, Mode::Blackhole(Some(Way::Down)));
    Alone::new(fault).lasting(6).survive_with_503s().await;
}

/// Attacks: what lies in the socket when its time is up is not answered 202 later.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn publishes_into_a_blackhole() {
    let fault = Fault::Network(Link::Publish, Mode::Blackhole(Some(Way::Up)));
    Alone::new(fault).lasting(6).survive_with_503s().await;
}

/// Attacks: a consumer that hears nothing notices, and subscribes anew.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn consuming_from_a_blackhole() {
    network(Link::Consume, Mode::Blackhole(None), 15).await;
}

/// Attacks: acknowledgements that do not arrive make duplicates, which count once.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn acknowledgements_into_a_blackhole() {
    network(Link::Consume, Mode::Blackhole(Some(Way::Up)), 15).await;
}

/// Attacks: a consumer that hears nothing but can speak.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn deliveries_into_a_blackhole() {
    network(Link::Consume, Mode::Blackhole(Some(Way::Down)), 15).await;
}

/// Attacks: a flush without an answer is done again on another connection, though the first may still commit.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn storing_into_a_blackhole() {
    network(Link::Database, Mode::Blackhole(None), 45).await;
}

/// Attacks: statements that do not arrive.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn statements_into_a_blackhole() {
    network(Link::Database, Mode::Blackhole(Some(Way::Up)), 15).await;
}

/// Attacks: results that do not arrive.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn results_into_a_blackhole() {
    network(Link::Database, Mode::Blackhole(Some(Way::Down)), 15).await;
}

/// Attacks: connections that are reset for a while, on each link.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn reset_on_every_link() {
    each_link(Mode::Reset).await;
}

/// Attacks: servers at which nothing listens for a while, on each link.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn refused_on_every_link() {
    each_link(Mode::Refuse).await;
}

async fn each_link(mode: Mode) {
    let mut rig = Rig::start(Plan::new(1)).await;
    for link in [Link::Publish, Link::Consume, Link::Database] {
        let fault = Fault::Network(link, mode);
        fault.inject(&mut rig).await;
        sleep(Duration::from_secs(3)).await;
        fault.heal(&mut rig).await;
        rig.expect_progress().await;
    }
    rig.finish().await;
}

// ---- Cut at the message on which a promise hangs ---------------------------------------------------

async fn cut(cut: Cut) {
    Alone::new(Fault::CutAt(cut))
        .lasting(0)
        .times(3)
        .survive()
        .await;
}

/// Attacks: the broker has the message and the publisher does not know; it is sent again with the same id.
#[tokio::test(flavor = "multi_thread")]
async fn the_confirm_is_lost() {
    cut(Cut::Confirm).await;
}

/// Attacks: the rows are there and the broker does not know; the second delivery changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_acknowledgement_is_lost() {
    cut(Cut::Ack).await;
}

/// Attacks: COMMIT happened and the writer does not know; doing it again changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_reply_to_commit_is_lost() {
    cut(Cut::CommitReply).await;
}

/// Attacks: COMMIT did not happen and the writer does not know; it is done again.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn commit_is_lost() {
    cut(Cut::Commit).await;
}

/// Attacks: half a batch is no batch.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn cut_inside_copy_data() {
    cut(Cut::CopyData).await;
}
