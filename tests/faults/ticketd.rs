//! A ticketd that can be killed, and started again where it was.

use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use ticketd_testing::{Ended, Process, ask_once, get, metric};

use crate::TICKETD;

/// Maximum wait for an answer about its own state.
const STATE_DEADLINE: Duration = Duration::from_secs(5);

/// The roles, each of which is a process here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// ticketd accept
    Accept,
    /// ticketd consume
    Consume,
    /// ticketd serve
    Serve,
}

impl Role {
    /// Its command.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Consume => "consume",
            Self::Serve => "serve",
        }
    }

    /// The setting for where it listens.
    fn listener(self) -> &'static str {
        match self {
            Self::Consume => "ADMIN_LISTEN",
            Self::Accept | Self::Serve => "LISTEN",
        }
    }
}

/// What it is told in its environment, and nothing else is there.
pub(crate) type Settings = Vec<(String, String)>;

/// A running ticketd; dropping it kills it.
pub(crate) struct Ticketd {
    /// Its role.
    pub role: Role,
    /// Where it listens.
    pub address: SocketAddr,
    /// Which ticketd it is.
    binary: PathBuf,
    process: Process,
    settings: Settings,
    log: PathBuf,
    ulimit_files: Option<u32>,
    /// It was ended or killed, and started again.
    pub restarted: bool,
}

impl Ticketd {
    /// Starts one, perhaps with a bound on its open files, and waits until it listens. Its log is
    /// in that folder.
    pub(crate) async fn start(
        role: Role,
        dir: &Path,
        settings: Settings,
        ulimit_files: Option<u32>,
    ) -> Self {
        let binary = Path::new(TICKETD);
        Self::start_with(binary, role, dir, settings, ulimit_files).await
    }

    /// Starts another ticketd than the one under test.
    pub(crate) async fn start_of(
        binary: &Path,
        role: Role,
        dir: &Path,
        settings: Settings,
    ) -> Self {
        Self::start_with(binary, role, dir, settings, None).await
    }

    async fn start_with(
        binary: &Path,
        role: Role,
        dir: &Path,
        settings: Settings,
        ulimit_files: Option<u32>,
    ) -> Self {
        let log = dir.join(format!("{}.log", role.name()));
        let address = ([127, 0, 0, 1], 0).into();
        let mut ticketd = Self {
            process: launch(binary, role, &settings, address, &log, ulimit_files),
            binary: binary.to_owned(),
            role,
            address,
            settings,
            log,
            ulimit_files,
            restarted: false,
        };
        ticketd.address = ticketd.process.address(role.listener()).await;
        ticketd
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Starts it again where it was, once the process there was has ended.
    pub(crate) async fn restart(&mut self) {
        self.process.end().await;
        self.restarted = true;
        let (address, files) = (self.address, self.ulimit_files);
        let (binary, settings) = (&self.binary, &self.settings);
        self.process = launch(binary, self.role, settings, address, &self.log, files);
        self.process.address(self.role.listener()).await;
    }

    /// Starts that one where it was, once the process there was has ended.
    pub(crate) async fn restart_as(&mut self, binary: &Path) {
        binary.clone_into(&mut self.binary);
        self.restart().await;
    }

    /// Waits for its end.
    pub(crate) async fn end(&mut self) -> ExitStatus {
        self.process.end().await
    }

    /// Runs another command with its settings.
    pub(crate) async fn run(&self, args: &[&str]) -> Ended {
        self.start_command(args).ended().await
    }

    /// Starts another command with its settings.
    pub(crate) fn start_command(&self, args: &[&str]) -> Process {
        let names = self.settings.iter();
        let settings: Vec<_> = names.map(|(name, value)| (name.as_str(), value)).collect();
        Process::start(TICKETD, args, &settings)
    }

    /// What it has logged, before it was started again, too.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Whether /readyz says so, and that nothing is missing.
    pub(crate) async fn is_ready(&self) -> bool {
        let answer = ask_once(self.address, &get("/readyz"), STATE_DEADLINE).await;
        answer.is_ok_and(|answer| answer.lacks_nothing())
    }

    /// A metric's value; `series` is its name with its labels.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let answer = ask_once(self.address, &get("/metrics"), STATE_DEADLINE).await;
        metric(answer.unwrap().text(), series).expect(series)
    }
}

fn launch(
    binary: &Path,
    role: Role,
    settings: &Settings,
    address: SocketAddr,
    log: &Path,
    ulimit_files: Option<u32>,
) -> Process {
    let mut command = Command::new(binary);
    if let Some(files) = ulimit_files {
        // Both limits, as ticketd raises the soft one to the hard one.
        let script = format!("ulimit -n {files} && exec \"$0\" \"$@\"");
        command = Command::new("bash");
        command.args(["-c", &script]).arg(binary);
    }
    command
        .arg(role.name())
        .env_clear()
        // Nobody stands in front of it who would have to notice its end.
        .env("LAME_DUCK", "0")
        .envs(settings.iter().map(|(name, value)| (name, value)))
        .env(role.listener(), address.to_string())
        .env("RUST_BACKTRACE", "1");
    let log = OpenOptions::new().create(true).append(true).open(log);
    Process::spawn(&mut command, Some(log.unwrap()))
}
