//! PostgreSQL with a synchronous standby. The server that takes writes is lost at the worst moments, and
//! the standby takes its place: what was answered 202 is in its tables.
//!
//! What was committed while the standby was cut off is on the lost server alone, so nothing of it may have been
//! acknowledged to RabbitMQ. A COMMIT waits for the standby, but not everything that ends the wait says that it
//! was in vain, and what is committed already is not waited for again.

mod pair;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ticketd_testing::{wait_until, wait_within};
use tokio::time::sleep;

use self::pair::Pair;
use crate::checker;
use crate::ledger::{Driver, Ledger};
use crate::plan::PRODUCT_REFRESH;
use crate::stack::{self, Exclusivity, Server, StackLease, amqp_url};
use crate::ticketd::{Role, Ticketd};

/// Tickets a second, and how many are answered 202 while the standby is cut off.
const RATE: u32 = 120;
const CUT_OFF_TICKETS: u64 = 240;

/// Maximum time from the promotion to the next row.
const PROMOTED: Duration = Duration::from_secs(5);

/// The same from the moment on in which the first server hangs.
const MOVED_ON: Duration = Duration::from_secs(15);

/// How long the standby is away.
const AWAY: Duration = Duration::from_secs(50);

/// Between two looks for what is still on its way.
const STEP: Duration = Duration::from_millis(200);

/// Maximum time until all that was answered 202 is on the new server.
const STORED_DEADLINE: Duration = Duration::from_secs(60);

/// Attacks: PostgreSQL reports success for a COMMIT whose wait was cancelled, with a warning before it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn waits_for_the_standby_are_cancelled() {
    waits_are_ended_by("pg_cancel_backend").await;
}

/// Attacks: what a terminated backend has committed is there for the next one to see, and not waited for.
#[tokio::test(flavor = "multi_thread")]
async fn waits_for_the_standby_are_terminated() {
    waits_are_ended_by("pg_terminate_backend").await;
}

async fn waits_are_ended_by(function: &str) {
    let replicated = Replicated::start().await;
    replicated.pair.cut_off().await;
    let (enough, mut ended) = (replicated.accepted_after(CUT_OFF_TICKETS), 0);
    wait_until("tickets, and waits that are ended", async || {
        ended += replicated.pair.end_waits(function).await;
        ended > 2 && replicated.ledger.accepted() >= enough
    })
    .await;
    // Of what it has found stored by now, if nothing else.
    replicated.pair.a_commit_waits().await;
    replicated.fail_over().await;
}

/// Attacks: a server that has crashed has all that was on its own disk, whatever the standby has.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn the_first_server_crashes_while_the_standby_is_away() {
    let replicated = Replicated::start().await;
    replicated.pair.cut_off().await;
    replicated.pair.a_commit_waits().await;
    replicated.pair.crash().await;
    let enough = replicated.accepted_after(CUT_OFF_TICKETS);
    wait_until("tickets", async || replicated.ledger.accepted() >= enough).await;
    replicated.pair.a_commit_waits().await;
    replicated.fail_over().await;
}

/// Attacks: nothing is lost, and nobody is answered 503, when one server is lost from one moment to the next.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn the_first_server_is_lost() {
    Replicated::start().await.fail_over().await;
}

/// Attacks: a server that hangs still answers TCP.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn the_first_server_hangs() {
    let replicated = Replicated::start().await;
    replicated.pair.signal_first("STOP").await;
    let hung = Instant::now();
    replicated.pair.promote_beside_first().await;
    replicated
        .expect_rows(MOVED_ON.saturating_sub(hung.elapsed()))
        .await;
    replicated.pair.signal_first("KILL").await;
    replicated.finish().await;
}

/// Attacks: the standby is only waited for; nothing is answered 503, and nothing is stored twice.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn the_standby_is_away_and_comes_back() {
    let replicated = Replicated::start().await;
    let refused = replicated.ledger.refused();
    replicated.pair.cut_off().await;
    replicated.pair.a_commit_waits().await;
    // Longer than a flush may take.
    sleep(AWAY).await;
    replicated.pair.join().await;
    replicated.expect_rows(STORED_DEADLINE).await;
    assert_eq!(replicated.ledger.refused(), refused, "tickets answered 503");
    replicated.finish().await;
}

/// ticketd with a load on it, and a PostgreSQL with a standby behind it.
struct Replicated {
    pair: Pair,
    ticketd: Ticketd,
    driver: Driver,
    ledger: Arc<Ledger>,
    name: String,
    stack: StackLease,
}

impl Replicated {
    /// Starts everything, and lets the first tickets through.
    async fn start() -> Self {
        let stack = stack::lease(Exclusivity::Exclusive).await;
        let pair = Pair::start(&stack);
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("failover{}", COUNT.fetch_add(1, Ordering::SeqCst));
        let dir = stack.dir().join("tests").join(&name);
        std::fs::create_dir_all(&dir).unwrap();
        let settings = [
            ("AMQP_URL", amqp_url(stack.port(Server::Broker))),
            ("QUEUE", name.clone()),
            ("DATABASE_URL", pair.url()),
            (
                "PRODUCT_REFRESH",
                format!("{}ms", PRODUCT_REFRESH.as_millis()),
            ),
            ("FAULTS_DIR", stack.dir().display().to_string()),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value));
        let ticketd = Ticketd::start(Role::Serve, &dir, settings.to_vec(), None).await;
        wait_until("ready", async || ticketd.is_ready().await).await;
        let ledger = Arc::new(Ledger::new(dir.join("ledger")));
        let driver = Driver::start(ledger.clone(), ticketd.address, &name, 1, RATE);
        let replicated = Self {
            pair,
            ticketd,
            driver,
            ledger,
            name,
            stack,
        };
        wait_until("the first rows", async || {
            replicated.pair.rows().await >= i64::from(RATE)
        })
        .await;
        replicated
    }

    /// Loses the first server, has the standby take its place, and finds everything there.
    async fn fail_over(self) {
        let refused = self.ledger.refused();
        self.pair.signal_first("KILL").await;
        self.pair.promote(&self.stack);
        self.expect_rows(PROMOTED).await;
        assert_eq!(self.ledger.refused(), refused, "tickets answered 503");
        self.finish().await;
    }

    /// Tickets answered 202 once it is so many more.
    fn accepted_after(&self, more: u64) -> u64 {
        self.ledger.accepted() + more
    }

    /// Rows come to the standby, within so long.
    async fn expect_rows(&self, within: Duration) {
        let before = self.pair.rows().await;
        wait_within("a row on the standby", within, async || {
            (self.pair.rows().await > before).then_some(())
        })
        .await;
    }

    /// Ends the load, and compares what was answered with what the standby has.
    async fn finish(mut self) {
        self.driver.pause().await;
        let (sql, deadline) = (self.pair.standby().await, Instant::now() + STORED_DEADLINE);
        while !checker::is_all_stored(self.ledger.path(), &sql).await && Instant::now() < deadline {
            sleep(STEP).await;
        }
        let violations = checker::check(self.ledger.path(), &sql, PRODUCT_REFRESH).await;
        let log = self.ticketd.log();
        assert!(violations.is_empty(), "{}\n{log}", violations.join("\n"));
        self.ticketd.signal("TERM");
        assert!(self.ticketd.end().await.success());
        for queue in ["", ".unrouted", ".dead"] {
            let queue = format!("{}{queue}", self.name);
            assert_eq!(self.stack.ready_messages(&queue).await, Some(0), "{queue}");
        }
        self.pair.wipe(&self.stack);
        std::fs::remove_dir_all(self.stack.dir().join("tests").join(&self.name)).unwrap();
    }
}
