//! What ticketd tells the supervisor that starts it, as systemd listens to it.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::time::Duration;

use ticketd_testing::*;

use crate::TICKETD;

/// The servers are away: nothing listens there.
const AWAY: [(&str, &str); 2] = [
    ("AMQP_URL", "amqp://127.0.0.1:1/%2f"),
    ("DATABASE_URL", "postgres://127.0.0.1:1/nothing"),
];

/// What is told is heard within that time; nothing is told in less than a watchdog's quarter.
const HEARD_MAX: Duration = Duration::from_secs(10);

/// The end of the socket that a supervisor has.
struct Supervisor {
    socket: UnixDatagram,
    /// What NOTIFY_SOCKET says.
    name: String,
}

impl Supervisor {
    /// With a socket in the file system.
    fn new() -> Self {
        let name = std::env::temp_dir().join(format!("ticketd-{}", uuid::Uuid::now_v7()));
        let socket = UnixDatagram::bind(&name).unwrap();
        Self::listening(socket, name.to_str().unwrap().to_owned())
    }

    /// With one that has a name in the kernel alone.
    fn with_abstract_name() -> Self {
        let name = format!("ticketd-{}", uuid::Uuid::now_v7());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        Self::listening(socket, format!("@{name}"))
    }

    fn listening(socket: UnixDatagram, name: String) -> Self {
        socket.set_read_timeout(Some(HEARD_MAX)).unwrap();
        Self { socket, name }
    }

    /// Starts a role with servers that are away, and a watchdog that waits for 400 ms.
    fn start(&self, role: &str, more: &[(&str, &str)]) -> Process {
        Process::start(TICKETD, &[role], &self.settings(more))
    }

    fn settings<'a>(&'a self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let mut settings = vec![
            ("NOTIFY_SOCKET", self.name.as_str()),
            ("WATCHDOG_USEC", "400000"),
            ("LISTEN", "127.0.0.1:0"),
            ("ADMIN_LISTEN", "127.0.0.1:0"),
            ("LAME_DUCK", "0s"),
        ];
        settings.extend(AWAY);
        settings.extend(more);
        settings
    }

    /// The next message's lines.
    fn hears(&self) -> Vec<String> {
        self.try_hears().expect("ticketd tells something")
    }

    fn try_hears(&self) -> Option<Vec<String>> {
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).ok()?;
        let message = std::str::from_utf8(&message[..length]).expect("text");
        Some(message.lines().map(str::to_owned).collect())
    }

    /// The next message that has that line.
    fn hears_of(&self, line: &str) -> Vec<String> {
        for _ in 0..100 {
            let message = self.hears();
            if message.iter().any(|told| told == line) {
                return message;
            }
        }
        panic!("nothing told {line}");
    }

    /// Whether there is a sign of life within that time; an older one does not count.
    fn hears_life_within(&self, longest: Duration) -> bool {
        self.socket.set_nonblocking(true).unwrap();
        while self.try_hears().is_some() {}
        self.socket.set_nonblocking(false).unwrap();
        self.socket.set_read_timeout(Some(longest)).unwrap();
        let heard = std::iter::from_fn(|| self.try_hears()).any(|told| told == ["WATCHDOG=1"]);
        self.socket.set_read_timeout(Some(HEARD_MAX)).unwrap();
        heard
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // There is none where the name is in the kernel alone.
        let _removed = std::fs::remove_file(&self.name);
    }
}

/// A role is up as soon as it listens, and is neither restarted nor taken for stuck because its servers are
/// away: starts each without them, over either kind of socket.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_its_servers_is_up_and_alive() {
    for (role, status) in [
        (
            "serve",
            "publishing to RabbitMQ, consuming from RabbitMQ, PostgreSQL",
        ),
        ("accept", "publishing to RabbitMQ"),
        ("consume", "consuming from RabbitMQ, PostgreSQL"),
    ] {
        for supervisor in [Supervisor::new(), Supervisor::with_abstract_name()] {
            let ticketd = supervisor.start(role, &[]);
            assert_eq!(supervisor.hears(), ["READY=1"], "{role}");
            supervisor.hears_of(&format!("STATUS=not ready; lacks {status}"));
            for _ in 0..3 {
                supervisor.hears_of("WATCHDOG=1");
            }
            ticketd.drained().await;
        }
    }
}

/// The status follows the servers: starts a role that has them.
#[tokio::test(flavor = "multi_thread")]
async fn the_status_says_that_nothing_is_lacking() {
    let namespace = Namespace::new(TICKETD).await;
    let supervisor = Supervisor::new();
    let settings = [("NOTIFY_SOCKET", supervisor.name.as_str())];
    let ticketd = namespace.ready("serve", &settings).await;
    supervisor.hears_of("STATUS=ready");
    ticketd.drained().await;
}

/// `systemctl reload` sends SIGHUP, which does not end a role that has no file to read again, and waits until
/// it is told that all is read: reloads twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_is_told_from_its_beginning_to_its_end() {
    let supervisor = Supervisor::new();
    let ticketd = supervisor.start("accept", &[]);
    supervisor.hears_of("READY=1");
    let mut before = 0;
    for _ in 0..2 {
        ticketd.signal("HUP");
        let told = supervisor.hears_of("RELOADING=1");
        let since: u128 = told[1]
            .strip_prefix("MONOTONIC_USEC=")
            .unwrap()
            .parse()
            .unwrap();
        assert!(since > before, "{told:?}");
        before = since;
        assert_eq!(supervisor.hears_of("READY=1"), ["READY=1"]);
    }
    ticketd.drained().await;
}

/// The supervisor learns of the end as it begins, and how long it may take: ends a lame duck.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_is_told_when_it_begins() {
    let supervisor = Supervisor::new();
    let ticketd = supervisor.start("accept", &[("LAME_DUCK", "10m"), ("SHUTDOWN_GRACE", "20s")]);
    supervisor.hears_of("READY=1");
    ticketd.signal("TERM");
    // 600 s + 20 s, and 5 s for what follows.
    let told = supervisor.hears_of("STOPPING=1");
    assert_eq!(told, ["STOPPING=1", "EXTEND_TIMEOUT_USEC=625000000"]);
    supervisor.hears_of("STATUS=shutting down; lacks publishing to RabbitMQ");
    supervisor.hears_of("WATCHDOG=1");
    ticketd.signal("TERM");
    assert_eq!(ticketd.ended().await.code(), Some(1));
}

/// A supervisor that takes nothing holds nothing up: fills its socket, reloads, and ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_that_hangs_holds_nothing_up() {
    let supervisor = Supervisor::new();
    let (filler, _) = UnixDatagram::pair().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"STATUS=", &supervisor.name).is_ok() {}
    let mut ticketd = supervisor.start("accept", &[]);
    let mut client = ticketd.client().await;
    assert_eq!(client.ask(get("/livez")).await.status, 200);
    ticketd.signal("HUP");
    assert_eq!(client.ask(get("/livez")).await.status, 200);
    ticketd.drained().await;
}

/// A sign of life is one of every thread: has a single one of them stopped, as a debugger does, and let go
/// again.
#[tokio::test(flavor = "multi_thread")]
async fn a_thread_that_is_stuck_ends_the_signs_of_life() {
    for (role, thread) in [
        ("accept", "worker"),
        ("consume", "consumer"),
        ("serve", "ticketd"),
    ] {
        let supervisor = Supervisor::new();
        let ticketd = start_for_a_debugger(role, &supervisor.settings(&[]));
        supervisor.hears_of("WATCHDOG=1");
        let stopped = stop_thread(ticketd.pid(), thread).await;
        // What was under way when it stopped.
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(
            !supervisor.hears_life_within(Duration::from_secs(1)),
            "{role}: {thread}"
        );
        drop(stopped);
        supervisor.hears_of("WATCHDOG=1");
        ticketd.drained().await;
    }
}

/// The numbers of system calls: ptrace and prctl.
const CALLS: [&str; 2] = if cfg!(target_arch = "aarch64") {
    ["117", "167"]
} else {
    ["101", "157"]
};

/// Starts ticketd as a process that any other of its user may stop, where that has to be allowed
/// (PR_SET_PTRACER).
fn start_for_a_debugger(role: &str, settings: &[(&str, &str)]) -> Process {
    let allow = "syscall(shift() + 0, 0x59616d61, ~0, 0, 0, 0); exec { $ARGV[0] } @ARGV or die";
    let mut command = Command::new("perl");
    command
        .args(["-e", allow, CALLS[1], TICKETD, role])
        .env_clear();
    command.envs(settings.iter().copied());
    Process::spawn(&mut command, None)
}

/// Stops a thread by its name (PTRACE_SEIZE, PTRACE_INTERRUPT) until the process that does so ends.
async fn stop_thread(pid: u32, name: &str) -> Process {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut tasks = tasks.map(|task| task.unwrap().path());
    let named = |path: &std::path::PathBuf| {
        std::fs::read_to_string(path.join("comm")).unwrap().trim() == name
    };
    let task = tasks.find(named).expect("a thread of that name");
    let stop = "syscall($ARGV[0] + 0, 0x4206, $ARGV[1] + 0, 0, 0) == 0 or die $!; \
                syscall($ARGV[0] + 0, 0x4207, $ARGV[1] + 0, 0, 0) == 0 or die $!; \
                print STDERR \"stopped\"; sleep 60";
    let mut command = Command::new("perl");
    let id = task.file_name().unwrap().to_str().unwrap();
    command.args(["-e", stop, CALLS[0], id]);
    let stopping = Process::spawn(&mut command, None);
    stopping.logged("stopped").await;
    stopping
}
