//! A private PostgreSQL and a private RabbitMQ that the tests may disrupt.
//!
//! Started once for the test binary, by deploy/stack.sh in a folder of its own,
//! and stopped by reaper.sh when the binary has ended, however it ended.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Queue};
use ticketd_testing::servers::{Servers, connect, in_schema};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::Client;

use ticketd_testing::proc;

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy");
const REAPER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/reaper.sh");

/// The broker's settings that tests change, as they should be.
pub(crate) const MEMORY_ENOUGH: &[&str] = &["set_vm_memory_high_watermark", "0.4"];
pub(crate) const DISK_ENOUGH: &[&str] = &["set_disk_free_limit", "512MB"];
pub(crate) const PATIENT: &[&str] = &[
    "eval",
    "application:set_env(rabbit, consumer_timeout, 1800000), \
     application:set_env(rabbit, channel_tick_interval, 60000).",
];
const DEFAULTS: [&[&str]; 3] = [MEMORY_ENOUGH, DISK_ENOUGH, PATIENT];

/// The variables that would make stack.sh take somebody else's servers.
const FOREIGN_URLS: [&str; 4] = ["DATABASE_URL", "AMQP_URL", "RABBITMQ_URL", "STACK_URLS"];

static SERVERS: OnceLock<Stack> = OnceLock::new();

/// The machine in parts, of which a test takes as many as it needs: all that a test may do without
/// disturbing another takes one.
static MACHINE: Semaphore = Semaphore::const_new(PARTS as usize);
const PARTS: u32 = 2;

/// How much of the machine a test needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exclusivity {
    /// All of it: it disrupts a server, or measures time or memory.
    Exclusive,
    /// It disrupts nothing but its own processes, links, queues and tables.
    Shared,
}

/// A part of the machine, or all of it.
pub(crate) type MachineSlot = SemaphorePermit<'static>;

/// Waits for a part of the machine without the servers.
pub(crate) async fn machine_slot(exclusivity: Exclusivity) -> MachineSlot {
    let parts = if exclusivity == Exclusivity::Exclusive {
        PARTS
    } else {
        1
    };
    MACHINE.acquire_many(parts).await.expect("never closed")
}

/// The use of the servers, both up and as they should be.
pub(crate) struct StackLease {
    stack: &'static Stack,
    _slot: MachineSlot,
}

/// Waits for as much of the machine, and repairs the servers where a test that failed left a fault behind.
pub(crate) async fn lease(exclusivity: Exclusivity) -> StackLease {
    let mut slot = machine_slot(exclusivity).await;
    let stack = SERVERS.get_or_init(Stack::start);
    if stack.needs_repair.load(Ordering::SeqCst) {
        drop(slot);
        slot = machine_slot(Exclusivity::Exclusive).await;
        stack.repair();
        if exclusivity == Exclusivity::Shared {
            drop(slot.split(PARTS as usize - 1));
        }
    }
    StackLease { stack, _slot: slot }
}

impl Drop for StackLease {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.stack.needs_repair.store(true, Ordering::SeqCst);
        }
    }
}

impl std::ops::Deref for StackLease {
    type Target = Stack;

    fn deref(&self) -> &Stack {
        self.stack
    }
}

/// Either of the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    /// RabbitMQ.
    Broker,
    /// PostgreSQL.
    Database,
}

impl Server {
    fn name(self) -> &'static str {
        match self {
            Self::Broker => "rabbitmq",
            Self::Database => "postgres",
        }
    }
}

/// Both servers and the folder that they live in.
pub(crate) struct Stack {
    dir: PathBuf,
    running: Mutex<[Option<Running>; 2]>,
    /// Set by a test that failed, and may have left a fault behind.
    needs_repair: AtomicBool,
    /// Open as long as this process lives; reaper.sh waits for its end.
    _reaper: std::process::Child,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    pid: u32,
    port: u16,
    /// Where it speaks TLS.
    tls_port: u16,
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

impl Stack {
    fn start() -> Self {
        let dir = std::env::temp_dir().join(format!("ticketd-faults-{}", std::process::id()));
        // Used from a copy, so that the servers can be stopped though the checkout is gone by then.
        std::fs::create_dir_all(&dir).unwrap();
        copy_folder(Path::new(DEPLOY), &dir.join("deploy"));
        let reaper = Command::new("setsid")
            .args(["bash", REAPER])
            .env("STACK_DIR", &dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("setsid and bash start");
        let stack = Self {
            dir,
            running: Mutex::default(),
            needs_repair: AtomicBool::new(false),
            _reaper: reaper,
        };
        stack.up(Server::Database);
        stack.up(Server::Broker);
        stack
    }

    /// The folder for everything that belongs to this run.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What runs stack.sh for the servers in that folder.
    pub(crate) fn command(&self, place: &Path, args: &[&str]) -> Command {
        let mut command = Command::new("bash");
        let script = self.dir.join("deploy/stack.sh");
        command.arg(script).args(args).env("STACK_DIR", place);
        for name in FOREIGN_URLS {
            command.env_remove(name);
        }
        command.stdin(Stdio::null());
        command
    }

    /// Runs stack.sh for the servers in that folder, to its end.
    pub(crate) fn run_in(&self, place: &Path, args: &[&str]) -> String {
        let output = self.command(place, args).output().expect("bash starts");
        assert!(
            output.status.success(),
            "stack.sh {args:?} failed: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn run(&self, args: &[&str]) -> String {
        self.run_in(&self.dir, args)
    }

    /// Starts a server that is not running, and takes note of its port.
    pub(crate) fn up(&self, server: Server) {
        self.run(&["up", server.name()]);
        let status = self
            .command(&self.dir, &["status"])
            .output()
            .expect("bash starts");
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(server.name()))
            .expect("a line for each server");
        // PostgreSQL speaks both on one port.
        let tls_port = match server {
            Server::Broker => "tls_port=",
            Server::Database => "port=",
        };
        self.running()[server as usize] = Some(Running {
            pid: number(line, "pid="),
            port: number(line, "port="),
            tls_port: number(line, tls_port),
        });
    }

    /// Shuts a server down as its operator would.
    pub(crate) fn down(&self, server: Server) {
        self.run(&["down", server.name()]);
    }

    fn running(&self) -> MutexGuard<'_, [Option<Running>; 2]> {
        self.running.lock().unwrap()
    }

    fn server(&self, server: Server) -> Running {
        self.running()[server as usize].expect("it was started")
    }

    /// Where a server listens itself.
    pub(crate) fn port(&self, server: Server) -> u16 {
        self.server(server).port
    }

    /// Where a server speaks TLS itself.
    pub(crate) fn tls_port(&self, server: Server) -> u16 {
        self.server(server).tls_port
    }

    /// The CA of the servers' certificates, which are for the name localhost.
    pub(crate) fn ca(&self) -> PathBuf {
        self.dir.join("tls/ca.pem")
    }

    /// A server's main process.
    pub(crate) fn pid(&self, server: Server) -> u32 {
        self.server(server).pid
    }

    /// Sends a signal to all processes of a server at once.
    pub(crate) fn signal(&self, server: Server, signal: &str) {
        ticketd_testing::signal(signal, &proc::family(self.pid(server)));
    }

    /// Runs rabbitmqctl.
    pub(crate) fn ctl(&self, args: &[&str]) -> String {
        self.run(&[&["ctl", "--quiet"], args].concat())
    }

    /// Undoes whatever a test that failed may have left behind, so that one failure is one failure.
    fn repair(&self) {
        for server in [Server::Database, Server::Broker] {
            let pid = self.pid(server);
            if proc::is_alive(pid) {
                self.signal(server, "CONT");
            } else {
                self.up(server);
            }
        }
        for setting in DEFAULTS {
            self.ctl(setting);
        }
        self.needs_repair.store(false, Ordering::SeqCst);
    }

    /// Where the servers are, past all proxies.
    pub(crate) fn servers(&self) -> Servers {
        Servers {
            amqp_url: amqp_url(self.port(Server::Broker)),
            database_url: plain_database_url(self.port(Server::Database)),
        }
    }

    /// A session in the database, past all proxies.
    pub(crate) async fn sql(&self) -> Client {
        self.session("public").await
    }

    /// The same with a schema of its own in front.
    pub(crate) async fn session(&self, schema: &str) -> Client {
        let deadline = Instant::now() + Duration::from_secs(60);
        let url = self.servers().schema_url(schema);
        loop {
            match connect(&url).await {
                Ok(client) => return client,
                Err(error) => assert!(Instant::now() < deadline, "PostgreSQL: {error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A channel to the broker, past all proxies.
    pub(crate) async fn amqp(&self) -> (Connection, Channel) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let servers = self.servers();
        loop {
            match servers.broker().await {
                Ok(connection) => {
                    let channel = connection.create_channel().await.unwrap();
                    return (connection, channel);
                }
                Err(error) => assert!(Instant::now() < deadline, "RabbitMQ: {error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// How many messages of a queue are not with a consumer; none without the queue.
    pub(crate) async fn ready_messages(&self, queue: &str) -> Option<u32> {
        Some(self.queue(queue).await?.message_count())
    }

    /// What the broker says of a queue, if there is one.
    pub(crate) async fn queue(&self, queue: &str) -> Option<Queue> {
        let (connection, channel) = self.amqp().await;
        let options = QueueDeclareOptions {
            passive: true,
            ..Default::default()
        };
        let declared = channel
            .queue_declare(queue.into(), options, FieldTable::default())
            .await;
        let _closed = connection.close(200, "asked".into()).await;
        declared.ok()
    }
}

/// The number after that name in a line of stack.sh's status.
pub(crate) fn number<T: std::str::FromStr>(line: &str, name: &str) -> T {
    line.split_whitespace()
        .find_map(|word| word.strip_prefix(name))
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("no {name} in {line:?}"))
}

/// PostgreSQL's URL, with everything in a schema of its own.
pub(crate) fn database_url(port: u16, schema: &str) -> String {
    in_schema(&plain_database_url(port), schema)
}

fn plain_database_url(port: u16) -> String {
    format!("postgres://ticketd@127.0.0.1:{port}/ticketd?sslmode=disable")
}

/// RabbitMQ's URL. A hung broker is noticed after two heartbeats of so many seconds, which must be
/// shorter here than in production for tests to see the end of it.
pub(crate) fn amqp_url(port: u16) -> String {
    format!("amqp://guest:guest@127.0.0.1:{port}/%2f?heartbeat=4")
}
