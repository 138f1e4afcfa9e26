//! A rolling upgrade: two processes of each role, of an older ticketd, are replaced one by one under load, in either
//! order of the roles.
//!
//! ```text
//! tills -> one accept or the other -> RabbitMQ -> one consume or the other -> PostgreSQL
//! ```
//!
//! `make test_upgrade` builds the older one and names it in `OLD_TICKETD`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use ticketd_testing::{Answer, Client, ask_once, get, post, wait_until, wait_within};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::TICKETD;
use crate::checker;
use crate::ledger::{Kind, Ledger};
use crate::plan::{PRODUCT_REFRESH, Plan};
use crate::proxy::Proxy;
use crate::scanner::Protocol;
use crate::stack::{self, Exclusivity, Server, StackLease};
use crate::ticket::{Shape, ticket};
use crate::ticketd::{Role, Ticketd};

/// Tills, each of which sends one ticket after the other.
const TILLS: u64 = 8;

/// Between two tickets of a till.
const PAUSE: Duration = Duration::from_millis(20);

/// Maximum wait for an answer, and how often a till tries the two processes in turn.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(12);
const TRIES: u32 = 40;
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// How long all is as it is before and after a process is replaced.
const BETWEEN: Duration = Duration::from_secs(1);

/// Maximum wait for what is queued to be stored once all is well.
const DRAIN_DEADLINE: Duration = Duration::from_secs(60);

/// Where a sender may go.
type Addresses = [SocketAddr; 2];

/// Two of each role, and who sends to them.
struct Fleet {
    processes: Vec<Ticketd>,
    tills: JoinSet<Vec<String>>,
    stop: Arc<AtomicBool>,
    ledger: Arc<Ledger>,
    name: String,
    dir: PathBuf,
    stack: StackLease,
    _links: [Proxy; 2],
}

/// The ticketd of which the fleet is at first.
fn old() -> PathBuf {
    std::env::var_os("OLD_TICKETD")
        .expect("make test_upgrade names it")
        .into()
}

impl Fleet {
    /// All of it old, and under load.
    async fn start(name: &str) -> Self {
        let stack = stack::lease(Exclusivity::Shared).await;
        let dir = stack.dir().join("tests").join(name);
        let create = format!("create schema {name}");
        stack.sql().await.batch_execute(&create).await.unwrap();
        let amqp = Proxy::new(Protocol::Amqp, stack.port(Server::Broker)).await;
        let database = Proxy::new(Protocol::Postgres, stack.port(Server::Database)).await;
        let mut plan = Plan::new(0);
        // In the last third every till hears that it has to go to the other process.
        plan.env.push(("LAME_DUCK", "6s".to_owned()));
        let mut processes = Vec::new();
        for (number, role) in [Role::Consume, Role::Consume, Role::Accept, Role::Accept]
            .into_iter()
            .enumerate()
        {
            let dir = dir.join(number.to_string());
            std::fs::create_dir_all(&dir).unwrap();
            let mut settings = plan.settings(
                name,
                &amqp,
                (role == Role::Consume).then_some(&database),
                &stack.ca(),
            );
            settings.push(("FAULTS_DIR".to_owned(), stack.dir().display().to_string()));
            processes.push(Ticketd::start_of(&old(), role, &dir, settings).await);
        }
        for ticketd in &processes {
            wait_until("ready", async || ticketd.is_ready().await).await;
        }
        let mut fleet = Self {
            tills: JoinSet::new(),
            stop: Arc::default(),
            ledger: Arc::new(Ledger::new(dir.join("ledger"))),
            processes,
            name: name.to_owned(),
            dir,
            stack,
            _links: [amqp, database],
        };
        fleet.load();
        fleet
    }

    fn load(&mut self) {
        let addresses = [self.processes[2].address, self.processes[3].address];
        for number in 0..TILLS {
            let till = Till {
                addresses,
                ledger: self.ledger.clone(),
                at: usize::try_from(number % 2).unwrap(),
                client: None,
                refusals: Vec::new(),
            };
            let name = format!("{}-{number}", self.name);
            self.tills.spawn(till.send(name, number, self.stop.clone()));
        }
    }

    /// Replaces the processes of these roles, one at a time, while tickets come in.
    async fn upgrade(&mut self, order: [Role; 2]) {
        for role in order {
            for ticketd in self
                .processes
                .iter_mut()
                .filter(|ticketd| ticketd.role == role)
            {
                sleep(BETWEEN).await;
                let before = version(ticketd.address).await;
                ticketd.signal("TERM");
                ticketd.restart_as(TICKETD.as_ref()).await;
                wait_until("ready", async || ticketd.is_ready().await).await;
                assert_ne!(
                    version(ticketd.address).await,
                    before,
                    "it is the same ticketd"
                );
            }
        }
        sleep(BETWEEN).await;
    }

    /// Ends the load, and compares what was answered with what is stored; nothing was refused.
    async fn finish(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let refusals: Vec<_> = self.tills.join_all().await.concat();
        assert!(
            refusals.is_empty(),
            "{} refusals: {:?}",
            refusals.len(),
            refusals.first()
        );
        let sql = self.stack.session(&self.name).await;
        wait_within("all is stored", DRAIN_DEADLINE, async || {
            checker::is_all_stored(self.ledger.path(), &sql)
                .await
                .then_some(())
        })
        .await;
        while let Some(mut ticketd) = self.processes.pop() {
            ticketd.signal("TERM");
            assert!(ticketd.end().await.success(), "{}", ticketd.log());
        }
        let violations = checker::check(self.ledger.path(), &sql, PRODUCT_REFRESH).await;
        assert!(
            violations.is_empty(),
            "the promise is broken: {violations:#?}"
        );
        assert!(self.ledger.accepted() > 500, "{}", self.ledger.accepted());
        self.stack.servers().remove(&self.name).await.unwrap();
        std::fs::remove_dir_all(&self.dir).unwrap();
    }
}

/// Which ticketd answers there.
async fn version(address: SocketAddr) -> String {
    let answer = ask_once(address, &get("/version"), ANSWER_TIMEOUT).await;
    answer.unwrap().text().to_owned()
}

/// A till that has two addresses, as it would behind a balancer that retries, and a key for each ticket.
struct Till {
    addresses: Addresses,
    ledger: Arc<Ledger>,
    at: usize,
    client: Option<Client>,
    /// What came of a try that was not 202.
    refusals: Vec<String>,
}

impl Till {
    async fn send(mut self, name: String, seed: u64, stop: Arc<AtomicBool>) -> Vec<String> {
        let mut rng = Rng::with_seed(seed);
        let mut n = 0;
        while !stop.load(Ordering::SeqCst) {
            n += 1;
            let order = format!("{name}-{n}");
            let body = ticket(&order, Shape::Valid, &mut rng);
            self.accepted(&format!("key-{order}"), &body).await;
            sleep(PAUSE).await;
        }
        self.refusals
    }

    /// Sends one until it is accepted. Who gets no answer goes to the other process, as does who is told that the
    /// connection ends.
    async fn accepted(&mut self, key: &str, body: &str) {
        for _ in 0..TRIES {
            let n = self.ledger.sent(Kind::Keyed, Some(key), body.as_bytes());
            let answer = timeout(ANSWER_TIMEOUT, self.ask(key, body)).await;
            let answer = answer.unwrap_or(Err(std::io::ErrorKind::TimedOut.into()));
            self.ledger.answered(n, &answer);
            match answer {
                Ok(answer) if answer.status == 202 => return,
                Ok(answer) => self
                    .refusals
                    .push(format!("{}: {}", answer.status, answer.text())),
                Err(error) => {
                    self.refusals.push(format!("no answer: {error}"));
                    self.client = None;
                    self.at = 1 - self.at;
                }
            }
            sleep(RETRY_AFTER).await;
        }
        self.refusals
            .push(format!("{key} was not accepted in {TRIES} tries"));
    }

    async fn ask(&mut self, key: &str, body: &str) -> std::io::Result<Answer> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(self.addresses[self.at]).await?,
        };
        let key = format!("idempotency-key: {key}");
        let answer = client.try_ask(post(&[&key], body.as_bytes())).await?;
        if answer.closes() {
            self.at = 1 - self.at;
        } else {
            self.client = Some(client);
        }
        Ok(answer)
    }
}

/// Attacks: what the older accept writes is read by the newer consume, and the tables by both.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_upgrade"]
async fn consume_is_upgraded_before_accept() {
    let mut fleet = Fleet::start("consume_first").await;
    fleet.upgrade([Role::Consume, Role::Accept]).await;
    fleet.finish().await;
}

/// Attacks: what the newer accept writes is read by the older consume.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_upgrade"]
async fn accept_is_upgraded_before_consume() {
    let mut fleet = Fleet::start("accept_first").await;
    fleet.upgrade([Role::Accept, Role::Consume]).await;
    fleet.finish().await;
}
