//! What a supervisor such as systemd is told, over the socket that it names in `NOTIFY_SOCKET`.
//!
//! A process is up once it listens, whether or not its servers are there: a restart would not bring
//! these back. For the same reason the watchdog hears only of threads that are stuck.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::warn;

use crate::config::SupervisorSettings;
use crate::health::{Health, Readiness};
use crate::thread::Threads;

/// How often it is looked at what the process lacks.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// How often in the time that a supervisor waits for a sign of life it gets one.
const SIGNS_OF_LIFE: u32 = 4;

/// No supervisor gets one more often.
const SIGN_EVERY_MIN: Duration = Duration::from_millis(10);

/// The maximum wait for a supervisor that takes nothing, and how often it is tried in that time.
const TELL_MAX: Duration = Duration::from_secs(1);
const TELL_EVERY: Duration = Duration::from_millis(50);

/// What is left of the time for the end when the drain is over.
const END_MARGIN: Duration = Duration::from_secs(5);

/// The supervisor, if there is one: where there is none, nothing is told.
#[derive(Clone)]
pub(super) struct Supervisor {
    settings: SupervisorSettings,
}

impl Supervisor {
    /// That of this process.
    pub(super) fn new() -> Self {
        let settings = SupervisorSettings::read();
        Self { settings }
    }

    /// Whether there is one.
    pub(super) fn is_there(&self) -> bool {
        self.settings.socket.is_some()
    }

    /// Tells that the process is up, then what it lacks, and that no thread is stuck.
    pub(super) async fn tell_state(self, health: Arc<Health>, threads: Threads) -> Infallible {
        while let Err(error) = self.tell_in_time("READY=1").await {
            if error.kind() != ErrorKind::WouldBlock {
                warn!(%error, "the supervisor cannot be told anything (NOTIFY_SOCKET)");
                break;
            }
        }
        tokio::select! {
            never = self.tell_status(&health) => never,
            never = self.feed_watchdog(&threads) => never,
        }
    }

    /// Tells that the end has begun, which takes that long at most.
    pub(super) async fn tell_end(self, longest: Duration) {
        let longest = longest.saturating_add(END_MARGIN).as_micros();
        let end = format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={longest}");
        let _untold = self.tell_in_time(&end).await;
    }

    /// Tells that the files are being read again; [`Self::tell_reloaded`] follows.
    pub(super) async fn tell_reload(&self) {
        // By the time this reload is told from an earlier one.
        let now = clock_gettime(ClockId::Monotonic);
        let now = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        let reload = format!("RELOADING=1\nMONOTONIC_USEC={now}");
        let _untold = self.tell_in_time(&reload).await;
    }

    /// Tells that they were, or that wrong ones changed nothing.
    pub(super) async fn tell_reloaded(&self) {
        let _untold = self.tell_in_time("READY=1").await;
    }

    /// Tells what the process lacks, whenever that has changed.
    async fn tell_status(&self, health: &Health) -> Infallible {
        let mut told = String::new();
        let mut tick = interval(STATUS_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let status = status(health.readiness());
            if status != told && self.tell(&format!("STATUS={status}")).is_ok() {
                told = status;
            }
        }
    }

    /// Gives a sign of life for as long as all threads answer; this one does so by running.
    async fn feed_watchdog(&self, threads: &Threads) -> Infallible {
        let Some(longest) = self.settings.watchdog else {
            return std::future::pending().await;
        };
        let mut tick = interval((longest / SIGNS_OF_LIFE).max(SIGN_EVERY_MIN));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if threads.have_answered() {
                // If it is not taken, the next one may be.
                let _untold = self.tell("WATCHDOG=1");
            }
            threads.ask();
        }
    }

    /// Tells that, once the supervisor takes it; fails if that takes too long.
    async fn tell_in_time(&self, message: &str) -> std::io::Result<()> {
        let since = Instant::now();
        loop {
            match self.tell(message) {
                Err(error)
                    if error.kind() == ErrorKind::WouldBlock && since.elapsed() < TELL_MAX =>
                {
                    sleep(TELL_EVERY).await;
                }
                told => return told,
            }
        }
    }

    /// Tells that, if the supervisor takes it at once.
    fn tell(&self, message: &str) -> std::io::Result<()> {
        let Some(name) = &self.settings.socket else {
            return Ok(());
        };
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(name),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.send_to_addr(message.as_bytes(), &address?).map(drop)
    }
}

/// What is shown of a process in one line.
fn status(readiness: Readiness) -> String {
    let away = |part: Option<bool>| part == Some(false);
    let lacks = [
        (away(readiness.publishing), "publishing to RabbitMQ"),
        (away(readiness.consuming), "consuming from RabbitMQ"),
        (away(readiness.database), "PostgreSQL"),
        (readiness.refusing, "tables that take tickets"),
    ];
    let lacks = lacks.iter().filter(|(is_lacking, _)| *is_lacking);
    let lacks: Vec<_> = lacks.map(|(_, what)| *what).collect();
    let state = match readiness {
        Readiness {
            shutting_down: true,
            ..
        } => "shutting down",
        _ if readiness.is_ready() => "ready",
        _ => "not ready",
    };
    match lacks[..] {
        [] => state.to_owned(),
        _ => format!("{state}; lacks {}", lacks.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_names_what_is_lacking() {
        let health = Health::new(true, true);
        let seen = || status(health.readiness());
        let all = "publishing to RabbitMQ, consuming from RabbitMQ, PostgreSQL";
        assert_eq!(seen(), format!("not ready; lacks {all}"));
        health.publishing(true);
        health.consuming(true);
        assert_eq!(seen(), "ready; lacks PostgreSQL");
        health.writer_up(true);
        assert_eq!(seen(), "ready");
        health.refusing(true);
        assert_eq!(seen(), "ready; lacks tables that take tickets");
        health.refusing(false);
        health.drain();
        assert_eq!(seen(), "shutting down");
    }
}
