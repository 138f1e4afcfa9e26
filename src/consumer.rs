//! Deliveries into batches, batches to writers, and an acknowledgement when they are committed.
//!
//! 1. [`run()`] subscribes, and every delivery joins the batch of its [`subscription`].
//! 2. A [`batch`] that is due is dispatched to an idle [`writer`](writer_pool).
//! 3. The writer plans the batch ([`dedup`]) and stores it in one transaction ([`flusher`]). If
//!    PostgreSQL refuses it, the batch is halved until the refused ticket stands alone
//!    ([`bisect`]); what may be the tables' fault is [`held`], by the [`evidence`] that other
//!    tickets give.
//! 4. What is committed is acknowledged, without a gap ([`ack_window`]).
//!
//! A delivery belongs to its batch until the batch's COMMIT. While PostgreSQL is unavailable
//! deliveries are held, not sent back: prefetch bounds how many. A subscription that fails is given
//! up whole; what it had not acknowledged is delivered again, and the store makes that harmless.
//!
//! What RabbitMQ itself gave up delivering is moved to `dead_tickets` when somebody asks for it
//! ([`dead_letters`]).

mod ack_window;
mod backlog;
mod batch;
mod bisect;
mod dead_letters;
mod dead_log;
mod dedup;
mod delivery;
mod direct;
mod error;
mod evidence;
mod flusher;
mod headers;
mod held;
mod job;
mod known_products;
mod received_at;
mod run;
mod schema;
mod subscription;
mod writer;
mod writer_pool;

pub(crate) use dead_letters::{CollectError, collect_dead_letters};
pub use dedup::rows_of;
pub use delivery::DeliveredMessage;
pub(crate) use direct::{DIRECT_VERSION, DirectOutcome, store_directly};
pub use known_products::KnownProducts;
pub(crate) use run::run;
