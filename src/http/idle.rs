//! The connections of one worker: idle ones expire, and all of them drain.
//!
//! One sweep looks at all connections at once: a timer and a subscription for
//! each of them would be armed and disarmed with every request.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::handle::{ConnectionCommand, ConnectionHandle};

/// How often connections are looked at that wait for a request.
pub(super) const SWEEP: Duration = Duration::from_secs(5);

/// Idle sweeps before a connection without a complete head is closed: about
/// 30 seconds for a head, and for a connection that idles.
const IDLE_SWEEPS_MAX: u8 = 6;

/// The connections of one worker.
#[derive(Default)]
pub(super) struct Connections {
    connections: HashMap<u64, (Arc<ConnectionHandle>, IdleState)>,
    last_number: u64,
    is_draining: bool,
}

/// How long a connection has been waiting, in sweeps.
#[derive(Default)]
struct IdleState {
    requests: u32,
    sweeps: u8,
}

impl Connections {
    /// Adds a connection; its number is for [`Self::remove`].
    pub(super) fn insert(&mut self) -> (u64, Arc<ConnectionHandle>) {
        let handle = Arc::new(ConnectionHandle::default());
        if self.is_draining {
            handle.send(ConnectionCommand::Drain);
        }
        self.last_number += 1;
        let entry = (handle.clone(), IdleState::default());
        self.connections.insert(self.last_number, entry);
        (self.last_number, handle)
    }

    /// Forgets a connection that has ended.
    pub(super) fn remove(&mut self, number: u64) {
        self.connections.remove(&number);
    }

    /// Closes connections that have waited for a request for too long.
    pub(super) fn sweep(&mut self) {
        for (handle, idle) in self.connections.values_mut() {
            let requests = handle.requests();
            if requests != idle.requests || handle.is_serving() {
                *idle = IdleState {
                    requests,
                    sweeps: 0,
                };
                continue;
            }
            idle.sweeps = idle.sweeps.saturating_add(1);
            if idle.sweeps >= IDLE_SWEEPS_MAX {
                handle.send(ConnectionCommand::Close);
            }
        }
    }

    /// Tells every connection to close after the request it is serving; a client
    /// may even finish one that it has begun to send.
    pub(super) fn drain(&mut self) {
        self.is_draining = true;
        for (handle, _) in self.connections.values() {
            handle.send(ConnectionCommand::Drain);
        }
    }

    /// Closes every connection that is not serving a request.
    pub(super) fn close_idle(&self) {
        for (handle, _) in self.connections.values() {
            if !handle.is_serving() {
                handle.send(ConnectionCommand::Close);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_without_requests_expires() {
        let mut connections = Connections::default();
        let (_, handle) = connections.insert();
        assert_eq!(SWEEP * IDLE_SWEEPS_MAX.into(), Duration::from_secs(30));
        for _ in 1..IDLE_SWEEPS_MAX {
            connections.sweep();
        }
        assert_eq!(handle.command(), ConnectionCommand::Serve);
        connections.sweep();
        assert_eq!(handle.command(), ConnectionCommand::Close);
    }

    #[test]
    fn a_request_restarts_the_wait_and_one_being_served_never_expires() {
        let mut connections = Connections::default();
        let (_, handle) = connections.insert();
        for _ in 0..3 * IDLE_SWEEPS_MAX {
            handle.count_request();
            handle.count_request();
            connections.sweep();
        }
        handle.count_request();
        for _ in 0..3 * IDLE_SWEEPS_MAX {
            connections.sweep();
        }
        assert_eq!(handle.command(), ConnectionCommand::Serve);
    }

    #[test]
    fn a_connection_that_comes_while_draining_drains() {
        let mut connections = Connections::default();
        connections.drain();
        let (_, handle) = connections.insert();
        assert_eq!(handle.command(), ConnectionCommand::Drain);
    }
}
