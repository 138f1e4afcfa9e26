//! Partitions of old tickets, taken out of the table or dropped.
//!
//! Ids of keys are random, and some lie in a partition by chance: they have no time, are kept, and go
//! to `tickets_past`, which covers the ids of what is gone from then on, so that none is without a
//! partition. Found beforehand, they are moved in the instant in which the partition is taken out, and
//! what came in between after it.

use std::time::Duration;

use tracing::info;
use uuid::Uuid;

use super::super::super::StoreError;
use super::layout::{Part, Partition, attach};
use super::{Partitions, catalog, ms, now_ms};

/// What the name of a table begins with that is to be dropped and is no partition any more.
const DROPPED: &str = "ticketd_dropped_";

/// Ids of another version than 7, which have no time.
const TIMELESS: &str = "get_byte(uuid_send(ticket_id), 6) >> 4 <> 7";

impl Partitions<'_> {
    /// Takes the oldest span of time out of the table, if it has that name. It stays as a table of its
    /// own, with all of its rows.
    pub(crate) async fn detach(&self, name: &str) -> Result<(), StoreError> {
        let partitions = self.partitions().await?;
        let oldest = oldest(&partitions).map(|(_, oldest)| oldest);
        match oldest {
            Some(oldest) if oldest.name == name => {
                let gone = self.take_out(&partitions, name).await?;
                self.keep_timeless(&gone).await
            }
            Some(oldest) => {
                let why = format!(
                    "the oldest partition has to go first, which is {}",
                    oldest.name
                );
                Err(StoreError::Schema(why.into()))
            }
            None => Err(StoreError::Schema(
                "there is no partition of a span of time".into(),
            )),
        }
    }

    /// Drops the partitions of which every ticket is older, the oldest first; returns their names.
    pub(crate) async fn drop_older(&self, age: Duration) -> Result<Vec<String>, StoreError> {
        self.finish_dropping().await?;
        let until = now_ms().saturating_sub(ms(age));
        let mut dropped = Vec::new();
        loop {
            let partitions = self.partitions().await?;
            let Some((_, oldest)) = oldest(&partitions).filter(|(_, of)| of.to_ms <= Some(until))
            else {
                return Ok(dropped);
            };
            let gone = format!("{DROPPED}{}", oldest.name);
            self.take_out(&partitions, &gone).await?;
            self.finish_dropping().await?;
            info!("dropped partition {}", oldest.name);
            dropped.push(oldest.name.clone());
        }
    }

    /// Takes the oldest span of time out, as a table of that name, which is returned with its schema.
    async fn take_out(&self, partitions: &[Partition], name: &str) -> Result<String, StoreError> {
        let gone = oldest(partitions);
        let (past, span) =
            gone.ok_or_else(|| StoreError::Schema("tickets_past is missing".into()))?;
        let table = self.table().await?;
        let (schema, tickets) = (&table.schema, table.path());
        let [past_path, path] = [past, span].map(|of| format!("{schema}.{}", of.name));
        let kept = self.timeless(&path).await?;
        let wider = Partition {
            to_ms: span.to_ms,
            ..past.clone()
        };
        let kept: Vec<_> = kept.iter().map(|id| format!("'{id}'")).collect();
        let mut script = format!(
            "alter table {tickets} detach partition {past_path};\n\
             alter table {tickets} detach partition {path};\n"
        );
        if !kept.is_empty() {
            let ids = kept.join(",");
            script += &format!(
                "insert into {past_path} select * from {path} where ticket_id = any(array[{ids}]::uuid[]);\n"
            );
        }
        script += &attach(&tickets, &past_path, &wider);
        if name != span.name {
            script += &format!("alter table {path} rename to {name};\n");
        }
        self.exclusively(&table, &script).await?;
        Ok(format!("{schema}.{name}"))
    }

    /// Which rows of a partition have no time.
    async fn timeless(&self, path: &str) -> Result<Vec<Uuid>, StoreError> {
        let query = format!("select ticket_id from {path} where {TIMELESS}");
        let rows = self.session.client.query(&query, &[]).await;
        let ids = rows.and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect());
        ids.map_err(StoreError::classify)
    }

    /// Has `tickets` keep the rows without a time of what is no partition any more.
    async fn keep_timeless(&self, path: &str) -> Result<(), StoreError> {
        let tickets = self.table().await?.path();
        let keep = format!(
            "insert into {tickets} select * from {path} where {TIMELESS} on conflict do nothing"
        );
        let kept = self.session.client.batch_execute(&keep).await;
        kept.map_err(StoreError::classify)
    }

    /// Drops what was taken out for that, also where it was interrupted before.
    async fn finish_dropping(&self) -> Result<(), StoreError> {
        let client = &self.session.client;
        let left = catalog::named(client, DROPPED).await;
        for path in left.map_err(StoreError::classify)? {
            self.keep_timeless(&path).await?;
            let dropped = client.batch_execute(&format!("drop table {path}")).await;
            dropped.map_err(StoreError::classify)?;
        }
        Ok(())
    }
}

/// The oldest span of time, and what is before it.
fn oldest(partitions: &[Partition]) -> Option<(&Partition, &Partition)> {
    let past = partitions.iter().find(|of| of.part() == Part::Past)?;
    let next = partitions.iter().find(|of| of.from_ms == past.to_ms)?;
    (next.part() == Part::Span).then_some((past, next))
}
