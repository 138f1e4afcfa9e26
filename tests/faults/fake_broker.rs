//! A broker that refuses what it is told to refuse, in an order that a real one would rarely choose.
//!
//! It speaks as much of AMQP 0-9-1 as a publisher needs, and remembers what it confirmed. A ticket
//! carries a mark that says what is to become of the message it travels in: `mark:17 refuse;`.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::amqp::{
    BODY, Frame, HEADER, METHOD, delivery_mode, frame, long, method, read_frames, short,
};

/// What is to become of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    /// basic.ack
    Confirm,
    /// basic.return, and then basic.ack, as for a message without a queue.
    Return,
    /// basic.nack the first time, then basic.ack, as of a queue whose leader is not known yet.
    Hesitate,
    /// basic.nack
    Refuse,
    /// Nothing, ever.
    Ignore,
}

impl Fate {
    const ALL: [Self; 5] = [
        Self::Confirm,
        Self::Return,
        Self::Hesitate,
        Self::Refuse,
        Self::Ignore,
    ];

    /// How a ticket asks for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Confirm => "confirm",
            Self::Return => "return",
            Self::Hesitate => "hesitate",
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
pub(crate) struct Seen {
    /// Messages that came.
    pub messages: usize,
    /// Tickets whose message was confirmed.
    pub confirmed: HashSet<u32>,
    /// Tickets whose message was refused, and would be confirmed the next time.
    pub hesitated: HashSet<u32>,
    /// Messages that would not survive a restart.
    pub transient: usize,
    /// Messages that would vanish without a queue.
    pub optional: usize,
    /// Acknowledgements that covered several messages.
    pub multiple: usize,
}

/// The broker, which serves as long as this lives.
pub(crate) struct FakeBroker {
    address: SocketAddr,
    /// What it has seen.
    pub seen: Arc<Mutex<Seen>>,
    _connections: JoinSet<()>,
}

impl FakeBroker {
    /// Listens.
    ///
    /// It settles what it has as soon as nothing has come for so long: the longer, the more it has
    /// to put in disorder.
    pub(crate) async fn start(lull: Duration) -> Self {
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
    pub(crate) fn url(&self) -> String {
        format!("amqp://guest:guest@{}/%2f", self.address)
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
            seen.messages += 1;
            seen.transient += usize::from(delivery_mode(&content.header) != Some(2));
            seen.optional += usize::from(content.route.last().is_none_or(|bits| bits & 1 == 0));
        }
        // As a real one, it is silent where nobody asked for confirms.
        if self.confirms_on != Some(channel) {
            return Ok(());
        }
        self.next_tag += 1;
        let (mut fate, numbers) = Fate::of(&content.body);
        if fate == Fate::Hesitate {
            let hesitated = &mut self.seen.lock().unwrap().hesitated;
            let is_new = numbers.iter().any(|number| hesitated.insert(*number));
            fate = if is_new { Fate::Refuse } else { Fate::Confirm };
        }
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
