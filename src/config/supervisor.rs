//! What a supervisor such as systemd sets for the processes that it starts; nobody else does.

use std::ffi::OsString;
use std::time::Duration;

/// How the supervisor wants to hear of this process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SupervisorSettings {
    /// Its socket, as a path or, behind an `@`, by a name in the kernel; none where there is no such
    /// supervisor.
    pub socket: Option<OsString>,
    /// How long it waits for a sign of life; none where it does not.
    pub watchdog: Option<Duration>,
}

impl SupervisorSettings {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub fn read() -> Self {
        Self::of(std::process::id(), |name| std::env::var_os(name))
    }

    /// What these variables say to the process of that id.
    fn of(process: u32, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
        let is_ours = number("WATCHDOG_PID").is_none_or(|id| id == u64::from(process));
        let watchdog = number("WATCHDOG_USEC").filter(|&us| is_ours && us > 0);
        Self {
            socket: variable("NOTIFY_SOCKET").filter(|name| !name.is_empty()),
            watchdog: watchdog.map(Duration::from_micros),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> SupervisorSettings {
        let value = |name: &str| variables.iter().find(|(other, _)| *other == name);
        SupervisorSettings::of(7, |name| value(name).map(|(_, value)| value.into()))
    }

    #[test]
    fn a_watchdog_is_of_the_process_that_it_names() {
        let half = Some(Duration::from_millis(500));
        let usec = ("WATCHDOG_USEC", "500000");
        assert_eq!(read(&[usec]).watchdog, half);
        assert_eq!(read(&[usec, ("WATCHDOG_PID", "7")]).watchdog, half);
        assert_eq!(read(&[usec, ("WATCHDOG_PID", "8")]).watchdog, None);
        for wrong in ["0", "", "-1", "30s"] {
            assert_eq!(read(&[("WATCHDOG_USEC", wrong)]).watchdog, None, "{wrong}");
        }
    }

    #[test]
    fn an_empty_socket_is_none() {
        assert_eq!(
            read(&[("NOTIFY_SOCKET", "")]),
            SupervisorSettings::default()
        );
        assert_eq!(read(&[("NOTIFY_SOCKET", "@x")]).socket, Some("@x".into()));
    }
}
