//! The processes of a bench: servers that are started, asked and ended, and the load generator run against them.
//!
//! Each is in a process group of its own, so that Ctrl-C reaches the bench alone, which then ends them in order.

use std::cell::Cell;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use ticketd_testing::{Answer, Process};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use crate::client::Endpoint;

/// Maximum wait for a server to be ready, and for it to drain and end.
const START_TIMEOUT: Duration = Duration::from_secs(30);
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum wait for an answer to a question that is no load.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a server that starts is asked whether it is ready.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// What a load run may take besides its duration: the last answers, the drain, and the count.
const LOAD_EXTRA: Duration = Duration::from_secs(180);

/// Lines of a log that an error quotes.
const LOG_LINES: usize = 5;

/// A server that the bench has started; dropped, it is killed.
pub(super) struct Server {
    /// What the figures call it.
    pub(super) name: &'static str,
    process: Process,
}

impl Server {
    /// Starts a program with nothing of this environment but what is given, so that each bench measures the same.
    pub(super) fn start(
        name: &'static str,
        program: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
        logs: &Path,
    ) -> Result<Self> {
        let log = File::create(logs.join(format!("{name}.log")))?;
        let mut command = std::process::Command::new(program);
        command.args(arguments).env_clear();
        command.envs(environment.iter().copied()).process_group(0);
        let process = Process::try_spawn(&mut command, Some(log))
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { name, process })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits until it answers `path` with 200 and names no part that is down or, without a path, until it listens.
    pub(super) async fn ready(&mut self, server: &Endpoint, path: Option<&str>) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let ready = match path {
                Some(path) => ask(server, path, "")
                    .await
                    .is_ok_and(|answer| answer.lacks_nothing()),
                None => TcpStream::connect(server.address()).await.is_ok(),
            };
            if ready {
                return Ok(());
            }
            if let Some(status) = self.process.try_end() {
                bail!("{} ended with {status}: {}", self.name, self.log_end());
            }
            ensure!(
                Instant::now() < deadline,
                "{} is not ready: {}",
                self.name,
                self.log_end()
            );
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Lets it drain and end; one that was asked to end and fails to is an error.
    pub(super) async fn end(mut self) -> Result<()> {
        if self.process.try_end().is_some() {
            bail!("{} ended early: {}", self.name, self.log_end());
        }
        self.process.signal("TERM");
        let deadline = Instant::now() + END_TIMEOUT;
        while self.process.try_end().is_none() {
            ensure!(
                Instant::now() < deadline,
                "{} did not end: {}",
                self.name,
                self.log_end()
            );
            sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    fn log_end(&self) -> String {
        let log = self.process.log();
        let lines: Vec<_> = log.lines().collect();
        let (_, last) = lines.split_at(lines.len().saturating_sub(LOG_LINES));
        last.join(" | ")
    }
}

/// An address of this machine at which nothing listens just now.
pub(super) fn free_address() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.to_string())
}

/// The body of a page that was answered 200.
pub(super) async fn get(server: &Endpoint, path: &str) -> Result<String> {
    get_within(server, path, 0).await
}

/// The same, content with one that is so many seconds old (RFC 9111 section 5.2.1.1).
pub(super) async fn get_within(server: &Endpoint, path: &str, max_age: u64) -> Result<String> {
    let answer = ask(
        server,
        path,
        &format!("cache-control: max-age={max_age}\r\n"),
    )
    .await?;
    ensure!(answer.status == 200, "{path}: {}", answer.status);
    Ok(answer.text().to_owned())
}

async fn ask(server: &Endpoint, path: &str, header: &str) -> Result<Answer> {
    // By its address, as whoever opens the page does: the list of tickets is for nobody else.
    let address = server.address();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n{header}\r\n").into_bytes();
    let asked = server.clone();
    let asked = spawn_blocking(move || asked.connect()?.ask(&request));
    let (status, body) = timeout(ASK_TIMEOUT, asked)
        .await?
        .map_err(anyhow::Error::from)?
        .with_context(|| format!("no answer from {}{path}", server.address()))?;
    Ok(Answer {
        status,
        headers: Vec::new(),
        body: body.into_bytes(),
    })
}

/// The share of an open loop's time in which connections, caches and plans are still new to the servers.
pub(super) const WARMUP_SHARE: f64 = 1.0 / 6.0;

/// A run of the load generator.
pub(super) struct Load<'a> {
    /// Arguments that say where the tickets go, and how they prove who sends them.
    pub(super) sender: Vec<String>,
    pub(super) connections: u32,
    pub(super) seconds: f64,
    /// Tickets per second of an open loop.
    pub(super) rate: Option<f64>,
    /// Maximum number of tickets to send.
    pub(super) tickets: Option<u64>,
    /// Where the rows are counted, and in which table.
    pub(super) database: Option<(&'a str, &'a str)>,
    /// Names and process ids of the parts whose costs are wanted.
    pub(super) parts: Vec<(String, u32)>,
    /// Where its own process id is told once it runs.
    pub(super) pid: &'a Cell<Option<u32>>,
}

impl Load<'_> {
    /// Runs it in a process of its own, so that its cost is its own, and gives its figures as it wrote them. A run that
    /// has lost tickets has figures too.
    pub(super) async fn run(&self, program: &Path, logs: &Path) -> Result<Value> {
        let json = logs.join("load.json");
        let mut command = Command::new(program);
        command.args(self.arguments()).arg("--json").arg(&json);
        command.stdin(Stdio::null()).process_group(0);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.kill_on_drop(true).spawn()?;
        self.pid.set(child.id());
        let limit = Duration::from_secs_f64(self.seconds) + LOAD_EXTRA;
        let output = timeout(limit, child.wait_with_output())
            .await
            .context("the load generator did not end")??;
        ensure!(
            output.status.code().is_some_and(|code| code < 2),
            "the load generator failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(serde_json::from_str(&fs::read_to_string(&json)?)?)
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            "run".to_owned(),
            format!("--connections={}", self.connections),
            format!("--duration={:.3}s", self.seconds),
        ];
        arguments.extend_from_slice(&self.sender);
        if let Some(rate) = self.rate {
            arguments.push(format!("--rate={rate:.1}"));
            arguments.push(format!("--warmup={:.3}s", self.seconds * WARMUP_SHARE));
        }
        arguments.extend(self.tickets.map(|tickets| format!("--tickets={tickets}")));
        if let Some((url, table)) = self.database {
            arguments.push(format!("--database={url}"));
            arguments.push(format!("--table={table}"));
        }
        let parts = self.parts.iter();
        arguments.extend(parts.map(|(name, pid)| format!("--pid={name}={pid}")));
        arguments
    }
}

/// The processes behind the servers of `stack.sh`, as far as they listen on one of these ports.
pub(super) async fn stack_parts(script: &Path, ports: &[u16]) -> Vec<(String, u32)> {
    let Ok(output) = Command::new(script).arg("status").output().await else {
        return Vec::new();
    };
    parts_of_status(&String::from_utf8_lossy(&output.stdout), ports)
}

fn parts_of_status(status: &str, ports: &[u16]) -> Vec<(String, u32)> {
    let part = |line: &str| {
        let field = |name: &str| {
            line.split(' ')
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        };
        let port = field("port")?.parse().ok()?;
        let name = line.split(' ').next()?.to_owned();
        ports
            .contains(&port)
            .then_some((name, field("pid")?.parse().ok()?))
    };
    status.lines().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_servers_that_are_used_are_watched() {
        let status = "postgres pid=12 port=5001 data=/a log=/b\n\
            rabbitmq pid=13 port=5002 data=/a epmd_pid=3 epmd_port=4\nother down\n";
        let both = [("postgres".to_owned(), 12), ("rabbitmq".to_owned(), 13)];
        assert_eq!(parts_of_status(status, &[5002, 5001]), both);
        assert_eq!(parts_of_status(status, &[5001]), both[..1]);
        assert_eq!(parts_of_status(status, &[4]), []);
    }
}
