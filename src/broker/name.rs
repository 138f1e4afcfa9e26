//! What ticketd is called in RabbitMQ's own tools.

use std::process;

use rustix::system::uname;

/// `ticketd consume@host 4711`: what a connection is for, on which machine or in which container, and
/// the process.
pub(crate) fn client_name(purpose: &str) -> String {
    let machine = uname();
    let host = machine.nodename().to_string_lossy();
    format!("ticketd {purpose}@{host} {}", process::id())
}
