//! A broker that refuses what it is told to refuse, in an order that a real one would rarely choose.
//!
//! It speaks as much of AMQP 0-9-1 as a publisher needs, and remembers what it confirmed. A ticket
//! carries a mark that says what is to become of the message it travels in: `mark:17 refuse;`.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::{self, until};
use crate::rig::{Role, Ticketd};
use crate::stack::{Quiet, quiet};

/// What is to become of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    /// basic.ack
    Confirm,
    /// basic.return, and then basic.ack, as for a message without a queue.
    Return,
    /// basic.nack
    Refuse,
    /// Nothing, ever.
    Ignore,
}

impl Fate {
    const ALL: [Self; 4] = [Self::Confirm, Self::Return, Self::Refuse, Self::Ignore];

    fn word(self) -> &'static str {
        match self {
            Self::Confirm => "confirm",
            Self::Return => "return",
            Self::Refuse => "refuse",
            Self::Ignore => "ignore",
        }
    }

    /// The worst fate of all marks in a payload, which may be a group's.
    fn of(payload: &[u8]) -> (Self, Vec<u32>) {
        let text = String::from_utf8_lossy(payload);
        let marks = text
            .split("mark:")
            .skip(1)
            .filter_map(|rest| rest.split_once(';')?.0.split_once(' '));
        let (mut fate, mut numbers) = (Self::Confirm, Vec::new());
        for (number, word) in marks {
            numbers.push(number.parse().unwrap());
            fate = fate.max(
                Self::ALL
                    .into_iter()
                    .find(|fate| fate.word() == word)
                    .unwrap(),
            );
        }
        (fate, numbers)
    }
}

/// What the broker has seen.
#[derive(Debug, Default)]
struct Seen {
    /// Tickets whose message was confirmed.
    confirmed: HashSet<u32>,
    /// Messages that would not survive a restart.
    transient: usize,
    /// Messages that would vanish without a queue.
    optional: usize,
    /// Acknowledgements that covered several messages.
    multiple: usize,
}

/// The broker, which serves as long as this lives.
pub struct FakeBroker {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    _connections: JoinSet<()>,
}

impl FakeBroker {
    /// Listens.
    ///
    /// It settles what it has as soon as nothing has come for so long: the longer, the more it has
    /// to put in disorder.
    pub async fn start(lull: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, seen) = (
            listener.local_addr().unwrap(),
            Arc::<Mutex<Seen>>::default(),
        );
        let mut connections = JoinSet::new();
        let shared = seen.clone();
        connections.spawn(async move {
            let mut sessions = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let session = Session::new(stream, shared.clone(), lull);
                // It ends when the client does not keep to the protocol, or goes.
                sessions.spawn(async move { drop(session.run().await) });
            }
        });
        Self {
            address,
            seen,
            _connections: connections,
        }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@{}/%2f", self.address)
    }
}

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;

/// A frame is type, channel, size, payload, and 0xce (AMQP 0-9-1, section 2.3.5).
fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap();
    [
        &[kind],
        &channel.to_be_bytes()[..],
        &size.to_be_bytes(),
        payload,
        &[0xce],
    ]
    .concat()
}

fn method(channel: u16, class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
    frame(
        METHOD,
        channel,
        &[&class.to_be_bytes(), &method.to_be_bytes(), arguments].concat(),
    )
}

fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

fn long(text: &[u8]) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes(), text].concat()
}

/// A frame as it came: type, channel, payload.
type Frame = (u8, u16, Vec<u8>);

/// Reads frames until the publisher is gone. In a task of its own, since half a frame must not be
/// dropped when it is time to settle.
async fn read_frames(
    mut stream: OwnedReadHalf,
    frames: mpsc::Sender<Frame>,
) -> std::io::Result<()> {
    stream.read_exact(&mut [0; 8]).await?;
    loop {
        let mut head = [0; 7];
        stream.read_exact(&mut head).await?;
        let channel = u16::from_be_bytes([head[1], head[2]]);
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
        let mut payload = vec![0; size as usize + 1];
        stream.read_exact(&mut payload).await?;
        payload.pop();
        if frames.send((head[0], channel, payload)).await.is_err() {
            return Ok(());
        }
    }
}

/// A connection of a publisher.
struct Session {
    stream: OwnedWriteHalf,
    frames: mpsc::Receiver<Frame>,
    seen: Arc<Mutex<Seen>>,
    lull: Duration,
    rng: Rng,
    /// Set by confirm.select, and the channel on which that was.
    confirms_on: Option<u16>,
    next_tag: u64,
    /// Not settled yet, by their tags.
    outstanding: BTreeMap<u64, (Fate, Vec<u32>)>,
    content: Content,
}

/// A message of which not everything has come.
#[derive(Default)]
struct Content {
    route: Vec<u8>,
    header: Vec<u8>,
    size: usize,
    body: Vec<u8>,
}

impl Session {
    fn new(stream: TcpStream, seen: Arc<Mutex<Seen>>, lull: Duration) -> Self {
        stream.set_nodelay(true).unwrap();
        let (reader, writer) = stream.into_split();
        let (sender, frames) = mpsc::channel(1_024);
        tokio::spawn(async move { drop(read_frames(reader, sender).await) });
        Self {
            stream: writer,
            frames,
            seen,
            lull,
            rng: Rng::with_seed(1),
            confirms_on: None,
            next_tag: 0,
            outstanding: BTreeMap::new(),
            content: Content::default(),
        }
    }

    async fn run(mut self) -> std::io::Result<()> {
        let start = [&[0, 9, 0, 0, 0, 0][..], &long(b"PLAIN"), &long(b"en_US")].concat();
        self.stream.write_all(&method(0, 10, 10, &start)).await?;
        loop {
            match timeout(self.lull, self.frames.recv()).await {
                Ok(Some(frame)) => self.frame(frame).await?,
                Ok(None) => return Ok(()),
                Err(_quiet) => self.settle().await?,
            }
            if self.outstanding.len() > self.rng.usize(8..64) {
                self.settle().await?;
            }
        }
    }

    async fn frame(&mut self, (kind, channel, payload): Frame) -> std::io::Result<()> {
        match kind {
            METHOD => self.method(channel, &payload).await,
            HEADER => {
                let size = u64::from_be_bytes(payload[4..12].try_into().unwrap());
                self.content.size = usize::try_from(size).unwrap();
                self.content.header = payload;
                self.message(channel).await
            }
            BODY => {
                self.content.body.extend_from_slice(&payload);
                self.message(channel).await
            }
            _ => Ok(()),
        }
    }

    async fn method(&mut self, channel: u16, payload: &[u8]) -> std::io::Result<()> {
        let id = (
            u16::from_be_bytes([payload[0], payload[1]]),
            u16::from_be_bytes([payload[2], payload[3]]),
        );
        let arguments = &payload[4..];
        let reply = match id {
            // connection: start-ok -> tune, tune-ok, open -> open-ok, close -> close-ok
            (10, 11) => method(0, 10, 30, &[7, 255, 0, 2, 0, 0, 0, 0]),
            (10, 31) => return Ok(()),
            (10, 40) => method(0, 10, 41, &short(b"")),
            (10, 50) => method(0, 10, 51, &[]),
            // channel: open -> open-ok, close -> close-ok
            (20, 10) => method(channel, 20, 11, &long(b"")),
            (20, 40) => method(channel, 20, 41, &[]),
            // exchange.declare, queue.declare with the queue's name in its answer, queue.bind
            (40, 10) => method(channel, 40, 11, &[]),
            (50, 10) => {
                let name = &arguments[2..3 + usize::from(arguments[2])];
                method(channel, 50, 11, &[name, &[0; 8]].concat())
            }
            (50, 20) => method(channel, 50, 21, &[]),
            // confirm.select
            (85, 10) => {
                self.confirms_on = Some(channel);
                method(channel, 85, 11, &[])
            }
            // basic.publish
            (60, 40) => {
                self.content = Content {
                    route: arguments.to_vec(),
                    ..Content::default()
                };
                return Ok(());
            }
            _ => panic!("the fake broker does not know method {id:?}"),
        };
        self.stream.write_all(&reply).await
    }

    /// Takes a message once it is whole.
    async fn message(&mut self, channel: u16) -> std::io::Result<()> {
        if self.content.body.len() < self.content.size {
            return Ok(());
        }
        let content = std::mem::take(&mut self.content);
        {
            let mut seen = self.seen.lock().unwrap();
            seen.transient += usize::from(delivery_mode(&content.header) != Some(2));
            seen.optional += usize::from(content.route.last().is_none_or(|bits| bits & 1 == 0));
        }
        // As a real one, it is silent where nobody asked for confirms.
        if self.confirms_on != Some(channel) {
            return Ok(());
        }
        self.next_tag += 1;
        let (fate, numbers) = Fate::of(&content.body);
        if fate == Fate::Return {
            let exchange_and_key = &content.route[2..content.route.len() - 1];
            let arguments = [
                &312_u16.to_be_bytes()[..],
                &short(b"NO_ROUTE"),
                exchange_and_key,
            ]
            .concat();
            self.stream
                .write_all(&method(channel, 60, 50, &arguments))
                .await?;
            self.stream
                .write_all(&frame(HEADER, channel, &content.header))
                .await?;
            for piece in content.body.chunks(100_000) {
                self.stream.write_all(&frame(BODY, channel, piece)).await?;
            }
        }
        self.outstanding.insert(self.next_tag, (fate, numbers));
        Ok(())
    }

    /// Settles all there is, in an order by chance; where the oldest ones share their fate, at times together.
    async fn settle(&mut self) -> std::io::Result<()> {
        let Some(channel) = self.confirms_on else {
            return Ok(());
        };
        let ignored = |fate: Fate| fate == Fate::Ignore;
        let confirms = |fate: Fate| matches!(fate, Fate::Confirm | Fate::Return);
        loop {
            let tags: Vec<_> = self
                .outstanding
                .iter()
                .map(|(tag, (fate, _))| (*tag, *fate))
                .collect();
            let open: Vec<_> = tags.iter().filter(|(_, fate)| !ignored(*fate)).collect();
            if open.is_empty() {
                return Ok(());
            }
            let first = tags[0].1;
            let alike = tags
                .iter()
                .take_while(|(_, fate)| !ignored(*fate) && confirms(*fate) == confirms(first));
            let alike: Vec<_> = alike.map(|(tag, _)| *tag).collect();
            let multiple = alike.len() > 1 && self.rng.bool();
            let (tag, fate) = if multiple {
                (alike[alike.len() - 1], first)
            } else {
                *open[self.rng.usize(0..open.len())]
            };
            let settled: Vec<_> = if multiple { alike } else { vec![tag] };
            let mut confirmed = Vec::new();
            for tag in settled {
                confirmed.extend(self.outstanding.remove(&tag).expect("outstanding").1);
            }
            if confirms(fate) {
                let mut seen = self.seen.lock().unwrap();
                // A returned message is confirmed in name only.
                seen.confirmed.extend(if fate == Fate::Return {
                    vec![]
                } else {
                    confirmed
                });
                seen.multiple += usize::from(multiple);
            }
            let number = if confirms(fate) { 80 } else { 120 };
            let bits = u8::from(multiple);
            let arguments = [&tag.to_be_bytes()[..], &[bits]].concat();
            self.stream
                .write_all(&method(channel, 60, number, &arguments))
                .await?;
        }
    }
}

/// Reads the property out of a content header (AMQP 0-9-1, section 4.2.6.1): before it come content
/// type, content encoding and headers, each if its flag is set.
fn delivery_mode(header: &[u8]) -> Option<u8> {
    let flags = u16::from_be_bytes([header[12], header[13]]);
    let mut at = 14;
    for flag in [15, 14] {
        if flags >> flag & 1 == 1 {
            at += 1 + usize::from(header[at]);
        }
    }
    if flags >> 13 & 1 == 1 {
        at += 4 + u32::from_be_bytes(header[at..at + 4].try_into().unwrap()) as usize;
    }
    (flags >> 12 & 1 == 1).then(|| header[at])
}

/// ticketd accept with a fake broker behind it.
pub struct Accept {
    /// The process.
    pub ticketd: Ticketd,
    broker: FakeBroker,
    dir: PathBuf,
    _quiet: Quiet,
}

impl Accept {
    /// Starts both, with these settings, and a broker that settles in disorder.
    async fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_with(settings, Duration::from_millis(2), None).await
    }

    /// Starts both, with a broker that settles at once.
    pub async fn start_prompt(ulimit_files: Option<u32>) -> Self {
        Self::start_with(&[], Duration::ZERO, ulimit_files).await
    }

    async fn start_with(
        settings: &[(&str, &str)],
        lull: Duration,
        ulimit_files: Option<u32>,
    ) -> Self {
        let quiet = quiet().await;
        let broker = FakeBroker::start(lull).await;
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let dir =
            std::env::temp_dir().join(format!("ticketd-accept-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut env = vec![("AMQP_URL".to_owned(), broker.url())];
        env.extend(
            settings
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into())),
        );
        let log = dir.join("accept.log");
        let ticketd = Ticketd::start_with(Role::Accept, log, env, ulimit_files).await;
        let accept = Self {
            ticketd,
            broker,
            dir,
            _quiet: quiet,
        };
        until("ready", Duration::from_secs(10), async || {
            accept.ticketd.is_ready().await.then_some(())
        })
        .await;
        accept
    }
}

impl Drop for Accept {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            std::fs::remove_dir_all(&self.dir).unwrap();
        }
    }
}

/// One ticket of a test and what became of it.
struct Sent {
    number: u32,
    fate: Fate,
    status: u16,
    waited: Duration,
}

/// Posts so many tickets over some connections, each with the fate that chance gives it.
async fn post_all(
    accept: &Accept,
    connections: u32,
    tickets: u32,
    size_max: usize,
    fate: fn(&mut Rng) -> Fate,
) -> Vec<Sent> {
    let mut clients = JoinSet::new();
    let address = accept.ticketd.address;
    for client in 0..connections {
        clients.spawn(async move {
            let mut rng = Rng::with_seed(client.into());
            let mut stream = client::connect(address).await.unwrap();
            let mut sent = Vec::new();
            for number in (client..tickets).step_by(connections as usize) {
                let fate = fate(&mut rng);
                let mark = format!("mark:{number} {};", fate.word());
                let body = format!("{mark}{}", "x".repeat(rng.usize(0..size_max)));
                let started = std::time::Instant::now();
                let answer = client::post(&mut stream, None, body.as_bytes())
                    .await
                    .unwrap();
                sent.push(Sent {
                    number,
                    fate,
                    status: answer.status,
                    waited: started.elapsed(),
                });
            }
            sent
        });
    }
    clients.join_all().await.into_iter().flatten().collect()
}

impl Accept {
    /// No 202 without a confirm, and every message as it must be; returns how many had each status.
    fn check(&self, sent: &[Sent]) -> BTreeMap<u16, usize> {
        let seen = self.broker.seen.lock().unwrap();
        let mut statuses = BTreeMap::new();
        for Sent {
            number,
            fate,
            status,
            ..
        } in sent
        {
            assert!(
                matches!(status, 202 | 503),
                "ticket {number} was answered {status}"
            );
            assert!(
                *status != 202 || *fate == Fate::Confirm,
                "ticket {number} was answered 202 after {fate:?}"
            );
            assert!(
                *status != 202 || seen.confirmed.contains(number),
                "ticket {number} was never confirmed"
            );
            *statuses.entry(*status).or_insert(0) += 1;
        }
        assert_eq!(
            (seen.transient, seen.optional),
            (0, 0),
            "messages that are not persistent, or not mandatory"
        );
        statuses
    }
}

fn mostly_confirmed(rng: &mut Rng) -> Fate {
    if rng.u8(0..100) < 15 {
        Fate::Refuse
    } else {
        Fate::Confirm
    }
}

/// Attacks: each confirm is taken for its own message, when many are under way and the order is odd.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_message_is_never_202() {
    let accept = Accept::start(&[("PUBLISH_GROUP_MAX", "1")]).await;
    let sent = post_all(&accept, 96, 6_000, 8_000, mostly_confirmed).await;
    let statuses = accept.check(&sent);
    let confirmed = sent
        .iter()
        .filter(|sent| sent.fate == Fate::Confirm)
        .count();
    assert_eq!(
        statuses.get(&202),
        Some(&confirmed),
        "each confirmed ticket is a 202"
    );
    assert!(
        accept.broker.seen.lock().unwrap().multiple > 10,
        "several confirmed at once"
    );
}

/// Attacks: a group is confirmed or refused as a whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_group_is_never_202() {
    let accept = Accept::start(&[("PUBLISH_GROUP_MAX", "8")]).await;
    let fate = |rng: &mut Rng| {
        if rng.u8(0..100) < 4 {
            Fate::Refuse
        } else {
            Fate::Confirm
        }
    };
    let statuses = accept.check(&post_all(&accept, 128, 6_000, 400, fate).await);
    assert!(
        statuses.get(&202).is_some_and(|count| *count > 1_000),
        "{statuses:?}"
    );
    assert!(
        statuses.get(&503).is_some_and(|count| *count > 100),
        "{statuses:?}"
    );
}

/// Attacks: 503 at the deadline for what is never confirmed, though its neighbours are.
#[tokio::test(flavor = "multi_thread")]
async fn an_unconfirmed_message_is_never_202() {
    let settings = [("PUBLISH_GROUP_MAX", "1"), ("CONFIRM_TIMEOUT", "500ms")];
    let accept = Accept::start(&settings).await;
    let fate = |rng: &mut Rng| {
        if rng.u8(0..100) < 2 {
            Fate::Ignore
        } else {
            Fate::Confirm
        }
    };
    let sent = post_all(&accept, 32, 1_000, 400, fate).await;
    let statuses = accept.check(&sent);
    assert!(
        statuses.get(&202).is_some_and(|count| *count > 100),
        "{statuses:?}"
    );
    let ignored: Vec<_> = sent
        .iter()
        .filter(|sent| sent.fate == Fate::Ignore)
        .collect();
    assert!(!ignored.is_empty());
    for Sent { number, waited, .. } in ignored {
        assert!(
            *waited < Duration::from_millis(1_500),
            "ticket {number} waited {waited:?}"
        );
    }
}

/// Attacks: what the broker returns went nowhere, and its confirm says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_returned_message_is_never_202() {
    let accept = Accept::start(&[("PUBLISH_GROUP_MAX", "1")]).await;
    let fate = |rng: &mut Rng| {
        if rng.u8(0..100) < 20 {
            Fate::Return
        } else {
            Fate::Confirm
        }
    };
    // One at a time: only then can be known which message a return is about.
    let statuses = accept.check(&post_all(&accept, 1, 60, 400, fate).await);
    assert!(
        statuses.contains_key(&202) && statuses.contains_key(&503),
        "{statuses:?}"
    );
}
