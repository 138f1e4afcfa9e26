//! Places to measure in: a schema and queues of their own for each scenario, taken away afterwards.

use std::cell::RefCell;
use std::time::Duration;

use anyhow::{Result, ensure};
use ticketd_testing::servers::{Servers, depth, hang_up};
use tokio::time::{Instant, sleep};

/// Maximum wait until the broker counts all confirmed messages of a queue, and how often it is asked.
const COUNT_TIMEOUT: Duration = Duration::from_secs(10);
const COUNT_INTERVAL: Duration = Duration::from_millis(50);

/// The servers, and what this bench has made there.
pub(super) struct Scratch {
    pub(super) servers: Servers,
    /// Starts every name of this bench and of no other.
    prefix: String,
    places: RefCell<Vec<String>>,
}

/// One scenario's schema and queue.
pub(super) struct Place {
    /// The name of the schema, the queue and the exchange.
    pub(super) name: String,
    /// Leads to the schema.
    pub(super) database_url: String,
}

impl Scratch {
    /// Makes nothing yet.
    pub(super) fn new(amqp_url: &str, database_url: &str, prefix: &str) -> Self {
        Self {
            servers: Servers {
                amqp_url: amqp_url.to_owned(),
                database_url: database_url.to_owned(),
            },
            prefix: prefix.to_owned(),
            places: RefCell::default(),
        }
    }

    /// A new schema, and the name that queues are to have.
    pub(super) async fn place(&self, number: usize) -> Result<Place> {
        let name = format!("{}_{number}", self.prefix);
        self.places.borrow_mut().push(name.clone());
        self.servers.create(&name).await?;
        Ok(Place {
            database_url: self.servers.schema_url(&name),
            name,
        })
    }

    /// Takes away what was made in a place.
    pub(super) async fn remove(&self, name: &str) -> Result<()> {
        self.servers.remove(name).await?;
        self.places.borrow_mut().retain(|place| place != name);
        Ok(())
    }

    /// Takes away what is left, trying everything before the first failure is told.
    pub(super) async fn remove_all(&self) -> Result<()> {
        let places = self.places.borrow().clone();
        let mut outcome = Ok(());
        for name in places {
            let removed = self.remove(&name).await;
            outcome = outcome.and(removed);
        }
        outcome
    }

    /// Waits until a queue holds as many messages as it must.
    pub(super) async fn expect_messages(&self, queue: &str, expected: u64) -> Result<()> {
        let broker = self.servers.broker().await?;
        let deadline = Instant::now() + COUNT_TIMEOUT;
        loop {
            let messages = u64::from(depth(&broker, queue).await?);
            if messages == expected {
                hang_up(&broker).await;
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "the queue holds {messages} messages of {expected}"
            );
            sleep(COUNT_INTERVAL).await;
        }
    }
}
