//! Many tickets in one body, repeated under its key until it is answered 202, whatever happens to
//! ticketd and its link meanwhile: each ticket is stored once.
//!
//! ```text
//! senders -> ticketd accept -> proxy -> RabbitMQ -> ticketd consume -> rows
//! ```

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use ticketd_testing::{ask_once, head, wait_until, wait_within};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::checker;
use crate::ledger::Ledger;
use crate::many::Many;
use crate::plan::{PRODUCT_REFRESH, Plan};
use crate::proxy::{Cut, Mode, Proxy, Way};
use crate::scanner::Protocol;
use crate::stack::{self, Exclusivity, Server, StackLease};
use crate::ticketd::{Role, Ticketd};

/// Senders at the same time.
const SENDERS: usize = 2;

/// Tickets in a body: three messages.
const TICKETS: usize = 2_500;

/// How long a sender waits for an answer, and before it sends again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Maximum wait for the last answers, and for the rows then.
const DRAIN_DEADLINE: Duration = Duration::from_secs(90);

/// What goes wrong while bodies are sent.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    /// RabbitMQ gets nothing more, and then accept is killed with what it has taken.
    KilledCutOff,
    /// kill -9 of accept.
    Killed,
    /// Some messages of a body are confirmed, the next confirm is lost.
    ConfirmLost,
    /// Every connection to RabbitMQ is reset for a moment.
    Reset,
}

/// What bodies go through.
struct Chain {
    publish: Proxy,
    accept: Ticketd,
    consume: Ticketd,
    name: String,
    dir: PathBuf,
    stack: StackLease,
}

impl Chain {
    async fn start(more: &[(&'static str, &str)]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let stack = stack::lease(Exclusivity::Shared).await;
        let name = format!("bulk{}", COUNT.fetch_add(1, Ordering::SeqCst));
        let dir = stack.dir().join("tests").join(&name);
        fs::create_dir_all(&dir).unwrap();
        let create = format!("create schema {name}");
        stack.sql().await.batch_execute(&create).await.unwrap();
        let publish = Proxy::new(Protocol::Amqp, stack.port(Server::Broker)).await;
        let database = Proxy::new(Protocol::Postgres, stack.port(Server::Database)).await;
        let mut plan = Plan::new(0);
        let more = more.iter();
        plan.env = more
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        let settings = |database| {
            let mut settings = plan.settings(&name, &publish, database, &stack.ca());
            settings.push(("FAULTS_DIR".to_owned(), stack.dir().display().to_string()));
            settings
        };
        let consume = Ticketd::start(Role::Consume, &dir, settings(Some(&database)), None).await;
        let accept = Ticketd::start(Role::Accept, &dir, settings(None), None).await;
        wait_until("ready", async || {
            consume.is_ready().await && accept.is_ready().await
        })
        .await;
        Self {
            publish,
            accept,
            consume,
            name,
            dir,
            stack,
        }
    }

    async fn disrupt(&mut self, trouble: Trouble, random: &mut Rng) {
        match trouble {
            Trouble::KilledCutOff => {
                self.publish.set(Mode::Blackhole(Some(Way::Up)));
                sleep(Duration::from_millis(random.u64(300..500))).await;
                self.accept.signal("KILL");
                self.publish.set(Mode::Reset);
                sleep(Duration::from_millis(50)).await;
                self.publish.set(Mode::Pass);
                self.accept.restart().await;
            }
            Trouble::Killed => {
                self.accept.signal("KILL");
                self.accept.restart().await;
            }
            Trouble::ConfirmLost => {
                let before = self.publish.cuts();
                self.publish.cut_once(Cut::Confirm);
                wait_within("a confirm", DRAIN_DEADLINE, async || {
                    (self.publish.cuts() > before).then_some(())
                })
                .await;
            }
            Trouble::Reset => {
                self.publish.set(Mode::Reset);
                sleep(Duration::from_millis(random.u64(20..200))).await;
                self.publish.set(Mode::Pass);
            }
        }
        sleep(Duration::from_millis(random.u64(50..250))).await;
    }

    /// Waits for all rows, and compares the tables with the ledger.
    async fn assert_exactly_once(mut self, ledger: &Ledger) {
        let sql = self.stack.session(&self.name).await;
        wait_within("all is stored", DRAIN_DEADLINE, async || {
            let ready = self.stack.ready_messages(&self.name).await;
            let is_stored = ready == Some(0) && checker::is_all_stored(ledger.path(), &sql).await;
            if !is_stored {
                sleep(Duration::from_millis(300)).await;
            }
            is_stored.then_some(())
        })
        .await;
        for ticketd in [&mut self.accept, &mut self.consume] {
            ticketd.signal("TERM");
            assert!(ticketd.end().await.success());
        }
        assert_eq!(self.stack.ready_messages(&self.name).await, Some(0));
        let violations = checker::check(ledger.path(), &sql, PRODUCT_REFRESH).await;
        assert!(violations.is_empty(), "{violations:#?}");
        self.stack.servers().remove(&self.name).await.unwrap();
        fs::remove_dir_all(&self.dir).unwrap();
    }
}

/// Sends bodies one after the other, each until it is answered 202, until it is told to stop.
async fn send(address: SocketAddr, name: String, ledger: Arc<Ledger>, stop: Arc<AtomicBool>) {
    let mut random = Rng::with_seed(name.len() as u64);
    for body in 0.. {
        if body > 0 && stop.load(Ordering::SeqCst) {
            return;
        }
        let many = Many::new(&format!("{name}-{body}"), TICKETS, &mut random);
        let request = request(&many, &[]);
        let sent = many.sent(&ledger);
        while !is_accepted(address, &request).await {
            sleep(RETRY_AFTER).await;
        }
        many.confirmed(&ledger, &sent);
    }
}

fn request(many: &Many, headers: &[&str]) -> Vec<u8> {
    let (key, lines) = (format!("Idempotency-Key: {}", many.key), many.lines());
    let own = [&*key, "Content-Type: application/x-ndjson"];
    let head = head(&[&own[..], headers].concat(), lines.len());
    let head = head.replacen("/ticket ", "/tickets?ids=none ", 1);
    (head + &lines).into_bytes()
}

/// Whether a body is answered 202; else it has to be sent again.
async fn is_accepted(address: SocketAddr, request: &[u8]) -> bool {
    match ask_once(address, request, ANSWER_TIMEOUT).await {
        Ok(answer) if answer.status == 202 => true,
        Ok(answer) => {
            assert_eq!(answer.status, 503, "{}", answer.text());
            false
        }
        // It was killed, or is not there yet.
        Err(_) => false,
    }
}

async fn stored_once(troubles: &[Trouble]) {
    let mut chain = Chain::start(&[]).await;
    let ledger = Arc::new(Ledger::new(chain.dir.join("ledger")));
    let stop = Arc::new(AtomicBool::new(false));
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        let name = format!("{}-{sender}", chain.name);
        let (address, ledger) = (chain.accept.address, ledger.clone());
        senders.spawn(send(address, name, ledger, stop.clone()));
    }
    let mut random = Rng::with_seed(1);
    for trouble in troubles {
        chain.disrupt(*trouble, &mut random).await;
    }
    stop.store(true, Ordering::SeqCst);
    let answered = tokio::time::timeout(DRAIN_DEADLINE, senders.join_all()).await;
    assert!(answered.is_ok(), "a body is not answered 202");
    assert!(ledger.accepted() > 0);
    chain.assert_exactly_once(&ledger).await;
}

/// Attacks: 202 for a body says that all its messages are confirmed, and its key makes the same ids
/// of it each time.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_stored_once_though_accept_is_killed() {
    let troubles = [
        Trouble::ConfirmLost,
        Trouble::KilledCutOff,
        Trouble::Reset,
        Trouble::Killed,
    ];
    stored_once(&troubles).await;
}

/// A body beyond its source's limit waits 10 s for that in all, and is 429 then, with what was taken of
/// it; repeated, what was taken is stored once.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn a_body_beyond_its_sources_limit_is_429() {
    const TOKEN: &str = "Xq7ZvJ9wKr2Y-token-of-a-shop-in-a-hurry-1";
    let credentials = format!("shop-1 bearer {TOKEN} rate=20/s:10");
    let more = [("CREDENTIALS", credentials.as_str())];
    let chain = Chain::start(&more).await;
    let many = Many::new(&chain.name, 2_000, &mut Rng::with_seed(1));
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let request = request(&many, &[&bearer]);
    let mut taken = 0;
    for _ in 0..2 {
        let begun = Instant::now();
        let answer = ask_once(chain.accept.address, &request, 4 * ANSWER_TIMEOUT).await;
        let answer = answer.unwrap();
        assert_eq!(answer.status, 429, "{}", answer.text());
        assert!(begun.elapsed() >= Duration::from_secs(10));
        assert!(answer.header("retry-after").is_some());
        let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        let accepted = problem["accepted"].as_u64().unwrap();
        // A second for each 20 tickets, and the burst.
        assert!((150..500).contains(&accepted), "{accepted}");
        taken = accepted.max(taken);
    }
    let sql = chain.stack.session(&chain.name).await;
    let count = "select count(*), count(distinct ticket_id) from tickets";
    let taken = i64::try_from(taken).unwrap();
    wait_within("what was taken is stored", DRAIN_DEADLINE, async || {
        let rows = sql.query_one(count, &[]).await.unwrap();
        (rows.get::<_, i64>(0) == taken && rows.get::<_, i64>(1) == taken).then_some(())
    })
    .await;
    chain.stack.servers().remove(&chain.name).await.unwrap();
    fs::remove_dir_all(&chain.dir).unwrap();
}
