//! How many tickets lie in `dead_tickets`, for people.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::debug;

use super::StoreError;
use super::connect::{Connected, connect};
use crate::config::DatabaseConfig;
use crate::metrics::UncertainGauge;

/// How often PostgreSQL is asked: more often than metrics are usually collected.
const ASK_EVERY: Duration = Duration::from_secs(10);

/// Maximum time for an answer, connecting included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// No more are counted, so that a full table costs little; named in the metric's description.
const COUNT: &str = "select count(*) from (select id from dead_tickets limit 10000) as dead";

/// Shows the number of rows again and again, for as long as it is polled, over a connection of its
/// own.
pub(crate) async fn watch_dead_tickets(database: DatabaseConfig) -> Infallible {
    let rows = UncertainGauge::dead_tickets();
    let database = named(database);
    let mut tick = interval(ASK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connected = None;
    loop {
        tick.tick().await;
        let counted = timeout(ANSWER_TIMEOUT, count(&database, &mut connected)).await;
        let counted = match counted {
            Ok(counted) => counted.map_err(|error| format!("{error:#}")),
            Err(_late) => Err("no answer in time".to_owned()),
        };
        if let Err(error) = &counted {
            debug!(error, "counting dead tickets failed");
            connected = None;
        }
        rows.set(counted.ok().map(|count| count as f64));
    }
}

/// In `pg_stat_activity` its connection is told from those that store, also where the URL has a name
/// for all of them.
fn named(mut database: DatabaseConfig) -> DatabaseConfig {
    let driver = &mut database.driver;
    let name = driver.get_application_name().unwrap_or("ticketd");
    let name = format!("{name} watch");
    driver.application_name(&name);
    database
}

async fn count(
    database: &DatabaseConfig,
    connected: &mut Option<Connected>,
) -> Result<i64, StoreError> {
    let usable = connected.take().filter(|open| !open.client.is_closed());
    let open = match usable {
        Some(open) => open,
        None => connect(database, "ticketd watch").await?,
    };
    let open = connected.insert(open);
    let row = open.client.query_one(COUNT, &[]).await;
    let count = row.and_then(|row| row.try_get(0));
    count.map_err(StoreError::classify)
}
