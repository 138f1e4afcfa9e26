//! Batches that come from elsewhere than RabbitMQ, stored by the same writers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender};

use super::dead_log::DeadLog;
use super::delivery::{DeliveredMessage, LookUp};
use super::job::{Job, StoredBatch};
use super::schema;
use super::writer_pool::WriterPool;
use crate::config::DatabaseConfig;
use crate::health::Health;
use crate::message::GroupVersion;
use crate::store::StoreError;

/// The version that batches are of: no other process reads them.
pub(crate) const DIRECT_VERSION: GroupVersion = GroupVersion::V2;

/// While one batch is encoded, another is copied.
const WRITERS: u16 = 2;

/// Maximum of batches that are not stored: one at each writer, or held by it, and one more.
const UNDER_WAY_MAX: usize = 2 * WRITERS as usize;

/// As a consumer's.
const PRODUCT_REFRESH: Duration = Duration::from_secs(60);

/// How many tickets are stored, of one batch; or why none will ever be.
pub(crate) type DirectOutcome = Result<u64, StoreError>;

/// Stores groups of [`DIRECT_VERSION`], each in a transaction, until no more come and all are stored,
/// however long that takes, or until nobody waits for the outcomes.
pub(crate) async fn store_directly(
    database: DatabaseConfig,
    groups: Receiver<Vec<u8>>,
    outcomes: Sender<DirectOutcome>,
) {
    if let Err(error) = schema::ready(&database).await {
        let _unheard = outcomes.send(Err(error)).await;
        return;
    }
    let dead = DeadLog::default();
    let health = Arc::new(Health::new(false, true));
    let mut direct = Direct {
        pool: WriterPool::start(WRITERS, PRODUCT_REFRESH, &database, &health, dead.clone()),
        under_way: HashMap::new(),
        last_batch: 0,
        look_up: LookUp::Nothing,
        abandoned: Arc::default(),
    };
    tokio::select! {
        ended = direct.run(groups, &outcomes) => if let Err(error) = ended {
            let _unheard = outcomes.send(Err(error)).await;
        },
        () = outcomes.closed() => {}
        never = dead.clone().run() => match never {},
    }
    direct.pool.shutdown().await;
    dead.flush();
}

/// What is under way.
struct Direct {
    pool: WriterPool,
    /// How many tickets each batch has, by its number.
    under_way: HashMap<u64, u64>,
    last_batch: u64,
    /// All, behind a batch of which some was there already: what is repeated was mostly stored.
    look_up: LookUp,
    abandoned: Arc<AtomicBool>,
}

impl Direct {
    async fn run(
        &mut self,
        mut groups: Receiver<Vec<u8>>,
        outcomes: &Sender<DirectOutcome>,
    ) -> Result<(), StoreError> {
        let mut has_ended = false;
        while !(has_ended && self.under_way.is_empty()) {
            let has_room = self.pool.has_idle() && self.under_way.len() < UNDER_WAY_MAX;
            tokio::select! {
                group = groups.recv(), if has_room && !has_ended => match group {
                    Some(group) => self.dispatch(group)?,
                    None => has_ended = true,
                },
                stored = self.pool.next_event() => if let Some(stored) = stored {
                    let tickets = self.on_stored(&stored);
                    let _unheard = outcomes.send(Ok(tickets)).await;
                },
            }
        }
        Ok(())
    }

    fn dispatch(&mut self, group: Vec<u8>) -> Result<(), StoreError> {
        let message = DeliveredMessage::of_group(DIRECT_VERSION, group, self.look_up);
        self.last_batch += 1;
        self.under_way
            .insert(self.last_batch, message.tickets as u64);
        let job = Job {
            subscription: 0,
            batch: self.last_batch,
            messages: vec![message],
            pacing: Duration::ZERO,
            abandoned: self.abandoned.clone(),
        };
        let dispatched = self.pool.dispatch(job);
        dispatched.map_err(|error| StoreError::Unavailable(error.to_string().as_str().into()))
    }

    /// How many tickets it has.
    fn on_stored(&mut self, stored: &StoredBatch) -> u64 {
        self.look_up = match stored.met_stored {
            true => LookUp::All,
            false => LookUp::Nothing,
        };
        self.under_way.remove(&stored.batch).unwrap_or_default()
    }
}
