//! What can go wrong, as something that is done to a rig and undone again.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::sleep;

use crate::backend::{
    cancel_statements, kill_backend, lock_table, refuse_all, refuse_nothing, storing_backend,
};
use crate::full_disk;
use crate::given_up::{give_up, repair_killed, repaired};
use crate::proxy::{Cut, Mode, Proxy, Way};
use crate::rig::Rig;
use crate::stack::{DISK_ENOUGH, Exclusivity, MEMORY_ENOUGH, PATIENT, Server};
use crate::ticketd::Role;
use crate::topology::{bind, delete_queue, fill_queue};
use ticketd_testing::{signal, wait_within};

/// Maximum wait for what a fault needs to happen under load.
const INJECT_DEADLINE: Duration = Duration::from_secs(20);

/// How long what repairs has before it is killed: about half of what it needs.
const REPAIRED_FOR: Duration = Duration::from_millis(50);

/// A link that has a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// The publishing connections.
    Publish,
    /// The consuming connection.
    Consume,
    /// Connections to PostgreSQL.
    Database,
}

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// kill -9 of a role, which its supervisor starts again.
    KillRole(Role),
    /// SIGTERM of a role, which its supervisor starts again.
    EndRole(Role),
    /// SIGSTOP of a role.
    StopRole(Role),
    /// kill -9 of every process of a server.
    Kill(Server),
    /// SIGSTOP of every process of a server.
    Stop(Server),
    /// A server is shut down and started again by its operator.
    Restart(Server),
    /// kill -9 of the backend that stores, which makes PostgreSQL end all others and recover.
    KillBackend,
    /// SIGSTOP of the backend that stores.
    StopBackend,
    /// The backend that stores is told to cancel its statement, again and again.
    CancelStatements,
    /// Nobody can write to `tickets`.
    LockTable,
    /// The broker says that its memory is full, and blocks publishers.
    MemoryAlarm,
    /// The broker says that its disk is full, and blocks publishers.
    DiskAlarm,
    /// The queue is deleted once it holds nothing that was confirmed.
    DeleteQueue,
    /// The queue is no longer bound to its exchange.
    DeleteBinding,
    /// The queue takes no more than a few messages, and nothing takes them out.
    FullQueue,
    /// The network of a link.
    Network(Link, Mode),
    /// A connection is cut at one message.
    CutAt(Cut),
    /// PostgreSQL's disk is full.
    FullDisk,
    /// The table takes no ticket.
    RefuseAll,
    /// The broker gives up delivering some messages, and what repairs that is killed once.
    GiveUp,
    /// The broker waits for acknowledgements no longer than a few seconds, and PostgreSQL does not answer.
    ImpatientBroker,
}

/// What the consumer logs when it gives its deliveries back.
pub(crate) const GAVE_UP: &str = "too long to hold deliveries";

/// What it logs when the broker was first: that closes the channel, and from RabbitMQ 4.3 on it ends
/// the subscription instead.
const LOST_PATIENCE: [&str; 2] = ["PRECONDITION_FAILED", "RabbitMQ cancelled"];

/// How often the broker was first.
pub(crate) fn patience_lost(log: &str) -> usize {
    let count = |said: &str| log.matches(said).count();
    LOST_PATIENCE.into_iter().map(count).sum()
}

/// The broker waits for acknowledgements for 5 s, and looks every second.
const IMPATIENT: &[&str] = &[
    "eval",
    "application:set_env(rabbit, consumer_timeout, 5000), \
     application:set_env(rabbit, channel_tick_interval, 1000).",
];

impl Fault {
    /// Any fault at all.
    pub(crate) fn any(rng: &mut Rng) -> Self {
        let server = if rng.bool() {
            Server::Broker
        } else {
            Server::Database
        };
        let role = if rng.bool() {
            Role::Accept
        } else {
            Role::Consume
        };
        match rng.u8(0..29) {
            0..2 => Self::KillRole(role),
            2 => Self::EndRole(role),
            3 => Self::StopRole(role),
            4..6 => Self::Kill(server),
            6 => Self::Stop(server),
            7 => Self::Restart(server),
            8 => Self::KillBackend,
            9 => Self::StopBackend,
            10 => Self::CancelStatements,
            11 => Self::LockTable,
            12 => Self::MemoryAlarm,
            13 => Self::DiskAlarm,
            14 => Self::DeleteQueue,
            15 => Self::DeleteBinding,
            16 => Self::FullQueue,
            17 => Self::FullDisk,
            18 => Self::ImpatientBroker,
            19 => Self::RefuseAll,
            20 => Self::GiveUp,
            21..25 => Self::Network(any_link(rng), any_mode(rng)),
            _ => Self::CutAt(any_cut(rng)),
        }
    }

    /// Makes it happen. Returns once it has, or is sure to last until it is healed.
    pub(crate) async fn inject(self, rig: &mut Rig) {
        rig.note(&format!("inject {self:?}"));
        match self {
            Self::KillRole(role) => rig.process(role).signal("KILL"),
            Self::EndRole(role) => rig.process(role).signal("TERM"),
            Self::StopRole(role) => rig.process(role).signal("STOP"),
            Self::Kill(server) => rig.stack.signal(server, "KILL"),
            Self::Stop(server) => rig.stack.signal(server, "STOP"),
            Self::Restart(server) => rig.stack.down(server),
            Self::KillBackend => kill_backend(rig).await,
            Self::StopBackend => {
                rig.stopped = vec![storing_backend(rig).await];
                signal("STOP", &rig.stopped);
            }
            Self::CancelStatements => cancel_statements(rig).await,
            Self::LockTable => lock_table(rig).await,
            Self::MemoryAlarm => drop(rig.stack.ctl(&["set_vm_memory_high_watermark", "0"])),
            Self::DiskAlarm => drop(rig.stack.ctl(&["set_disk_free_limit", "999GB"])),
            Self::DeleteQueue => delete_queue(rig).await,
            Self::DeleteBinding => bind(rig, false).await,
            Self::FullQueue => fill_queue(rig),
            Self::Network(link, mode) => link.proxy(rig).set(mode),
            Self::CutAt(cut) => cut_at(rig, cut).await,
            Self::FullDisk => full_disk::fill(rig).await,
            Self::ImpatientBroker => lose_patience(rig).await,
            Self::RefuseAll => refuse_all(rig).await,
            Self::GiveUp => give_up(rig, 8).await,
        }
    }

    /// Puts right what does not right itself.
    pub(crate) async fn heal(self, rig: &mut Rig) {
        match self {
            Self::KillRole(role) | Self::EndRole(role) => rig.process(role).restart().await,
            Self::StopRole(role) => rig.process(role).signal("CONT"),
            Self::Kill(server) | Self::Restart(server) => {
                rig.stack.up(server);
                rig.reconnect_proxies();
            }
            Self::Stop(server) => rig.stack.signal(server, "CONT"),
            Self::StopBackend => signal("CONT", &rig.stopped),
            Self::LockTable => rig.held.clear(),
            Self::MemoryAlarm => drop(rig.stack.ctl(MEMORY_ENOUGH)),
            Self::DiskAlarm => drop(rig.stack.ctl(DISK_ENOUGH)),
            Self::DeleteBinding => bind(rig, true).await,
            Self::FullQueue => {
                rig.process(Role::Consume).signal("CONT");
                drop(rig.stack.ctl(&["clear_policy", &rig.name]));
            }
            Self::Network(link, _) => link.proxy(rig).set(Mode::Pass),
            Self::FullDisk => full_disk::free(rig).await,
            Self::RefuseAll => refuse_nothing(rig).await,
            Self::GiveUp => {
                repair_killed(rig, REPAIRED_FOR).await;
                repaired(rig).await;
            }
            Self::ImpatientBroker => {
                rig.held.clear();
                set_patience(rig, PATIENT).await;
            }
            // PostgreSQL recovers by itself, in its own time.
            Self::KillBackend => drop(rig.stack.sql().await),
            Self::CancelStatements | Self::DeleteQueue | Self::CutAt(_) => {}
        }
        rig.note(&format!("healed {self:?}"));
    }

    /// How much of the machine it needs.
    pub(crate) fn exclusivity(self) -> Exclusivity {
        match self {
            Self::Kill(_)
            | Self::Stop(_)
            | Self::Restart(_)
            | Self::KillBackend
            | Self::MemoryAlarm
            | Self::DiskAlarm
            | Self::ImpatientBroker => Exclusivity::Exclusive,
            _ => Exclusivity::Shared,
        }
    }

    /// Whether both may last at the same time: not where the one needs what the other took away.
    pub(crate) fn goes_with(self, other: Self) -> bool {
        let alone = |fault: &Self| {
            matches!(
                fault,
                Self::Kill(_)
                    | Self::Restart(_)
                    | Self::Stop(_)
                    | Self::KillBackend
                    | Self::StopBackend
                    | Self::CancelStatements
                    | Self::DeleteQueue
                    | Self::FullQueue
                    | Self::CutAt(_)
                    | Self::StopRole(_)
                    | Self::FullDisk
                    | Self::RefuseAll
                    | Self::GiveUp
                    | Self::ImpatientBroker
            )
        };
        // Each would wait for the end of the process that the other has started again.
        let ends_a_role = |fault: &Self| matches!(fault, Self::KillRole(_) | Self::EndRole(_));
        let is_one_alone = alone(&self) || alone(&other);
        let are_of_a_kind = std::mem::discriminant(&self) == std::mem::discriminant(&other);
        let end_a_role = ends_a_role(&self) && ends_a_role(&other);
        !is_one_alone && !are_of_a_kind && !end_a_role
    }
}

impl Link {
    fn proxy(self, rig: &Rig) -> &Proxy {
        match self {
            // One process has one URL for both.
            Self::Consume if rig.processes.len() > 1 => &rig.consume,
            Self::Publish | Self::Consume => &rig.publish,
            Self::Database => &rig.database,
        }
    }
}

fn any_link(rng: &mut Rng) -> Link {
    [Link::Publish, Link::Consume, Link::Database][rng.usize(0..3)]
}

fn any_mode(rng: &mut Rng) -> Mode {
    match rng.u8(0..7) {
        0 => Mode::Delay(Duration::from_millis(rng.u64(20..300))),
        1 => Mode::Slice,
        2 => Mode::Blackhole(None),
        3 => Mode::Blackhole(Some(Way::Up)),
        4 => Mode::Blackhole(Some(Way::Down)),
        5 => Mode::Reset,
        _ => Mode::Refuse,
    }
}

fn any_cut(rng: &mut Rng) -> Cut {
    [
        Cut::Confirm,
        Cut::Ack,
        Cut::CommitReply,
        Cut::Commit,
        Cut::CopyData,
    ][rng.usize(0..5)]
}

/// Cuts a few times in a row, each as soon as ticketd is back at it.
async fn cut_at(rig: &mut Rig, cut: Cut) {
    let link = match cut {
        Cut::Confirm => Link::Publish,
        Cut::Ack => Link::Consume,
        Cut::CommitReply | Cut::Commit | Cut::CopyData => Link::Database,
    };
    for _ in 0..3 {
        let proxy = link.proxy(rig);
        let before = proxy.cuts();
        proxy.cut_once(cut);
        let what = format!("a cut at {cut:?}");
        wait_within(&what, INJECT_DEADLINE, async || {
            (proxy.cuts() > before).then_some(())
        })
        .await;
    }
    link.proxy(rig).cut_none();
}

/// Makes the broker impatient and has it wait, until its patience or the consumer's has ended.
async fn lose_patience(rig: &mut Rig) {
    let ends = |log: String| log.matches(GAVE_UP).count() + patience_lost(&log);
    set_patience(rig, IMPATIENT).await;
    let before = ends(rig.log(Role::Consume));
    lock_table(rig).await;
    wait_within("an end of patience", INJECT_DEADLINE, async || {
        (ends(rig.log(Role::Consume)) > before).then_some(())
    })
    .await;
}

/// Sets how long the broker waits for acknowledgements; that counts for channels that are opened
/// from now on, so the consumer must come anew.
async fn set_patience(rig: &Rig, setting: &[&str]) {
    rig.stack.ctl(setting);
    let link = Link::Consume.proxy(rig);
    link.set(Mode::Reset);
    sleep(Duration::from_millis(100)).await;
    link.set(Mode::Pass);
}
