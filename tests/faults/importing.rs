//! `ticketd import` killed at any moment, and cut off from what it stands on: once it has said that
//! all is safe, each ticket of its file is stored once.
//!
//! ```text
//! a file -> import -> proxy -> RabbitMQ -> ticketd consume -> rows
//!                '--- proxy, with --direct -----------------> rows
//! ```

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fastrand::Rng;
use ticketd_testing::{Process, proc, wait_until, wait_within};
use tokio::time::sleep;

use crate::TICKETD;
use crate::checker;
use crate::ledger::Ledger;
use crate::many::Many;
use crate::plan::{PRODUCT_REFRESH, Plan};
use crate::proxy::{Cut, Mode, Proxy};
use crate::scanner::Protocol;
use crate::stack::{self, Exclusivity, Server, StackLease};
use crate::ticketd::{Role, Settings, Ticketd};

/// Maximum wait for what was published to be stored.
const DRAIN_DEADLINE: Duration = Duration::from_secs(60);

/// Maximum size of a process that imports, in KiB, whatever it imports.
const MEMORY_KIB: u64 = 64 * 1024;

/// A file, and the way from it to the tables.
struct Chain {
    args: Vec<String>,
    settings: Settings,
    /// Between the import and what it hands its tickets to.
    link: Proxy,
    /// Stores what is published; not there where nothing is.
    consume: Option<Ticketd>,
    name: String,
    dir: PathBuf,
    stack: StackLease,
}

impl Chain {
    /// Imports by RabbitMQ, or directly.
    async fn start(is_direct: bool, exclusivity: Exclusivity) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let stack = stack::lease(exclusivity).await;
        let name = format!("import{}", COUNT.fetch_add(1, Ordering::SeqCst));
        let dir = stack.dir().join("tests").join(&name);
        fs::create_dir_all(&dir).unwrap();
        let create = format!("create schema {name}");
        stack.sql().await.batch_execute(&create).await.unwrap();

        let amqp = Proxy::new(Protocol::Amqp, stack.port(Server::Broker)).await;
        let database = Proxy::new(Protocol::Postgres, stack.port(Server::Database)).await;
        let plan = Plan::new(0);
        let mut settings = plan.settings(&name, &amqp, Some(&database), &stack.ca());
        settings.push(("FAULTS_DIR".to_owned(), stack.dir().display().to_string()));
        let mut args = vec!["import".to_owned(), format!("--key={name}")];
        let (link, consume) = if is_direct {
            amqp.set(Mode::Refuse);
            args.push("--direct".into());
            (database, None)
        } else {
            let consume = Ticketd::start(Role::Consume, &dir, settings.clone(), None).await;
            wait_until("ready", async || consume.is_ready().await).await;
            (amqp, Some(consume))
        };
        Self {
            args,
            settings,
            link,
            consume,
            name,
            dir,
            stack,
        }
    }

    /// Writes a file to import.
    fn put(&mut self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.dir.join(name);
        fs::write(&path, content).unwrap();
        self.args.push(path.display().to_string());
    }

    fn import(&self) -> Process {
        let args: Vec<_> = self.args.iter().map(String::as_str).collect();
        let settings = self.settings.iter();
        let settings: Vec<_> = settings
            .map(|(name, value)| (name.as_str(), value))
            .collect();
        Process::start(TICKETD, &args, &settings)
    }

    /// Kills an import: a moment after it has begun, or right after its link was cut there.
    async fn killed(&self, cut: Option<Cut>, random: &mut Rng) {
        let before = self.link.cuts();
        if let Some(cut) = cut {
            self.link.cut_once(cut);
        }
        let mut importing = self.import();
        wait_until("it is cut off", async || {
            cut.is_none() || self.link.cuts() > before || importing.try_end().is_some()
        })
        .await;
        let most = if cut.is_some() { 30 } else { 400 };
        sleep(Duration::from_millis(random.u64(0..most))).await;
        importing.signal("KILL");
        importing.end().await;
        self.link.cut_none();
    }

    /// Imports once more, while the link is cut and shut, and waits for the end.
    async fn imported(&self, cuts: &[Cut], tickets: usize) {
        let mut importing = self.import();
        for cut in cuts {
            let before = self.link.cuts();
            self.link.cut_once(*cut);
            wait_until("it is cut off", async || {
                self.link.cuts() > before || importing.try_end().is_some()
            })
            .await;
            self.link.set(Mode::Refuse);
            sleep(Duration::from_millis(100)).await;
            self.link.set(Mode::Pass);
        }
        self.link.cut_none();
        let ended = importing.ended().await;
        let said = (ended.code(), ended.text().to_owned());
        assert_eq!(said, (Some(0), format!("{tickets}\t0\n")), "{}", ended.log);
    }

    /// Compares the tables with the ledger.
    async fn assert_exactly_once(self, ledger: &Ledger) {
        let sql = self.stack.session(&self.name).await;
        wait_within("all is stored", DRAIN_DEADLINE, async || {
            checker::is_all_stored(ledger.path(), &sql)
                .await
                .then_some(())
        })
        .await;
        if let Some(mut consume) = self.consume {
            consume.signal("TERM");
            assert!(consume.end().await.success());
            assert_eq!(self.stack.ready_messages(&self.name).await, Some(0));
        }
        let violations = checker::check(ledger.path(), &sql, PRODUCT_REFRESH).await;
        assert!(violations.is_empty(), "{violations:#?}");
        self.stack.servers().remove(&self.name).await.unwrap();
        fs::remove_dir_all(&self.dir).unwrap();
    }
}

/// Kills an import again and again, and lets it come to its end at last.
async fn stored_once(is_direct: bool, tickets: usize, kill: &[Option<Cut>], cut: &[Cut]) {
    let mut chain = Chain::start(is_direct, Exclusivity::Shared).await;
    let mut random = Rng::with_seed(tickets as u64);
    let many = Many::new(&chain.name, tickets, &mut random);
    chain.put("1.ndjson", many.lines());
    let ledger = Arc::new(Ledger::new(chain.dir.join("ledger")));
    let sent = many.sent(&ledger);
    for at in kill {
        chain.killed(*at, &mut random).await;
    }
    chain.imported(cut, many.len()).await;
    many.confirmed(&ledger, &sent);
    chain.assert_exactly_once(&ledger).await;
}

/// Attacks: what is stored at once is stored in transactions, and found again after each of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_direct_import_is_killed() {
    let kill = [None, Some(Cut::CommitReply), Some(Cut::CopyData)];
    let cut = [Cut::Commit, Cut::CommitReply];
    stored_once(true, 12_000, &kill, &cut).await;
}

/// Attacks: what was published is published again under the same ids.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_through_rabbitmq_is_killed() {
    let kill = [None, Some(Cut::Confirm)];
    stored_once(false, 6_000, &kill, &[Cut::Confirm]).await;
}

/// Memory does not grow with what is imported: imports 128 MiB of the largest tickets.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn a_direct_import_has_no_more_memory_for_more_tickets() {
    const TICKETS: usize = 128;
    let mut chain = Chain::start(true, Exclusivity::Exclusive).await;
    let ticket = |order| format!("Order: {order}\n{}\n", "x".repeat(1_000_000));
    let text: String = (0..TICKETS).map(ticket).collect();
    chain.args.push("--body-max=1048576".into());
    chain.put("1.txt", text);
    let mut importing = chain.import();
    let mut peak = 0;
    while importing.try_end().is_none() {
        let now = proc::status(importing.pid(), "VmHWM");
        peak = now.unwrap_or_default().max(peak);
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(importing.ended().await.text(), format!("{TICKETS}\t0\n"));
    assert!((1..MEMORY_KIB).contains(&peak), "{peak} KiB");
    chain.stack.servers().remove(&chain.name).await.unwrap();
    fs::remove_dir_all(&chain.dir).unwrap();
}
