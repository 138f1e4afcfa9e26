//! The driver: tickets at a set rate, each written to the ledger before it is sent, and its answer
//! after it came. Open loop: a slow answer delays nobody else's ticket.
//!
//! A line of the ledger is one of
//!
//! ```text
//! sent N TIME_US KIND KEY HASH     KEY is - without one; HASH is a version 5 UUID of the body
//! answered N TIME_US STATUS ID     ID is - without one
//! lost N TIME_US                   no answer: whether it was stored cannot be known
//! ```

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use fastrand::Rng;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use uuid::Uuid;

use crate::ticket::{Shape, rare, ticket};
use ticketd_testing::{Answer, Client, head, post, wait_within};

/// How long a till waits for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(12);

/// How soon a till tries again, and how often.
const RETRY_AFTER: Duration = Duration::from_millis(300);
const RETRIES: u32 = 6;

/// What is sent and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A ticket by a well-behaved till.
    Plain,
    /// With a key, and repeated until it is accepted; sometimes once more after that.
    Keyed,
    /// The key of another ticket.
    Stolen,
    /// Its body dribbles in.
    Slow,
    /// The till hangs up as soon as all is sent.
    HangUp,
    /// The till hangs up in the middle of the body: there is no ticket to store.
    Torn,
    /// It cannot be stored and must be refused.
    Refused,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Plain,
        Self::Keyed,
        Self::Stolen,
        Self::Slow,
        Self::HangUp,
        Self::Torn,
        Self::Refused,
    ];

    /// The kind of that name in a ledger.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| format!("{kind:?}") == name)
    }
}

/// The name of a body in the ledger.
pub(crate) fn hash(body: &[u8]) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, body)
}

/// Now, in µs since the Unix epoch.
pub(crate) fn now_us() -> u64 {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    u64::try_from(now.as_micros()).unwrap()
}

/// The append-only file, and what is counted of it.
pub(crate) struct Ledger {
    path: PathBuf,
    file: Mutex<File>,
    next: AtomicU64,
    /// Tickets answered 202 so far.
    pub accepted: AtomicU64,
    /// Tickets answered 503 so far.
    pub refused: AtomicU64,
    /// Tickets without an answer so far, other than those whose till hung up.
    pub lost: AtomicU64,
}

impl Ledger {
    /// A new file.
    pub(crate) fn new(path: PathBuf) -> Self {
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        Self {
            path,
            file: Mutex::new(file),
            next: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Tickets answered 202 so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Tickets answered 503 so far.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::SeqCst)
    }

    fn write(&self, line: &str) {
        // One write for one line: what was begun is there even if we are killed.
        self.file
            .lock()
            .unwrap()
            .write_all(line.as_bytes())
            .unwrap();
    }

    /// Before a ticket is sent.
    pub(crate) fn sent(&self, kind: Kind, key: Option<&str>, body: &[u8]) -> u64 {
        let n = self.next.fetch_add(1, Ordering::SeqCst);
        let (at, key, hash) = (now_us(), key.unwrap_or("-"), hash(body));
        self.write(&format!("sent {n} {at} {kind:?} {key} {hash}\n"));
        n
    }

    /// After it was said in another way than by an answer that it is safe, under this id.
    pub(crate) fn confirmed(&self, n: u64, id: Uuid) {
        self.write(&format!("answered {n} {} 202 {id}\n", now_us()));
        self.accepted.fetch_add(1, Ordering::SeqCst);
    }

    /// After its answer, or once there can be none.
    pub(crate) fn answered(&self, n: u64, answer: &std::io::Result<Answer>) {
        let at = now_us();
        let Ok(answer) = answer else {
            self.lost.fetch_add(1, Ordering::SeqCst);
            return self.write(&format!("lost {n} {at}\n"));
        };
        let id = answer.any_id().map_or("-".into(), |id| id.to_string());
        self.write(&format!("answered {n} {at} {} {id}\n", answer.status));
        match answer.status {
            202 => self.accepted.fetch_add(1, Ordering::SeqCst),
            503 => self.refused.fetch_add(1, Ordering::SeqCst),
            _ => 0,
        };
    }
}

/// Sends tickets until it is dropped.
pub(crate) struct Driver {
    tills: Arc<Tills>,
    task: tokio::task::JoinHandle<()>,
}

/// What all requests share.
struct Tills {
    ledger: Arc<Ledger>,
    address: SocketAddr,
    /// Starts every order id and key of this run.
    run: String,
    paused: AtomicBool,
    under_way: AtomicU64,
    pool: Mutex<Vec<Client>>,
}

impl Driver {
    /// Starts at so many tickets a second.
    pub(crate) fn start(
        ledger: Arc<Ledger>,
        address: SocketAddr,
        run: &str,
        seed: u64,
        rate: u32,
    ) -> Self {
        let tills = Arc::new(Tills {
            ledger,
            address,
            run: run.to_owned(),
            paused: AtomicBool::new(false),
            under_way: AtomicU64::new(0),
            pool: Mutex::default(),
        });
        let task = tokio::spawn(drive(tills.clone(), seed, rate));
        Self { tills, task }
    }

    /// Sends nothing new, waits for the answers to what was sent, and closes every connection.
    pub(crate) async fn pause(&self) {
        self.tills.paused.store(true, Ordering::SeqCst);
        let longest = (ANSWER_TIMEOUT + RETRY_AFTER) * RETRIES;
        wait_within("all answers", longest, async || {
            (self.tills.under_way.load(Ordering::SeqCst) == 0).then_some(())
        })
        .await;
        self.tills.pool.lock().unwrap().clear();
    }

    /// Goes on.
    pub(crate) fn resume(&self) {
        self.tills.paused.store(false, Ordering::SeqCst);
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn drive(tills: Arc<Tills>, seed: u64, rate: u32) {
    let mut rng = Rng::with_seed(seed);
    let mut requests = JoinSet::new();
    let mut tick = interval(Duration::from_secs(1) / rate);
    // What was not sent in time is sent all the same: open loop.
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut n = 0;
    loop {
        tick.tick().await;
        while let Some(done) = requests.try_join_next() {
            done.unwrap();
        }
        // Counted before the look, so that whoever paused us and then counts misses nobody.
        tills.under_way.fetch_add(1, Ordering::SeqCst);
        if tills.paused.load(Ordering::SeqCst) {
            tills.under_way.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        n += 1;
        let (tills, rng) = (tills.clone(), rng.fork());
        requests.spawn(async move {
            tills.clone().one(n, rng).await;
            tills.under_way.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

impl Tills {
    /// One step of the mix; most are plain tickets, as in life.
    async fn one(self: Arc<Self>, n: u64, mut rng: Rng) {
        let order = format!("{}-{n}", self.run);
        match rng.u8(0..100) {
            0..3 => {
                self.plain(Kind::Plain, &ticket(&order, Shape::Large, &mut rng))
                    .await
            }
            3..13 => {
                self.plain(Kind::Plain, &ticket(&order, Shape::Crlf, &mut rng))
                    .await
            }
            13..23 => {
                self.plain(Kind::Plain, &ticket(&order, Shape::Invalid, &mut rng))
                    .await
            }
            23..43 => self.keyed(&order, &mut rng).await,
            43..48 => self.late(&order, &mut rng).await,
            48..53 => self.hang_up(&order, &mut rng).await,
            53..56 => self.torn(&order, &mut rng).await,
            56..59 => self.refused(&order, &mut rng).await,
            _ => {
                self.plain(Kind::Plain, &ticket(&order, Shape::Valid, &mut rng))
                    .await
            }
        }
    }

    async fn plain(&self, kind: Kind, body: &str) {
        self.post(kind, None, body.as_bytes()).await;
    }

    /// Writes down, sends, and writes down.
    async fn post(&self, kind: Kind, key: Option<&str>, body: &[u8]) -> Option<u16> {
        let n = self.ledger.sent(kind, key, body);
        let answer = self.exchange(key, body).await;
        self.ledger.answered(n, &answer);
        answer.ok().map(|answer| answer.status)
    }

    async fn exchange(&self, key: Option<&str>, body: &[u8]) -> std::io::Result<Answer> {
        let pooled = self.pool.lock().unwrap().pop();
        let exchange = async {
            let mut client = match pooled {
                Some(client) => client,
                None => Client::connect(self.address).await?,
            };
            let key = key.map(|key| format!("idempotency-key: {key}"));
            let answer = client
                .try_ask(post(key.as_deref().as_slice(), body))
                .await?;
            if !answer.closes() {
                self.pool.lock().unwrap().push(client);
            }
            Ok(answer)
        };
        let late = Err(std::io::ErrorKind::TimedOut.into());
        timeout(ANSWER_TIMEOUT, exchange).await.unwrap_or(late)
    }

    /// A ticket with a key, until it is accepted; then perhaps again, and perhaps another till
    /// uses the same key before or after.
    async fn keyed(&self, order: &str, rng: &mut Rng) {
        let key = format!("key-{order}");
        // Of the greatest length, and like the others of that length but for its end.
        let key = if rng.bool() {
            format!("{key:k>255}")
        } else {
            key
        };
        let body = ticket(order, Shape::Valid, rng);
        let thief = ticket(&format!("{order}-other"), Shape::Valid, rng);
        let (stolen_before, stolen_after, again) =
            (rng.u8(0..100) < 5, rng.u8(0..100) < 15, rng.bool());
        if stolen_before {
            self.post(Kind::Stolen, Some(&key), thief.as_bytes()).await;
        }
        for _ in 0..RETRIES {
            if self.post(Kind::Keyed, Some(&key), body.as_bytes()).await == Some(202) {
                break;
            }
            sleep(RETRY_AFTER).await;
        }
        if again {
            self.post(Kind::Keyed, Some(&key), body.as_bytes()).await;
        }
        if stolen_after {
            self.post(Kind::Stolen, Some(&key), thief.as_bytes()).await;
        }
    }

    /// A slow till's ticket that began before another's and ends after it: what the other says of
    /// the product they share is the newer.
    async fn late(&self, order: &str, rng: &mut Rng) {
        let product = format!("rare-{order}");
        let (early, late) = (rng.i64(1..500), rng.i64(500..900));
        let slow = rare(&format!("{order}-slow"), &product, early);
        let n = self.ledger.sent(Kind::Slow, None, slow.as_bytes());
        let exchange = async {
            let mut client = Client::connect(self.address).await?;
            client.try_send(head(&[], slow.len())).await?;
            // Long enough for the head to be read, and the other ticket to pass.
            sleep(Duration::from_millis(50)).await;
            self.plain(Kind::Plain, &rare(&format!("{order}-fast"), &product, late))
                .await;
            for piece in slow.as_bytes().chunks(slow.len().div_ceil(4)) {
                client.try_send(piece).await?;
                sleep(Duration::from_millis(10)).await;
            }
            client.try_answer().await
        };
        let gone = Err(std::io::ErrorKind::TimedOut.into());
        let answer = timeout(2 * ANSWER_TIMEOUT, exchange).await.unwrap_or(gone);
        self.ledger.answered(n, &answer);
    }

    async fn hang_up(&self, order: &str, rng: &mut Rng) {
        let body = ticket(order, Shape::Valid, rng);
        self.leave_after(Kind::HangUp, body.as_bytes(), body.len())
            .await;
    }

    async fn torn(&self, order: &str, rng: &mut Rng) {
        let body = ticket(order, Shape::Valid, rng);
        self.leave_after(Kind::Torn, body.as_bytes(), rng.usize(0..body.len()))
            .await;
    }

    async fn leave_after(&self, kind: Kind, body: &[u8], length: usize) {
        let n = self.ledger.sent(kind, None, body);
        let send = async {
            let mut client = Client::connect(self.address).await?;
            let request = [head(&[], body.len()).as_bytes(), &body[..length]].concat();
            client.try_send(request).await
        };
        // Whatever came of it, nobody waits for the answer.
        let _sent = timeout(ANSWER_TIMEOUT, send).await;
        self.ledger
            .answered(n, &Err(std::io::ErrorKind::ConnectionReset.into()));
    }

    /// Not UTF-8, or with a NUL: nothing that a text column could hold.
    async fn refused(&self, order: &str, rng: &mut Rng) {
        let mut body = ticket(order, Shape::Valid, rng).into_bytes();
        body.push(if rng.bool() { 0 } else { 0xff });
        self.post(Kind::Refused, None, &body).await;
    }
}
