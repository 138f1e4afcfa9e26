//! What can go wrong, as something that is done to a rig and undone again.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use fastrand::Rng;
use lapin::options::{QueueBindOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use tokio::time::sleep;

use crate::client::until;
use crate::proxy::{Cut, Mode, Proxy, Way};
use crate::rig::{Rig, Role};
use crate::stack::Server;

/// Longest for something that a fault is about to happen under load.
const BITE_DEADLINE: Duration = Duration::from_secs(20);

/// A link that has a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// The publishing connections.
    Publish,
    /// The consuming connection.
    Consume,
    /// Connections to PostgreSQL.
    Database,
}

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
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
    /// The broker waits for acknowledgements no longer than a few seconds, and PostgreSQL does not answer.
    ImpatientBroker,
}

/// The policy by which the broker bounds the queue.
const LIMIT: &str = r#"{"max-length": 20}"#;

/// The disk that can be filled.
const SMALL_DISK_MIB: usize = 24;

impl Fault {
    /// Any fault at all.
    pub fn any(rng: &mut Rng) -> Self {
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
        match rng.u8(0..24) {
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
            13 => Self::DeleteQueue,
            14 => Self::DeleteBinding,
            15 => Self::FullQueue,
            16..20 => Self::Network(any_link(rng), any_mode(rng)),
            _ => Self::CutAt(any_cut(rng)),
        }
    }

    /// Makes it happen. Returns once it has, or is sure to last until it is healed.
    pub async fn inject(self, rig: &mut Rig) {
        rig.note(&format!("inject {self:?}"));
        match self {
            Self::KillRole(role) => rig.process(role).signal("KILL"),
            Self::EndRole(role) => rig.process(role).signal("TERM"),
            Self::StopRole(role) => rig.process(role).signal("STOP"),
            Self::Kill(server) => rig.turn.signal(server, "KILL"),
            Self::Stop(server) => rig.turn.signal(server, "STOP"),
            Self::Restart(server) => rig.turn.down(server),
            Self::KillBackend => signal_backend(rig, "KILL").await,
            Self::StopBackend => signal_backend(rig, "STOP").await,
            Self::CancelStatements => cancel_statements(rig).await,
            Self::LockTable => lock_table(rig).await,
            Self::MemoryAlarm => drop(rig.turn.ctl(&["set_vm_memory_high_watermark", "0"])),
            Self::DiskAlarm => drop(rig.turn.ctl(&["set_disk_free_limit", "999GB"])),
            Self::DeleteQueue => delete_queue(rig).await,
            Self::DeleteBinding => bind(rig, false).await,
            Self::FullQueue => fill_queue(rig),
            Self::Network(link, mode) => link.proxy(rig).set(mode),
            Self::CutAt(cut) => cut_at(rig, cut).await,
            Self::FullDisk => fill_disk(rig).await,
            Self::ImpatientBroker => {
                impatience(rig, 3_000, 1_000).await;
                lock_table(rig).await;
            }
        }
    }

    /// Puts right what does not right itself.
    pub async fn heal(self, rig: &mut Rig) {
        match self {
            Self::KillRole(role) | Self::EndRole(role) => rig.process(role).restart().await,
            Self::StopRole(role) => rig.process(role).signal("CONT"),
            Self::Kill(server) | Self::Restart(server) => {
                rig.turn.up(server);
                rig.reconnect_proxies();
            }
            Self::Stop(server) => rig.turn.signal(server, "CONT"),
            Self::StopBackend => rig.turn.signal(Server::Database, "CONT"),
            Self::LockTable => rig.held.clear(),
            Self::MemoryAlarm => drop(rig.turn.ctl(&["set_vm_memory_high_watermark", "0.4"])),
            Self::DiskAlarm => drop(rig.turn.ctl(&["set_disk_free_limit", "256MB"])),
            Self::DeleteBinding => bind(rig, true).await,
            Self::FullQueue => {
                rig.process(Role::Consume).signal("CONT");
                drop(rig.turn.ctl(&["clear_policy", &rig.name]));
            }
            Self::Network(link, _) => link.proxy(rig).set(Mode::Pass),
            Self::FullDisk => free_disk(rig),
            Self::ImpatientBroker => {
                rig.held.clear();
                impatience(rig, 1_800_000, 60_000).await;
            }
            Self::KillBackend | Self::CancelStatements | Self::DeleteQueue | Self::CutAt(_) => {}
        }
        rig.note(&format!("healed {self:?}"));
    }

    /// Whether both may last at the same time: not where the one needs what the other took away.
    pub fn goes_with(self, other: Self) -> bool {
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
                    | Self::ImpatientBroker
            )
        };
        !alone(&self)
            && !alone(&other)
            && std::mem::discriminant(&self) != std::mem::discriminant(&other)
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
        until(&what, BITE_DEADLINE, async || {
            (proxy.cuts() > before).then_some(())
        })
        .await;
    }
    link.proxy(rig).cut_none();
}

async fn signal_backend(rig: &mut Rig, signal: &str) {
    let backend = storing_backend(rig).await;
    crate::process::signal(signal, &[backend]);
}

/// The process that serves ticketd's writer.
async fn storing_backend(rig: &Rig) -> u32 {
    let sql = rig.turn.sql().await;
    let query = "select pid from pg_stat_activity where application_name = 'ticketd store'";
    until("a backend that stores", BITE_DEADLINE, async || {
        let row = sql.query_opt(query, &[]).await.unwrap();
        row.map(|row| u32::try_from(row.get::<_, i32>(0)).unwrap())
    })
    .await
}

/// Cancels for as long as it takes for some statements to have been hit.
async fn cancel_statements(rig: &mut Rig) {
    let sql = rig.turn.sql().await;
    let query = "select count(pg_cancel_backend(pid)) from pg_stat_activity \
        where application_name = 'ticketd store' and state = 'active'";
    let mut hits = 0;
    until("statements that are cancelled", BITE_DEADLINE, async || {
        hits += sql.query_one(query, &[]).await.unwrap().get::<_, i64>(0);
        (hits >= 30).then_some(())
    })
    .await;
}

async fn lock_table(rig: &mut Rig) {
    let sql = rig.turn.session(&rig.name).await;
    sql.batch_execute("begin; lock table tickets in access exclusive mode")
        .await
        .unwrap();
    // Counting rows would wait for the lock, so this session does it, too.
    rig.held.push(sql);
}

/// Without its consumer, the queue is full after a few messages.
fn fill_queue(rig: &mut Rig) {
    let pattern = format!("^{}$", rig.name);
    rig.turn.ctl(&[
        "set_policy",
        "--apply-to",
        "queues",
        &rig.name,
        &pattern,
        LIMIT,
    ]);
    rig.process(Role::Consume).signal("STOP");
}

/// Deletes the queue when all that was confirmed is stored: what a mistaken operator could lose
/// is nobody's promise, but ticketd must find its way back.
async fn delete_queue(rig: &mut Rig) {
    rig.driver.pause().await;
    until("an empty queue", Duration::from_secs(60), async || {
        let ready = rig.turn.ready_messages(&rig.name).await?;
        (ready == 0 && rig.is_all_stored().await).then_some(())
    })
    .await;
    let (connection, channel) = rig.turn.amqp().await;
    let options = QueueDeleteOptions::default();
    channel
        .queue_delete(rig.name.as_str().into(), options)
        .await
        .unwrap();
    connection.close(200, "deleted".into()).await.unwrap();
    rig.driver.resume();
}

async fn bind(rig: &Rig, bound: bool) {
    let (connection, channel) = rig.turn.amqp().await;
    let name = || rig.name.as_str().into();
    let arguments = FieldTable::default();
    let done = if bound {
        channel
            .queue_bind(
                name(),
                name(),
                name(),
                QueueBindOptions::default(),
                arguments,
            )
            .await
    } else {
        channel
            .queue_unbind(name(), name(), name(), arguments)
            .await
    };
    done.unwrap();
    connection.close(200, "bound".into()).await.unwrap();
}

/// Sets how long the broker waits for acknowledgements, and how often it looks, in ms; both count
/// for channels that are opened from now on, so the consumer must come anew.
async fn impatience(rig: &mut Rig, timeout_ms: u32, tick_ms: u32) {
    let set = format!(
        "application:set_env(rabbit, consumer_timeout, {timeout_ms}), \
         application:set_env(rabbit, channel_tick_interval, {tick_ms})."
    );
    rig.turn.ctl(&["eval", &set]);
    rig.consume.set(Mode::Reset);
    sleep(Duration::from_millis(100)).await;
    rig.consume.set(Mode::Pass);
}

fn small_disk(rig: &Rig) -> PathBuf {
    rig.turn.dir().join("small-disk")
}

/// Whether this machine lets us have a file system of our own to fill.
pub fn may_mount() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id starts");
    id.stdout == b"0\n" && Command::new("mount").arg("--version").output().is_ok()
}

fn shell(script: &str) {
    let output = Command::new("bash")
        .args(["-c", script])
        .output()
        .expect("bash starts");
    assert!(
        output.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Moves `tickets` to a small disk and fills what is left of it.
async fn fill_disk(rig: &mut Rig) {
    let disk = small_disk(rig).display().to_string();
    let pid = rig.turn.pid(Server::Database);
    shell(&format!(
        "mkdir -p {disk} && mount -t tmpfs -o size={SMALL_DISK_MIB}m,mode=700 tmpfs {disk} && \
         chmod a+x {} && chown --reference=/proc/{pid} {disk} && \
         install -d -o $(stat -c %u /proc/{pid}) -m 700 {disk}/data",
        rig.turn.dir().display()
    ));
    let sql = rig.turn.session(&rig.name).await;
    sql.batch_execute(&format!("create tablespace small location '{disk}/data'"))
        .await
        .unwrap();
    sql.batch_execute("alter table tickets set tablespace small")
        .await
        .unwrap();
    // dd ends when nothing more fits, which is what it is here for.
    shell(&format!(
        "dd if=/dev/zero of={disk}/ballast bs=64k status=none 2>/dev/null || true"
    ));
}

fn free_disk(rig: &Rig) {
    shell(&format!("rm {}/ballast", small_disk(rig).display()));
}

/// Gives the small disk back; the tables on it are gone by then.
pub async fn unmount(stack: &crate::stack::Turn) {
    let sql = stack.sql().await;
    sql.batch_execute("drop tablespace small").await.unwrap();
    shell(&format!(
        "umount {0} && rmdir {0}",
        stack.dir().join("small-disk").display()
    ));
}
