//! Partitions made ahead and, where that is wanted, dropped, by every process that stores.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{debug, warn};

use super::layout::{self, Part, Partition};
use super::{AHEAD, Partitions, list_partitions, ms, now_ms};
use crate::config::{DatabaseConfig, PartitionSettings};
use crate::metrics::UncertainGauge;
use crate::store::StoreError;

/// How often they are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Maximum time for a look, connecting included.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum time for what is to be done, the wait for another process included; the next look goes on.
const WORK_TIMEOUT: Duration = Duration::from_secs(600);

/// How often it is logged that it cannot be done.
const LOG_EVERY: Duration = Duration::from_secs(3600);

/// Looks after the partitions again and again, for as long as it is polled; nothing is done to a table
/// that ticketd has not partitioned.
pub(crate) async fn watch_partitions(
    database: DatabaseConfig,
    settings: PartitionSettings,
) -> Infallible {
    let ahead = UncertainGauge::partitions_ahead();
    let mut tick = interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut logged, mut said): (Option<Instant>, bool) = (None, false);
    loop {
        tick.tick().await;
        let Some(mut partitions) = look(&database).await else {
            ahead.set(None);
            continue;
        };
        ahead.set(seconds_ahead(&partitions));
        if settings.retention.is_some() && seconds_ahead(&partitions).is_none() && !said {
            said = true;
            warn!(
                "RETENTION drops nothing: tickets is not partitioned (ticketd partitions convert)"
            );
        }
        if !is_due(&partitions, &settings) {
            continue;
        }
        let done = timeout(WORK_TIMEOUT, work(&database, &settings)).await;
        let done = done.unwrap_or_else(|_late| Err(StoreError::Timeout("no end in time".into())));
        if let Err(error) = done
            && logged.is_none_or(|at| at.elapsed() > LOG_EVERY)
        {
            logged = Some(Instant::now());
            warn!(error = %format_args!("{error:#}"), "partitions of tickets cannot be made or dropped");
        }
        partitions = look(&database).await.unwrap_or(partitions);
        ahead.set(seconds_ahead(&partitions));
    }
}

async fn look(database: &DatabaseConfig) -> Option<Vec<Partition>> {
    match timeout(LOOK_TIMEOUT, list_partitions(database)).await {
        Ok(Ok(partitions)) => Some(partitions),
        Ok(Err(error)) => {
            debug!(error = %format_args!("{error:#}"), "looking at partitions failed");
            None
        }
        Err(_late) => None,
    }
}

/// For how long there are partitions; none where there are none of ticketd's making.
fn seconds_ahead(partitions: &[Partition]) -> Option<f64> {
    let horizon = layout::horizon(partitions)?;
    let [until, now] = [horizon, now_ms()].map(|ms| Duration::from_millis(ms).as_secs_f64());
    Some(until - now)
}

fn is_due(partitions: &[Partition], settings: &PartitionSettings) -> bool {
    let Some(horizon) = layout::horizon(partitions) else {
        return false;
    };
    let old = settings
        .retention
        .map(|age| now_ms().saturating_sub(ms(age)));
    let is_old = |of: &Partition| of.part() == Part::Span && of.to_ms <= old;
    horizon < now_ms() + ms(AHEAD) || partitions.iter().any(is_old)
}

async fn work(database: &DatabaseConfig, settings: &PartitionSettings) -> Result<(), StoreError> {
    let partitions = Partitions::open(database).await?;
    partitions.create(settings.width.partition_width).await?;
    if let Some(age) = settings.retention {
        partitions.drop_older(age).await?;
    }
    Ok(())
}
