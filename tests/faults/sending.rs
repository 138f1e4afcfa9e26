//! `ticketd send --watch` killed at any moment, and all that it stands on: each file of its folder is
//! stored once, and moved.
//!
//! ```text
//! a till -> folder -> send --watch -> proxy -> ticketd accept -> proxy -> RabbitMQ -> consume -> rows
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use ticketd_testing::{Process, ticket, wait_until, wait_within};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::TICKETD;
use crate::plan::Plan;
use crate::proxy::{Mode, Proxy};
use crate::scanner::Protocol;
use crate::stack::{self, Exclusivity, Server, StackLease};
use crate::ticketd::{Role, Ticketd};

/// One file of so many is no ticket, and belongs in rejected/.
const REJECTED_OF: u32 = 50;

/// Maximum wait for what is left, once nothing is broken any more, and a second more for so many files.
const DRAIN_DEADLINE: Duration = Duration::from_secs(60);
const DRAIN_RATE: u32 = 500;

/// A folder, and the way from it to the tables.
struct Chain {
    folder: PathBuf,
    /// Between the sender and accept.
    link: Proxy,
    /// Between accept and RabbitMQ.
    publish: Proxy,
    accept: Ticketd,
    _consume: Ticketd,
    sender: Option<Process>,
    name: String,
    stack: StackLease,
}

impl Chain {
    async fn start(exclusivity: Exclusivity) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let stack = stack::lease(exclusivity).await;
        let name = format!("send{}", COUNT.fetch_add(1, Ordering::SeqCst));
        let dir = stack.dir().join("tests").join(&name);
        let folder = dir.join("folder");
        fs::create_dir_all(&folder).unwrap();
        let create = format!("create schema {name}");
        stack.sql().await.batch_execute(&create).await.unwrap();

        let publish = Proxy::new(Protocol::Amqp, stack.port(Server::Broker)).await;
        let database = Proxy::new(Protocol::Postgres, stack.port(Server::Database)).await;
        let plan = Plan::new(0);
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
        // It looks at no message: it takes them for encrypted.
        let link = Proxy::new(Protocol::Encrypted, accept.address.port()).await;
        Self {
            folder,
            link,
            publish,
            accept,
            _consume: consume,
            sender: None,
            name,
            stack,
        }
    }

    /// Starts the sender, in place of one that was killed.
    fn send(&mut self) {
        drop(self.sender.take());
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log());
        let mut command = Command::new(TICKETD);
        command
            .args(["send", "--settle=0s", "--watch"])
            .arg(&self.folder)
            .env_clear()
            .env(
                "TICKETD_URL",
                format!("http://127.0.0.1:{}", self.link.port()),
            )
            .env("FAULTS_DIR", self.stack.dir());
        self.sender = Some(Process::spawn(&mut command, Some(log.unwrap())));
    }

    fn log(&self) -> PathBuf {
        self.folder.with_file_name("send.log")
    }

    /// How many senders have come as far as to watch the folder.
    fn times_started(&self) -> usize {
        let log = fs::read_to_string(self.log()).unwrap();
        log.matches("watching").count()
    }

    /// One thing that goes wrong, for a moment.
    async fn disrupt(&mut self, random: &mut Rng) {
        match random.u32(0..10) {
            0 => {
                self.accept.signal("KILL");
                self.accept.restart().await;
            }
            1 => self.broken(Mode::Reset, random).await,
            2 => self.broken(Mode::Refuse, random).await,
            3 => {
                // The server answers 503 meanwhile.
                self.publish.set(Mode::Reset);
                sleep(Duration::from_millis(random.u64(20..200))).await;
                self.publish.set(Mode::Pass);
            }
            // kill -9.
            _ => self.send(),
        }
        sleep(Duration::from_millis(random.u64(5..150))).await;
    }

    async fn broken(&self, mode: Mode, random: &mut Rng) {
        self.link.set(mode);
        sleep(Duration::from_millis(random.u64(5..100))).await;
        self.link.set(Mode::Pass);
    }

    /// Waits until no file is left, and compares what there is with what there was.
    async fn assert_exactly_once(mut self, files: u32) {
        let started = self.times_started();
        self.send();
        // Before that, a SIGTERM would end it as it ends any process.
        wait_until("it watches", async || self.times_started() > started).await;
        let folder = &self.folder;
        let deadline = DRAIN_DEADLINE + Duration::from_secs(1) * (files / DRAIN_RATE);
        wait_within("no file is left", deadline, async || {
            names(folder).is_empty().then_some(())
        })
        .await;
        let rejected = files.div_ceil(REJECTED_OF);
        let tickets = i64::from(files - rejected);
        let sql = self.stack.session(&self.name).await;
        let count = async |query: &str| sql.query_one(query, &[]).await.unwrap().get::<_, i64>(0);
        wait_within("all is stored", deadline, async || {
            (count("select count(*) from tickets").await >= tickets).then_some(())
        })
        .await;
        let sender = self.sender.take().expect("it runs");
        sender.drained().await;
        assert_eq!(count("select count(*) from tickets").await, tickets);
        let different = "select count(distinct order_id) from tickets where valid";
        assert_eq!(count(different).await, tickets);
        assert_eq!(count("select count(*) from dead_tickets").await, 0);
        let sent = names(&self.folder.join("sent"));
        assert_eq!(sent.len(), usize::try_from(tickets).unwrap());
        let set_aside = names(&self.folder.join("rejected"));
        let documents = set_aside.iter().filter(|name| name.ends_with(".json"));
        let (documents, all) = (documents.count(), set_aside.len());
        // One that was killed between both leaves a document behind, and writes another.
        assert_eq!(all - documents, usize::try_from(rejected).unwrap());
        assert!(documents >= all - documents, "{set_aside:?}");
        let drop = format!("drop schema {} cascade", self.name);
        sql.batch_execute(&drop).await.unwrap();
        fs::remove_dir_all(self.folder.parent().unwrap()).unwrap();
    }
}

/// The files of a folder, without hidden ones.
fn names(folder: &Path) -> Vec<String> {
    let files = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let files = files.filter(|file| !file.path().is_dir());
    let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
    names.filter(|name| !name.starts_with('.')).collect()
}

/// Writes files as a till should, with a pause after each.
fn write(folder: &Path, files: u32, pause: Duration) {
    for number in 0..files {
        let content = match number % REJECTED_OF {
            0 => vec![0xff],
            _ => ticket(&number.to_string()).into_bytes(),
        };
        let (hidden, name) = (folder.join("till.tmp"), format!("{number}.txt"));
        fs::write(&hidden, content).unwrap();
        fs::rename(&hidden, folder.join(name)).unwrap();
        std::thread::sleep(pause);
    }
}

/// Fills a folder while the sender and all behind it are broken, for so long at least.
async fn stored_once(files: u32, pause: Duration, at_least: Duration, exclusivity: Exclusivity) {
    let mut chain = Chain::start(exclusivity).await;
    let mut random = Rng::with_seed(u64::from(files));
    let folder = chain.folder.clone();
    let till = spawn_blocking(move || write(&folder, files, pause));
    chain.send();
    let started = Instant::now();
    while !till.is_finished() || started.elapsed() < at_least {
        chain.disrupt(&mut random).await;
    }
    till.await.unwrap();
    chain.assert_exactly_once(files).await;
}

/// 400 files in three seconds.
#[tokio::test(flavor = "multi_thread")]
async fn files_are_stored_once_though_their_sender_is_killed() {
    let (pause, at_least) = (Duration::from_millis(5), Duration::from_secs(3));
    stored_once(400, pause, at_least, Exclusivity::Shared).await;
}

/// 100,000 files.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "it takes some minutes"]
async fn a_hundred_thousand_files_are_stored_once_though_their_sender_is_killed() {
    let (pause, at_least) = (Duration::ZERO, Duration::from_secs(60));
    stored_once(100_000, pause, at_least, Exclusivity::Exclusive).await;
}
