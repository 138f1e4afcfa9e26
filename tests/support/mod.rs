//! What the tests stand on: the real binary on real servers, and nothing that two tests share.
//!
//! - [`Place`]: a schema and queues of a test's own, gone at its end.
//! - [`Process`]: a ticketd that runs, and does not outlive the test.
//! - [`Client`]: HTTP/1.1 with every byte under the test's control.
//! - [`Forwarder`]: a way to a server that opens when the test says so.
//! - [`wait_until`]: a condition with a deadline, in place of every sleep.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(
    unused_imports,
    reason = "each test binary uses a part of what is passed on"
)]

mod forward;
mod http;
mod message;
mod place;
mod process;
mod tickets;
mod wait;

pub use forward::Forwarder;
pub use http::{Answer, Client, ask_once, get, head, metric, post, request};
pub use message::{group, group_properties, ticket_properties};
pub use place::{Dead, Place, Row, owned};
pub use process::{Ended, Process, TICKETD, signal};
pub use tickets::{EXAMPLE, now_us, sample, ticket};
pub use wait::{DEADLINE, wait_for, wait_until, wait_within};
