//! One test's ticketd: its processes, the proxies around them, the load on them, and the verdict.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::checker;
use crate::ledger::{Driver, Ledger};
use crate::plan::{PRODUCT_REFRESH, Plan};
use crate::proxy::Proxy;
use crate::scanner::Protocol;
use crate::schedule::Schedule;
use crate::stack::{self, Server, StackLease};
use crate::ticketd::{Role, Ticketd};
use ticketd_testing::proc::{Usage, usage};
use ticketd_testing::wait_until;

/// Maximum time from a heal to the next 202 and the next row.
pub(crate) const PROGRESS_DEADLINE: Duration = Duration::from_secs(10);

/// Between two looks for progress.
const STEP: Duration = Duration::from_millis(20);

/// Maximum wait for what is queued to be stored once all is well.
const DRAIN_DEADLINE: Duration = Duration::from_secs(90);

/// How long nothing may come to the tables before what is missing is taken for lost.
const LOST_AFTER: Duration = Duration::from_secs(15);

/// What a process may use more at the end than at the start: buffers that grew to their size, and
/// threads that have not gone to sleep for good yet.
const GROWTH: Usage = Usage {
    rss_kib: 64 * 1024,
    files: 8,
    threads: 4,
    cpu_ticks: 0,
};

/// Everything of one test.
pub(crate) struct Rig {
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
    /// Where ledger and logs are.
    pub dir: PathBuf,
    schedule: Schedule,
    /// Held while a fault lasts, such as a lock.
    pub held: Vec<Client>,
    /// Backends that are stopped.
    pub stopped: Vec<u32>,
    plan: Plan,
    baseline: Vec<Usage>,
    /// The servers; given back last.
    pub stack: StackLease,
}

impl Rig {
    /// Waits for the servers, starts everything, and lets the first tickets through.
    pub(crate) async fn start(plan: Plan) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let stack = stack::lease(plan.exclusivity).await;
        let name = format!("t{}", COUNT.fetch_add(1, Ordering::SeqCst));
        let dir = stack.dir().join("tests").join(&name);
        std::fs::create_dir_all(&dir).unwrap();
        let schedule = Schedule::new(&name, plan.seed, dir.clone());
        let sql = stack.session(&name).await;
        sql.batch_execute(&format!("create schema {name}"))
            .await
            .unwrap();

        if !plan.broker.is_empty() {
            stack.ctl(plan.broker);
        }
        let broker = broker_port(&stack, &plan);
        let database = stack.port(Server::Database);
        let spoken = |protocol| {
            if plan.is_encrypted {
                Protocol::Encrypted
            } else {
                protocol
            }
        };
        let publish = Proxy::new(spoken(Protocol::Amqp), broker).await;
        let consume = Proxy::new(spoken(Protocol::Amqp), broker).await;
        let database = Proxy::new(spoken(Protocol::Postgres), database).await;
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
            let database = (role != Role::Accept).then_some(&database);
            let mut settings = plan.settings(&name, amqp, database, &stack.ca());
            // What reaper.sh finds our processes by.
            settings.push(("FAULTS_DIR".to_owned(), stack.dir().display().to_string()));
            processes.push(Ticketd::start(role, &dir, settings, None).await);
        }
        let ledger = Arc::new(Ledger::new(dir.join("ledger")));
        for ticketd in &processes {
            wait_until("ready", async || ticketd.is_ready().await).await;
        }
        let address = processes.last().expect("a role that accepts").address;
        let driver = Driver::start(ledger.clone(), address, &name, plan.seed, plan.rate);
        let mut rig = Self {
            stack,
            publish,
            consume,
            database,
            name,
            processes,
            driver,
            ledger,
            sql,
            schedule,
            dir,
            held: Vec::new(),
            stopped: Vec::new(),
            plan,
            baseline: Vec::new(),
        };
        rig.warm_up().await;
        rig
    }

    /// Enough tickets for every pool and buffer to be in use.
    async fn warm_up(&mut self) {
        let enough = u64::from(self.plan.rate);
        wait_until("the first rows", async || self.rows().await >= enough).await;
        self.baseline = self
            .processes
            .iter()
            .map(|ticketd| usage(ticketd.pid()))
            .collect();
    }

    /// Writes down what is done, and when.
    pub(crate) fn note(&mut self, what: &str) {
        self.schedule.note(what);
    }

    /// Stored so far.
    pub(crate) async fn rows(&self) -> u64 {
        self.count("select count(*) from tickets").await
    }

    /// Whether everything that was answered 202 so far is in the tables.
    pub(crate) async fn is_all_stored(&self) -> bool {
        checker::is_all_stored(self.ledger.path(), &self.stack.session(&self.name).await).await
    }

    async fn count(&self, query: &str) -> u64 {
        // The session may have been killed with the server; then there is another by now.
        let count = match self.sql.query_one(query, &[]).await {
            Ok(row) => row.get::<_, i64>(0),
            Err(_) => self
                .stack
                .session(&self.name)
                .await
                .query_one(query, &[])
                .await
                .unwrap()
                .get(0),
        };
        u64::try_from(count).unwrap()
    }

    /// How often consume was let down by PostgreSQL, as far as it counts that.
    pub(crate) async fn flush_failures(&mut self) -> f64 {
        let mut failed = 0.0;
        for reason in ["away", "late"] {
            let metric = format!("ticketd_flush_failed_total{{reason=\"{reason}\"}}");
            failed += self.process(Role::Consume).metric(&metric).await;
        }
        failed
    }

    /// How many of ticketd's backends wait for a lock.
    pub(crate) async fn waiting_backends(&self) -> i64 {
        let query = "select count(*) from pg_stat_activity \
            where application_name = $1 and wait_event_type = 'Lock'";
        let sql = self.stack.sql().await;
        sql.query_one(query, &[&self.name]).await.unwrap().get(0)
    }

    /// Whether a role has the broker, as far as it knows.
    pub(crate) async fn is_linked(&mut self, role: Role) -> bool {
        let linked = format!("ticketd_amqp_connected{{role=\"{}\"}}", role.name());
        self.process(role).metric(&linked).await > 0.0
    }

    /// How many consumers the queue has; none without the queue.
    pub(crate) async fn consumers(&self) -> Option<u32> {
        let queue = self.stack.queue(&self.name).await?;
        Some(queue.consumer_count())
    }

    /// What a role has logged so far.
    pub(crate) fn log(&self, role: Role) -> String {
        self.processes[self.index(role)].log()
    }

    /// The process of a role, or the one of both.
    pub(crate) fn process(&mut self, role: Role) -> &mut Ticketd {
        let at = self.index(role);
        &mut self.processes[at]
    }

    fn index(&self, role: Role) -> usize {
        let mut processes = self.processes.iter();
        processes
            .position(|ticketd| ticketd.role == role)
            .unwrap_or(0)
    }

    /// Lets the proxies lead to the servers' present ports.
    pub(crate) fn reconnect_proxies(&self) {
        let broker = broker_port(&self.stack, &self.plan);
        self.publish.lead_to(broker);
        self.consume.lead_to(broker);
        self.database.lead_to(self.stack.port(Server::Database));
    }

    /// All is well again: soon there are a new 202 and a new row.
    pub(crate) async fn expect_progress(&mut self) {
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
            tokio::time::sleep(STEP).await;
        }
        self.note(&format!(
            "progress {:.1}s after the heal",
            healed.elapsed().as_secs_f64()
        ));
    }

    /// Ends the load, waits for the queue to be empty, ends ticketd, and has everything checked.
    pub(crate) async fn finish(mut self) -> StackLease {
        self.driver.pause().await;
        self.drained().await;
        let mut violations = self.usage_is_back().await;
        let stayed_up = self
            .processes
            .iter()
            .all(|ticketd| ticketd.role == Role::Accept || !ticketd.restarted);
        let behind = if stayed_up {
            Duration::ZERO
        } else {
            PRODUCT_REFRESH
        };
        // First what accepts: it may still have something to publish, which is then to be stored.
        while let Some(mut ticketd) = self.processes.pop() {
            ticketd.signal("TERM");
            let status = ticketd.end().await;
            if !status.success() {
                violations.push(format!("{:?} ended with {status}", ticketd.role));
            }
            if !self.processes.is_empty() {
                self.drained().await;
            }
        }
        // With no consumer left, what was not acknowledged is back in its queue.
        for queue in ["", ".unrouted", ".dead"] {
            let queue = format!("{}{queue}", self.name);
            match self.stack.ready_messages(&queue).await {
                Some(0) => {}
                count => violations.push(format!("queue {queue} holds {count:?} messages")),
            }
        }
        self.sql = self.stack.session(&self.name).await;
        violations.extend(checker::check(self.ledger.path(), &self.sql, behind).await);
        if !violations.is_empty() {
            self.fail(&violations);
        }
        self.clear_away().await
    }

    /// Waits until nothing is left in the queues and what was answered 202 is in the tables, or
    /// nothing has come to them for so long that it must be lost.
    async fn drained(&mut self) {
        let deadline = Instant::now() + DRAIN_DEADLINE;
        let (mut rows, mut since) = (u64::MAX, Instant::now());
        loop {
            let ready = self.ready_messages().await;
            let before = std::mem::replace(&mut rows, self.rows().await);
            if ready > 0 || rows != before {
                since = Instant::now();
            } else if self.is_all_stored().await || since.elapsed() > LOST_AFTER {
                return;
            }
            if Instant::now() > deadline {
                self.fail(&[format!(
                    "{ready} messages are left after {DRAIN_DEADLINE:?}"
                )]);
            }
            // Two looks that see the same must be apart by more than one flush.
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// How many tickets' messages nobody has taken yet.
    async fn ready_messages(&self) -> u32 {
        let mut ready = 0;
        for queue in ["", ".unrouted"] {
            let queue = format!("{}{queue}", self.name);
            ready += self.stack.ready_messages(&queue).await.unwrap_or(0);
        }
        ready
    }

    /// What each process uses falls back to about what it was.
    async fn usage_is_back(&mut self) -> Vec<String> {
        let (stopped, pids): (_, Vec<u32>) = (
            Instant::now(),
            self.processes.iter().map(Ticketd::pid).collect(),
        );
        loop {
            let now: Vec<_> = pids.iter().map(|&pid| usage(pid)).collect();
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

    /// Reports violations; what led to them follows when the rig is dropped.
    pub(crate) fn fail(&self, violations: &[String]) -> ! {
        let shown = violations.len().min(20);
        panic!(
            "the promise is broken, seed {}:\n  {}\n{} in all",
            self.plan.seed,
            violations[..shown].join("\n  "),
            violations.len(),
        );
    }

    async fn clear_away(self) -> StackLease {
        self.stack.servers().remove(&self.name).await.unwrap();
        std::fs::remove_dir_all(&self.dir).unwrap();
        self.stack
    }
}

/// Where the broker's links lead.
fn broker_port(stack: &StackLease, plan: &Plan) -> u16 {
    if plan.is_encrypted {
        stack.tls_port(Server::Broker)
    } else {
        stack.port(Server::Broker)
    }
}
