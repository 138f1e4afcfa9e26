//! What a connection and the keeper of its worker's connections tell each other.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

/// What a connection is to do. A later one replaces an earlier one, never the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum ConnectionCommand {
    /// Serve requests.
    Serve,
    /// Close after the request that is being served.
    Drain,
    /// Close now.
    Close,
}

/// The commands to a connection, and what it tells of itself.
#[derive(Default)]
pub(super) struct ConnectionHandle {
    command: AtomicU8,
    /// hyper's buffers have grown so much that it pays to replace them.
    buffers_grown: AtomicBool,
    /// hyper still holds some of a response, since the client does not read it.
    has_unsent: AtomicBool,
    /// Counts up when a request begins and when it is answered, so it is odd
    /// while one is served.
    requests: AtomicU32,
    /// Stays after a wake, so the connection need not hand it over again.
    waker: Mutex<Option<Waker>>,
}

impl ConnectionHandle {
    /// Gives a command, and wakes the connection.
    pub(super) fn send(&self, command: ConnectionCommand) {
        self.command.fetch_max(command as u8, Ordering::Release);
        if let Some(waker) = &*self.waker() {
            waker.wake_by_ref();
        }
    }

    /// The command in force.
    pub(super) fn command(&self) -> ConnectionCommand {
        match self.command.load(Ordering::Acquire) {
            0 => ConnectionCommand::Serve,
            1 => ConnectionCommand::Drain,
            _ => ConnectionCommand::Close,
        }
    }

    /// Records that a buffer is full, or has grown.
    pub(super) fn set_buffers_grown(&self) {
        self.buffers_grown.store(true, Ordering::Relaxed);
    }

    /// Records whether the socket has not taken all that hyper had to send.
    pub(super) fn set_has_unsent(&self, has_unsent: bool) {
        self.has_unsent.store(has_unsent, Ordering::Relaxed);
    }

    /// Whether a request is being served.
    pub(super) fn is_serving(&self) -> bool {
        !self.requests().is_multiple_of(2)
    }

    /// The number of requests begun plus the number answered, modulo 2^32.
    pub(super) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Counts the beginning of a request, or its response. Only the connection
    /// itself counts, so this need not be one step.
    pub(super) fn count_request(&self) {
        let requests = self.requests().wrapping_add(1);
        self.requests.store(requests, Ordering::Relaxed);
    }

    /// Whether hyper's buffers can be replaced, which is worth it only for grown
    /// ones; true once for each time that they have grown.
    pub(super) fn take_buffers_grown(&self) -> bool {
        let replace = self.buffers_grown.load(Ordering::Relaxed)
            && !self.is_serving()
            && !self.has_unsent.load(Ordering::Relaxed);
        if replace {
            self.buffers_grown.store(false, Ordering::Relaxed);
        }
        replace
    }

    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        // Nothing panics while it holds the lock.
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection's end of its handle.
pub(super) struct CommandReceiver {
    handle: Arc<ConnectionHandle>,
    last_seen: ConnectionCommand,
    /// The waker that the handle has: nearly always the same, and not worth a
    /// lock each time.
    waker: Waker,
}

impl CommandReceiver {
    /// Receives what is sent through this handle.
    pub(super) fn new(handle: Arc<ConnectionHandle>) -> Self {
        Self {
            handle,
            last_seen: ConnectionCommand::Serve,
            waker: Waker::noop().clone(),
        }
    }

    /// A command that was not seen before, if there is one; wakes the task at the next.
    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Option<ConnectionCommand> {
        if !self.waker.will_wake(cx.waker()) {
            self.waker.clone_from(cx.waker());
            *self.handle.waker() = Some(self.waker.clone());
        }
        let command = self.handle.command();
        let is_new = command != self.last_seen;
        self.last_seen = command;
        is_new.then_some(command)
    }

    /// The last command that was seen.
    pub(super) fn last_seen(&self) -> ConnectionCommand {
        self.last_seen
    }

    /// Whether hyper, which has nothing to do just now, can be given new buffers:
    /// in the old ones is nothing then but perhaps the beginning of a request.
    pub(super) fn should_replace_buffers(&self) -> bool {
        self.last_seen == ConnectionCommand::Serve && self.handle.take_buffers_grown()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draining_does_not_undo_a_close() {
        let handle = ConnectionHandle::default();
        assert_eq!(handle.command(), ConnectionCommand::Serve);
        handle.send(ConnectionCommand::Close);
        handle.send(ConnectionCommand::Drain);
        assert_eq!(handle.command(), ConnectionCommand::Close);
    }
}
