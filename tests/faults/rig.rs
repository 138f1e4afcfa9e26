//! One test's ticketd: its processes, the proxies around them, the load on them, and the verdict.

use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::checker;
use crate::client::{self, until};
use crate::ledger::{Driver, Ledger};
use crate::process::{self, Usage};
use crate::proxy::{Protocol, Proxy};
use crate::stack::{self, Server, Turn};

/// Longest for a process to listen, and to end when told to.
const PROCESS_DEADLINE: Duration = Duration::from_secs(30);

/// Longest from a heal to the next 202 and the next row.
pub const PROGRESS_DEADLINE: Duration = Duration::from_secs(10);

/// Longest for what is queued to be stored once all is well.
const DRAIN_DEADLINE: Duration = Duration::from_secs(90);

/// What a process may use more at the end than at the start: buffers that grew to their size, and
/// threads that have not gone to sleep for good yet.
const GROWTH: Usage = Usage {
    rss_kib: 64 * 1024,
    files: 8,
    threads: 4,
    cpu_ticks: 0,
};

/// The roles, each of which is a process here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// ticketd accept
    Accept,
    /// ticketd consume
    Consume,
    /// ticketd serve
    Serve,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Consume => "consume",
            Self::Serve => "serve",
        }
    }
}

/// Settings that differ from one test to the next.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What the load and the faults are drawn from.
    pub seed: u64,
    /// Both roles in one process.
    pub together: bool,
    /// Tickets a second.
    pub rate: u32,
    /// Further environment of ticketd.
    pub env: Vec<(&'static str, String)>,
}

impl Plan {
    /// Two processes, and a load that two cores carry beside everything else.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            together: false,
            rate: 120,
            env: Vec::new(),
        }
    }
}

/// A running ticketd; dropping it kills it.
pub struct Ticketd {
    /// Its role.
    pub role: Role,
    child: Child,
    command: Vec<(String, String)>,
    log: PathBuf,
    /// Where it listens.
    pub address: SocketAddr,
    ulimit_files: Option<u32>,
}

impl Ticketd {
    /// Starts one with this environment alone and waits until it listens.
    pub async fn start(role: Role, log: PathBuf, env: Vec<(String, String)>) -> Self {
        Self::start_with(role, log, env, None).await
    }

    /// The same with a bound on its open files.
    pub async fn start_with(
        role: Role,
        log: PathBuf,
        command: Vec<(String, String)>,
        ulimit_files: Option<u32>,
    ) -> Self {
        let child = spawn(role, &log, &command, None, ulimit_files);
        let address = ([127, 0, 0, 1], 0).into();
        let mut ticketd = Self {
            role,
            child,
            command,
            log,
            address,
            ulimit_files,
        };
        ticketd.address = ticketd.listening(0).await;
        ticketd
    }

    async fn listening(&mut self, from: u64) -> SocketAddr {
        let log = self.log.clone();
        until(
            &format!("an address in {}", log.display()),
            PROCESS_DEADLINE,
            async || {
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                let new = text.get(usize::try_from(from).unwrap()..)?;
                let line = new.lines().find(|line| line.contains("LISTEN "))?;
                line.rsplit(' ').next()?.parse().ok()
            },
        )
        .await
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: &str) {
        process::signal(signal, &[self.pid()]);
    }

    /// Starts it again where it was, once the process there was has ended.
    pub async fn restart(&mut self) {
        self.child.wait().unwrap();
        let from = std::fs::metadata(&self.log).map_or(0, |log| log.len());
        self.child = spawn(
            self.role,
            &self.log,
            &self.command,
            Some(self.address),
            self.ulimit_files,
        );
        self.listening(from).await;
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let (child, log) = (&mut self.child, &self.log);
        until(
            &format!("the end of {}", log.display()),
            PROCESS_DEADLINE,
            async || child.try_wait().unwrap(),
        )
        .await
    }

    /// Whether /readyz says so.
    pub async fn is_ready(&self) -> bool {
        client::get(self.address, "/readyz")
            .await
            .is_ok_and(|answer| answer.status == 200)
    }

    /// A metric's value, all its labels added up.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = client::get(self.address, "/metrics").await.unwrap().body;
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }
}

impl Drop for Ticketd {
    fn drop(&mut self) {
        // It may be stopped, or gone already.
        let _gone = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn spawn(
    role: Role,
    log: &PathBuf,
    env: &[(String, String)],
    address: Option<SocketAddr>,
    ulimit_files: Option<u32>,
) -> Child {
    let program = env!("CARGO_BIN_EXE_ticketd");
    let mut command = match ulimit_files {
        None => Command::new(program),
        Some(files) => {
            let mut shell = Command::new("bash");
            // Both limits, as ticketd raises the soft one to the hard one.
            shell.args([
                "-c",
                &format!("ulimit -n {files} && exec \"$0\" \"$@\""),
                program,
            ]);
            shell
        }
    };
    let address = address.map_or("127.0.0.1:0".into(), |address| address.to_string());
    let listen = if role == Role::Consume {
        "ADMIN_LISTEN"
    } else {
        "LISTEN"
    };
    let log: File = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .unwrap();
    command
        .arg(role.name())
        .env_clear()
        .envs(env.iter().map(|(name, value)| (name, value)))
        .env(listen, address)
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("ticketd starts")
}

/// Everything of one test.
pub struct Rig {
    /// The servers.
    pub turn: Turn,
    /// The link of the publishing connections, and of all AMQP connections of `serve`.
    pub publish: Proxy,
    /// The link of the consuming connection.
    pub consume: Proxy,
    /// The link to PostgreSQL.
    pub database: Proxy,
    /// The queue, which is also the name of the exchange and of the schema.
    pub name: String,
    /// The processes: accept and consume, or serve alone.
    pub processes: Vec<Ticketd>,
    /// The load.
    pub driver: Driver,
    /// What the load was told.
    pub ledger: Arc<Ledger>,
    /// A session that sees the tables, past all proxies.
    pub sql: Client,
    /// What was done so far, for whoever has to do it again.
    pub schedule: Vec<String>,
    /// Where ledger and logs are.
    pub dir: PathBuf,
    /// Held while a fault lasts, such as a lock.
    pub held: Vec<Client>,
    plan: Plan,
    started: Instant,
    baseline: Vec<Usage>,
}

impl Rig {
    /// Waits for the servers, starts everything, and lets the first tickets through.
    pub async fn start(plan: Plan) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let turn = stack::turn().await;
        let name = format!("t{}", COUNT.fetch_add(1, Ordering::SeqCst));
        let dir = turn.dir().join("tests").join(&name);
        std::fs::create_dir_all(&dir).unwrap();
        let sql = turn.session(&name).await;
        sql.batch_execute(&format!("create schema {name}"))
            .await
            .unwrap();

        let (broker, database) = (turn.port(Server::Broker), turn.port(Server::Database));
        let publish = Proxy::new(Protocol::Amqp, broker).await;
        let consume = Proxy::new(Protocol::Amqp, broker).await;
        let database = Proxy::new(Protocol::Postgres, database).await;
        let roles: &[Role] = if plan.together {
            &[Role::Serve]
        } else {
            &[Role::Consume, Role::Accept]
        };
        let mut processes = Vec::new();
        for &role in roles {
            let amqp = if role == Role::Consume {
                &consume
            } else {
                &publish
            };
            let env = environment(
                &name,
                amqp,
                (role != Role::Accept).then_some(&database),
                &plan,
            );
            let log = dir.join(format!("{}.log", role.name()));
            processes.push(Ticketd::start(role, log, with_mark(&turn, env)).await);
        }
        let ledger = Arc::new(Ledger::new(dir.join("ledger")));
        for ticketd in &processes {
            until("ready", PROCESS_DEADLINE, async || {
                ticketd.is_ready().await.then_some(())
            })
            .await;
        }
        let address = processes.last().expect("a role that accepts").address;
        let driver = Driver::start(ledger.clone(), address, &name, plan.seed, plan.rate);
        let mut rig = Self {
            turn,
            publish,
            consume,
            database,
            name,
            processes,
            driver,
            ledger,
            sql,
            schedule: Vec::new(),
            dir,
            held: Vec::new(),
            plan,
            started: Instant::now(),
            baseline: Vec::new(),
        };
        rig.warm_up().await;
        rig
    }

    /// Enough tickets for every pool and buffer to be in use.
    async fn warm_up(&mut self) {
        let enough = u64::from(self.plan.rate);
        until("the first rows", PROCESS_DEADLINE, async || {
            (self.rows().await >= enough).then_some(())
        })
        .await;
        self.baseline = self
            .processes
            .iter()
            .map(|ticketd| process::usage(ticketd.pid()))
            .collect();
    }

    /// Writes down what is done, and when.
    pub fn note(&mut self, what: &str) {
        let line = format!("{:7.3}s {what}", self.started.elapsed().as_secs_f64());
        println!("  {} {line}", self.name);
        self.schedule.push(line);
    }

    /// Stored so far.
    pub async fn rows(&self) -> u64 {
        self.count("select count(*) from tickets").await
    }

    /// Whether everything that was answered 202 so far is in the tables.
    pub async fn is_all_stored(&self) -> bool {
        checker::is_all_stored(self.ledger.path(), &self.turn.session(&self.name).await).await
    }

    async fn count(&self, query: &str) -> u64 {
        // The session may have been killed with the server; then there is another by now.
        let count = match self.sql.query_one(query, &[]).await {
            Ok(row) => row.get::<_, i64>(0),
            Err(_) => self
                .turn
                .session(&self.name)
                .await
                .query_one(query, &[])
                .await
                .unwrap()
                .get(0),
        };
        u64::try_from(count).unwrap()
    }

    /// The process of a role, or the one of both.
    pub fn process(&mut self, role: Role) -> &mut Ticketd {
        let at = self
            .processes
            .iter()
            .position(|ticketd| ticketd.role == role);
        &mut self.processes[at.unwrap_or(0)]
    }

    /// Lets the proxies lead to the servers' present ports.
    pub fn reconnect_proxies(&self) {
        self.publish.lead_to(self.turn.port(Server::Broker));
        self.consume.lead_to(self.turn.port(Server::Broker));
        self.database.lead_to(self.turn.port(Server::Database));
    }

    /// All is well again: soon there are a new 202 and a new row.
    pub async fn expect_progress(&mut self) {
        let (accepted, rows) = (self.ledger.accepted(), self.rows().await);
        let healed = Instant::now();
        let mut missing = vec!["a 202", "a row"];
        while !missing.is_empty() {
            missing.clear();
            if self.ledger.accepted() == accepted {
                missing.push("a 202");
            }
            if self.rows().await == rows {
                missing.push("a row");
            }
            if healed.elapsed() > PROGRESS_DEADLINE {
                self.fail(&[format!(
                    "no {missing:?} within {PROGRESS_DEADLINE:?} of the heal"
                )]);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.note(&format!(
            "progress {:.1}s after the heal",
            healed.elapsed().as_secs_f64()
        ));
    }

    /// Ends the load, waits for the queue to be empty, ends ticketd, and has everything checked.
    pub async fn finish(mut self) -> Turn {
        self.driver.pause().await;
        self.drained().await;
        let mut violations = self.usage_is_back().await;
        for ticketd in self.processes.iter().rev() {
            ticketd.signal("TERM");
        }
        for ticketd in &mut self.processes {
            let status = ticketd.ended().await;
            if !status.success() {
                violations.push(format!(
                    "{:?} ended with {status} when told to end",
                    ticketd.role
                ));
            }
        }
        // With no consumer left, what was not acknowledged is back in its queue.
        for queue in ["", ".unrouted", ".dead"] {
            let queue = format!("{}{queue}", self.name);
            match self.turn.ready_messages(&queue).await {
                Some(0) => {}
                count => violations.push(format!("queue {queue} holds {count:?} messages")),
            }
        }
        self.sql = self.turn.session(&self.name).await;
        violations.extend(checker::check(self.ledger.path(), &self.sql).await);
        if !violations.is_empty() {
            self.fail(&violations);
        }
        self.clear_away().await
    }

    /// Waits until nothing is left in the queues and the tables stand still.
    async fn drained(&mut self) {
        let deadline = Instant::now() + DRAIN_DEADLINE;
        let mut before = u64::MAX;
        loop {
            let mut ready = 0;
            for queue in ["", ".unrouted"] {
                ready += self
                    .turn
                    .ready_messages(&format!("{}{queue}", self.name))
                    .await
                    .unwrap_or(0);
            }
            let rows = self.rows().await;
            if ready == 0 && rows == before {
                return;
            }
            before = rows;
            if Instant::now() > deadline {
                self.fail(&[format!(
                    "{ready} messages are left after {DRAIN_DEADLINE:?}"
                )]);
            }
            // Two looks that see the same must be apart by more than one flush.
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// What each process uses falls back to about what it was.
    async fn usage_is_back(&mut self) -> Vec<String> {
        let (stopped, pids): (_, Vec<u32>) = (
            Instant::now(),
            self.processes.iter().map(Ticketd::pid).collect(),
        );
        loop {
            let now: Vec<_> = pids.iter().map(|&pid| process::usage(pid)).collect();
            let grown: Vec<_> = (self.baseline.iter().zip(&now))
                .filter(|(before, now)| {
                    now.files > before.files + GROWTH.files
                        || now.threads > before.threads + GROWTH.threads
                        || now.rss_kib > before.rss_kib + GROWTH.rss_kib
                })
                .map(|(before, now)| format!("usage grew from {before:?} to {now:?}"))
                .collect();
            // Idle helper threads end by themselves after 10 s, and connections linger for 1 s.
            if grown.is_empty() || stopped.elapsed() > Duration::from_secs(25) {
                return grown;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Reports a violation with all that is needed to see it again.
    pub fn fail(&self, violations: &[String]) -> ! {
        let shown = violations.len().min(20);
        panic!(
            "the promise is broken, seed {}:\n  {}\n{} in all\nschedule:\n  {}\nledger and logs: {}",
            self.plan.seed,
            violations[..shown].join("\n  "),
            violations.len(),
            self.schedule.join("\n  "),
            self.dir.display(),
        );
    }

    async fn clear_away(self) -> Turn {
        let drop_all = format!(
            "set client_min_messages = warning; drop schema {} cascade",
            self.name
        );
        self.sql.batch_execute(&drop_all).await.unwrap();
        let (connection, channel) = self.turn.amqp().await;
        for name in ["", ".unrouted", ".dead"] {
            let name = format!("{}{name}", self.name);
            channel
                .queue_delete(name.clone().into(), Default::default())
                .await
                .unwrap();
            channel
                .exchange_delete(name.into(), Default::default())
                .await
                .unwrap();
        }
        connection.close(200, "done".into()).await.unwrap();
        std::fs::remove_dir_all(&self.dir).unwrap();
        self.turn
    }
}

/// What ticketd is told: short time-outs, so that faults need not last longer than they do.
pub fn environment(
    name: &str,
    amqp: &Proxy,
    database: Option<&Proxy>,
    plan: &Plan,
) -> Vec<(String, String)> {
    let mut env = vec![
        ("AMQP_URL".to_owned(), stack::amqp_url(amqp.port())),
        ("QUEUE".to_owned(), name.to_owned()),
        ("CONFIRM_TIMEOUT".to_owned(), "3s".to_owned()),
    ];
    if let Some(database) = database {
        env.push((
            "DATABASE_URL".to_owned(),
            stack::database_url(database.port(), name),
        ));
    }
    env.extend(
        plan.env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone())),
    );
    env
}

/// What reaper.sh finds our processes by.
pub fn with_mark(turn: &Turn, mut env: Vec<(String, String)>) -> Vec<(String, String)> {
    env.push(("FAULTS_DIR".to_owned(), turn.dir().display().to_string()));
    env
}
