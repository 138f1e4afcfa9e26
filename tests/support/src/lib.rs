//! What the tests stand on: the real binary on real servers, and nothing that two tests share.
//!
//! - [`Namespace`]: a schema and queues of a test's own, gone at its end.
//! - [`Process`]: a ticketd that runs, and does not outlive the test.
//! - [`Client`]: HTTP/1.1 with every byte under the test's control.
//! - [`Forwarder`]: a way to a server that opens when the test says so.
//! - [`servers`], [`proc`], [`metrics`]: what the servers, the kernel and ticketd tell of themselves;
//! - [`Certificates`]: a CA, and what it signs.
//! - [`wait_until`]: a condition with a deadline, in place of every sleep.
//!
//! And what the code is held against without servers:
//!
//! - [`oracle`]: the parser's rules once more, as plainly as they can be written;
//! - [`agree`](agree::agree): compares the parser with it;
//! - [`generate`]: tickets by chance;
//! - [`properties`]: what must hold of ticketd whatever bytes it is sent.
//!
//! Only cargo knows where it has built ticketd, and tells nobody but ticketd's own tests, so whoever
//! starts it says where it is.

pub mod agree;
mod certificates;
mod forward;
pub mod generate;
mod http;
mod message;
pub mod metrics;
mod namespace;
pub mod oracle;
pub mod proc;
mod process;
pub mod properties;
pub mod servers;
mod tickets;
mod wait;

pub use certificates::Certificates;
pub use forward::Forwarder;
pub use http::{Answer, Client, ask_once, get, head, post, request};
pub use message::{
    SourcedRecord, group, group_properties, sourced_group, sourced_group_properties,
    sourced_properties, ticket_properties,
};
pub use metrics::metric;
pub use namespace::{Dead, Namespace, Row, owned};
pub use process::{Ended, Process, signal};
pub use tickets::{EXAMPLE, now_us, sample, ticket};
pub use wait::{DEADLINE, wait_for, wait_until, wait_within};
