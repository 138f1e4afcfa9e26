//! A TCP proxy for one link, which can be disrupted while it is in use.
//!
//! Besides what happens to any network, it knows enough of both protocols to
//! cut a connection at the one message on which a promise hangs.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::scanner::{Protocol, Scanner};

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From ticketd to the server.
    Up,
    /// From the server to ticketd.
    Down,
}

/// What the link is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As if the proxy were not there.
    Pass,
    /// Every piece comes this much later.
    Delay(Duration),
    /// Everything arrives in pieces of a few bytes.
    Slice,
    /// Connections stand but nothing gets through, in one direction or in both.
    Blackhole(Option<Way>),
    /// Every connection is reset, now and when it is made.
    Reset,
    /// Nothing listens.
    Refuse,
}

/// The message at which a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The broker's basic.ack: it has the message, and the publisher is not told.
    Confirm,
    /// The consumer's basic.ack: the rows are there, and the broker is not told.
    Ack,
    /// The answer to COMMIT: it happened, and the writer is not told.
    CommitReply,
    /// COMMIT itself: it never happens.
    Commit,
    /// The middle of a piece of COPY data.
    CopyData,
}

impl Cut {
    /// The way that the message goes which triggers it.
    fn way(self) -> Way {
        match self {
            Self::Confirm => Way::Down,
            Self::Ack | Self::CommitReply | Self::Commit | Self::CopyData => Way::Up,
        }
    }

    /// Whether that message is the one.
    pub(crate) fn matches(self, message: &[u8]) -> bool {
        match self {
            Self::Confirm | Self::Ack => is_basic_ack(message),
            Self::CommitReply | Self::Commit => message.starts_with(b"Q\0\0\0\x0bcommit\0"),
            // The first piece is the header alone; a larger one holds rows.
            Self::CopyData => message.first() == Some(&b'd') && message.len() > 64,
        }
    }
}

/// basic.ack is class 60, method 80, in a frame of type 1 (AMQP 0-9-1, sections 2.3.5 and 1.8).
fn is_basic_ack(frame: &[u8]) -> bool {
    frame.first() == Some(&1) && frame.get(7..11) == Some(&[0, 60, 0, 80])
}

/// The proxy; dropping it ends its connections.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    protocol: Protocol,
    server: Mutex<SocketAddr>,
    mode: watch::Sender<Mode>,
    cut: Mutex<Option<Cut>>,
    cuts: AtomicUsize,
}

impl Proxy {
    /// Listens on a port of its own, for a server's.
    pub(crate) async fn new(protocol: Protocol, server_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            shared: Arc::new(Shared {
                protocol,
                server: Mutex::new(([127, 0, 0, 1], server_port).into()),
                mode: watch::Sender::new(Mode::Pass),
                cut: Mutex::default(),
                cuts: AtomicUsize::new(0),
            }),
        };
        let (shared, address) = (Arc::downgrade(&proxy.shared), proxy.address);
        let modes = proxy.shared.mode.subscribe();
        tokio::spawn(async move { listen(listener, address, &shared, modes).await });
        proxy
    }

    /// The port to connect to.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Where the server is now.
    pub(crate) fn lead_to(&self, server_port: u16) {
        self.shared.server.lock().unwrap().set_port(server_port);
    }

    /// Makes the link so from now on.
    pub(crate) fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
    }

    /// Cuts the connection at the next such message; that one only.
    pub(crate) fn cut_once(&self, cut: Cut) {
        *self.shared.cut.lock().unwrap() = Some(cut);
    }

    /// Lets such messages pass again.
    pub(crate) fn cut_none(&self) {
        *self.shared.cut.lock().unwrap() = None;
    }

    /// How often it has cut.
    pub(crate) fn cuts(&self) -> usize {
        self.shared.cuts.load(Ordering::SeqCst)
    }
}

impl Shared {
    /// Whether this message is the one to cut at; it is so only once.
    fn cuts_at(&self, way: Way, message: &[u8]) -> Option<Cut> {
        let mut cut = self.cut.lock().unwrap();
        let hit = cut.filter(|cut| cut.way() == way && cut.matches(message))?;
        *cut = None;
        Some(hit)
    }
}

async fn listen(
    listener: TcpListener,
    address: SocketAddr,
    shared: &std::sync::Weak<Shared>,
    mut modes: watch::Receiver<Mode>,
) {
    let mut listener = Some(listener);
    loop {
        let refuses = *modes.borrow_and_update() == Mode::Refuse;
        if refuses {
            listener = None;
        } else if listener.is_none() {
            listener = Some(listen_again(address).await);
        }
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Ok((client, _)) = accepted => {
                let Some(shared) = shared.upgrade() else { return };
                let modes = modes.clone();
                tokio::spawn(async move { connection(client, shared, modes).await });
            }
            changed = modes.changed() => if changed.is_err() { return },
        }
    }
}

/// The same port once more; connections in TIME_WAIT do not matter.
async fn listen_again(address: SocketAddr) -> TcpListener {
    loop {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        if socket.bind(address).is_ok()
            && let Ok(listener) = socket.listen(1024)
        {
            return listener;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn connection(mut client: TcpStream, shared: Arc<Shared>, modes: watch::Receiver<Mode>) {
    let reset = |stream: &TcpStream| SockRef::from(stream).set_linger(Some(Duration::ZERO));
    let mut early = modes.clone();
    // A blackhole swallows the attempt, too; the rest is decided below.
    let through = early
        .wait_for(|mode| !matches!(mode, Mode::Blackhole(None)))
        .await;
    if !through.is_ok_and(|mode| !matches!(*mode, Mode::Reset | Mode::Refuse)) {
        return drop(reset(&client));
    }
    let address = *shared.server.lock().unwrap();
    let Ok(mut server) = TcpStream::connect(address).await else {
        return drop(reset(&client));
    };
    let (_, _) = (client.set_nodelay(true), server.set_nodelay(true));
    let swallow = AtomicBool::new(false);
    {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let pump = |way| Pump {
            way,
            shared: &shared,
            modes: modes.clone(),
            swallow: &swallow,
            scanner: Scanner::new(shared.protocol, way),
        };
        let (up, down) = (pump(Way::Up), pump(Way::Down));
        let mut ending = modes.clone();
        tokio::select! {
            _ = up.run(from_client, to_server) => {}
            _ = down.run(from_server, to_client) => {}
            _ = ending.wait_for(|mode| matches!(mode, Mode::Reset | Mode::Refuse)) => {}
        }
    }
    // What one side closed is reset for the other: nobody is to see a clean end where there was none.
    let (_, _) = (reset(&client), reset(&server));
}

struct Pump<'a> {
    way: Way,
    shared: &'a Shared,
    modes: watch::Receiver<Mode>,
    /// Set when the next thing the server says must not be heard.
    swallow: &'a AtomicBool,
    scanner: Scanner,
}

impl Pump<'_> {
    /// Passes bytes on until the connection is closed, or cut.
    async fn run(mut self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let Ok(count @ 1..) = from.read(&mut buffer).await else {
                return;
            };
            self.pass_the_hole().await;
            let piece = &buffer[..count];
            if self.way == Way::Down && self.swallow.load(Ordering::SeqCst) {
                self.shared.cuts.fetch_add(1, Ordering::SeqCst);
                return;
            }
            let (shared, way) = (self.shared, self.way);
            let hit = self
                .scanner
                .find(piece, |message| shared.cuts_at(way, message));
            let mode = *self.modes.borrow();
            match hit {
                None => {
                    if forward(&mut to, piece, mode).await.is_err() {
                        return;
                    }
                }
                Some((Cut::CommitReply, _)) => {
                    self.swallow.store(true, Ordering::SeqCst);
                    if forward(&mut to, piece, mode).await.is_err() {
                        return;
                    }
                }
                Some((_, at)) => {
                    // One byte short of what was recognised, so that the message stays incomplete.
                    let _last = forward(&mut to, &piece[..at - 1], mode).await;
                    self.shared.cuts.fetch_add(1, Ordering::SeqCst);
                    return;
                }
            }
        }
    }

    async fn pass_the_hole(&mut self) {
        let way = self.way;
        let open = |mode: &Mode| match mode {
            Mode::Blackhole(hole) => hole.is_some_and(|hole| hole != way),
            _ => true,
        };
        // The sender is gone when the proxy is, and then the connection ends anyway.
        let _open = self.modes.wait_for(open).await;
    }
}

async fn forward(to: &mut WriteHalf<'_>, piece: &[u8], mode: Mode) -> std::io::Result<()> {
    match mode {
        Mode::Delay(time) => {
            sleep(time).await;
            to.write_all(piece).await
        }
        Mode::Slice => {
            for (n, slice) in piece.chunks(7).enumerate() {
                to.write_all(slice).await?;
                // Now and then others come first, so that slices really travel alone.
                if n % 16 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            Ok(())
        }
        _ => to.write_all(piece).await,
    }
}
