//! A ticketd that runs.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::http::{Client, get};
use crate::wait::{wait_for, wait_until};

/// Sends a signal, by its name without SIG, to all of these processes at once.
pub fn signal(name: &str, pids: &[u32]) {
    let pids = pids.iter().map(u32::to_string);
    // One of them may have ended by itself, which makes kill report a failure.
    let _sent = Command::new("sh")
        .args(["-c", "kill -s \"$0\" \"$@\"", name])
        .args(pids)
        .stderr(Stdio::null())
        .status()
        .expect("sh starts");
}

/// A child process with what it has written so far. Dropping it kills it, and shows its log if the
/// test is failing.
pub struct Process {
    child: Child,
    out: Capture,
    log: Capture,
    /// Whether the log is kept in a file, so that a failing test need not show it.
    is_logged: bool,
}

/// What is left of a process that has ended.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// All of its standard output.
    pub out: Vec<u8>,
    /// All of its standard error.
    pub log: String,
}

/// What comes out of a pipe.
struct Capture {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Capture {
    /// Keeps what comes, and writes it to a file as well where there is one.
    fn of(mut pipe: impl Read + Send + 'static, mut file: Option<File>) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = bytes.clone();
        let reader = std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(n @ 1..) = pipe.read(&mut piece) {
                sink.lock().unwrap().extend_from_slice(&piece[..n]);
                if let Some(file) = &mut file {
                    file.write_all(&piece[..n]).unwrap();
                }
            }
        });
        Self {
            bytes,
            reader: Some(reader),
        }
    }

    fn so_far(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }

    /// All of it, once the writer has ended.
    fn whole(&mut self) -> Vec<u8> {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.so_far()
    }
}

impl Process {
    /// Starts that ticketd with these arguments, and with these settings as its whole environment.
    pub fn start<V: AsRef<str>>(
        binary: impl AsRef<OsStr>,
        args: &[&str],
        settings: &[(&str, V)],
    ) -> Self {
        let mut command = Command::new(binary);
        command.args(args).env_clear();
        for (name, value) in settings {
            command.env(name, value.as_ref());
        }
        Self::spawn(&mut command, None)
    }

    /// Starts a command that runs ticketd, and writes its log to a file as well.
    pub fn spawn(command: &mut Command, log: Option<File>) -> Self {
        Self::try_spawn(command, log).unwrap()
    }

    /// The same with a program that may not be there.
    pub fn try_spawn(command: &mut Command, log: Option<File>) -> std::io::Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let is_logged = log.is_some();
        Ok(Self {
            out: Capture::of(child.stdout.take().unwrap(), None),
            log: Capture::of(child.stderr.take().unwrap(), log),
            child,
            is_logged,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Starts ticketd and waits for its end.
    pub async fn run<V: AsRef<str>>(
        binary: impl AsRef<OsStr>,
        args: &[&str],
        settings: &[(&str, V)],
    ) -> Ended {
        Self::start(binary, args, settings).ended().await
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.log.so_far()).into_owned()
    }

    /// Waits until it has logged that.
    pub async fn logged(&self, text: &str) {
        wait_until(&format!("{text:?} in the log"), async || {
            self.log().contains(text)
        })
        .await;
    }

    /// The address that it listens on for a setting, as it logs it at start.
    pub async fn address(&mut self, setting: &str) -> SocketAddr {
        wait_for(&format!("{setting} in the log"), async || {
            let status = self.child.try_wait().unwrap();
            assert!(status.is_none(), "ticketd ended: {status:?}");
            let listening = format!("setting=\"{setting}\" address=");
            let log = self.log();
            let (_, address) = log.split_once(&listening)?;
            address.split_whitespace().next()?.parse().ok()
        })
        .await
    }

    /// A connection to its main listener.
    pub async fn client(&mut self) -> Client {
        let address = self.address("LISTEN").await;
        Client::connect(address).await.unwrap()
    }

    /// A connection to its admin listener.
    pub async fn admin(&mut self) -> Client {
        let address = self.address("ADMIN_LISTEN").await;
        Client::connect(address).await.unwrap()
    }

    /// Waits until /readyz says so on that setting's listener, and that nothing is missing.
    pub async fn ready_on(&mut self, setting: &str) {
        let address = self.address(setting).await;
        let mut client = Client::connect(address).await.unwrap();
        wait_until("ready", async || {
            client.ask(get("/readyz")).await.lacks_nothing()
        })
        .await;
    }

    /// Waits until /readyz says so.
    pub async fn ready(&mut self) {
        self.ready_on("LISTEN").await;
    }

    /// Sends it a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        signal(name, &[self.pid()]);
    }

    /// How it ended, if it has.
    pub fn try_end(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end, and lets it be.
    pub async fn end(&mut self) -> ExitStatus {
        wait_for("the process ends", async || self.try_end()).await
    }

    /// Waits for its end.
    pub async fn ended(mut self) -> Ended {
        Ended {
            status: self.end().await,
            out: self.out.whole(),
            log: String::from_utf8_lossy(&self.log.whole()).into_owned(),
        }
    }

    /// Lets it drain, and checks that it ends well.
    pub async fn drained(self) -> Ended {
        self.signal("TERM");
        let ended = self.ended().await;
        assert_eq!(ended.status.code(), Some(0), "{}", ended.log);
        ended
    }
}

impl Ended {
    /// Its standard output as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.out).expect("text")
    }

    /// Its exit code.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail where it has ended already, which is as good.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
        if std::thread::panicking() && !self.is_logged {
            eprintln!("--- ticketd's log ---\n{}---", self.log());
        }
    }
}
