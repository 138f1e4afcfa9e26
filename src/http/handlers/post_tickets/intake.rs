//! One body of many tickets: read, cut, gathered into groups, and these submitted.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Bytes};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::super::post_ticket::{PostTicket, Rejection};
use super::entries::Entries;
use super::halt::Halt;
use super::ids::Ids;
use super::inflation::Inflation;
use crate::bulk::Entry;
use crate::clock::now_us;
use crate::http::auth::Sender;
use crate::http::body::{BodyError, data};
use crate::message::Record;
use crate::publisher::{Group, GroupBuilder, Outcomes, PublishError};
use crate::source::{Origin, id_of_key, id_of_nth};

/// The maximum time for a body's next piece.
const PIECE_TIMEOUT: Duration = Duration::from_secs(10);

/// The maximum time for all of a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(3600);

/// How long a body may still take once the drain has begun.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a body that does not come is looked at.
const TICK: Duration = Duration::from_millis(250);

/// How long tickets of one body wait for their source's limit in all, and how often that is asked.
const RATE_WAIT_MAX: Duration = Duration::from_secs(10);
const RATE_TICK: Duration = Duration::from_millis(20);

/// What the head of a request says of all of its tickets.
pub(super) struct BulkHead {
    /// Who sends them, where that is known.
    pub sender: Option<Arc<Sender>>,
    /// The id of the request's key.
    pub id_of_key: Option<Uuid>,
    /// When they were issued, in µs since the Unix epoch.
    pub issued_at_us: Option<i64>,
}

/// One body of many tickets.
pub(super) struct Intake {
    bytes_max: usize,
    inflation: Inflation,
    entries: Entries,
    tickets: Tickets,
}

/// What becomes of the tickets of one body.
pub(super) struct Tickets {
    handler: Arc<PostTicket>,
    head: BulkHead,
    groups: GroupBuilder,
    received_at_us: i64,
    rate_wait: Duration,
    taken: u64,
    /// All of the body has come.
    pub is_complete: bool,
    /// Their ids, if these are to be told.
    pub ids: Option<Ids>,
    /// What became of those that were submitted.
    pub outcomes: Outcomes,
}

/// The times by which a body has to come.
struct Deadlines {
    whole: Instant,
    drain: Option<Instant>,
}

impl Intake {
    /// Of at most so many bytes.
    pub(super) fn new(
        handler: Arc<PostTicket>,
        head: BulkHead,
        (inflation, entries): (Inflation, Entries),
        ids: Option<Ids>,
        bytes_max: usize,
    ) -> Self {
        let tickets = Tickets {
            groups: handler.publisher.group_builder(),
            handler,
            head,
            received_at_us: 0,
            rate_wait: Duration::ZERO,
            taken: 0,
            is_complete: false,
            ids,
            outcomes: Outcomes::default(),
        };
        Self {
            bytes_max,
            inflation,
            entries,
            tickets,
        }
    }

    /// Takes all tickets of a body, up to the first that cannot be taken, and waits for the results.
    /// Those before it are published.
    pub(super) async fn run<B>(mut self, mut body: B) -> (Tickets, Result<(), Halt>)
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let read = self.read(&mut body).await;
        let rest = self.tickets.groups.take();
        if let (Some(group), None) = (rest, self.tickets.outcomes.failed) {
            // What is wrong is among the outcomes.
            let _failed = self.tickets.submit(group).await;
        }
        self.tickets.outcomes.all().await;
        (self.tickets, read)
    }

    async fn read<B>(&mut self, body: &mut B) -> Result<(), Halt>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let mut deadlines = Deadlines::new();
        let mut bytes: usize = 0;
        while let Some(piece) = self.piece(body, &mut deadlines).await? {
            bytes = bytes.saturating_add(piece.len());
            if bytes > self.bytes_max {
                return Err(Halt::TooLarge);
            }
            self.tickets.received_at_us = now_us();
            self.take_piece(&piece).await?;
        }
        self.tickets.is_complete = true;
        self.inflation.finish()?;
        self.entries.end();
        self.take_entries().await?;
        if self.tickets.taken == 0 {
            return Err(Halt::Empty);
        }
        Ok(())
    }

    /// Takes what a piece becomes, with a break for others behind each step of inflating.
    async fn take_piece(&mut self, mut piece: &[u8]) -> Result<(), Halt> {
        loop {
            let step = self.inflation.step(piece)?;
            self.entries.push(step.out);
            let (read, has_more) = (step.read, step.has_more);
            self.take_entries().await?;
            piece = piece.get(read..).unwrap_or_default();
            if piece.is_empty() && !has_more {
                return Ok(());
            }
            yield_now().await;
        }
    }

    async fn take_entries(&mut self) -> Result<(), Halt> {
        while let Some(entry) = self.entries.next_entry()? {
            self.tickets.take(entry).await?;
        }
        Ok(())
    }

    /// The next piece of a body, as long as it keeps coming.
    async fn piece<B>(&self, body: &mut B, deadlines: &mut Deadlines) -> Result<Option<Bytes>, Halt>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let idle_until = Instant::now() + PIECE_TIMEOUT;
        loop {
            let piece = timeout(TICK, data(body)).await;
            let is_draining = self.tickets.handler.health.is_draining();
            deadlines.check(Instant::now(), is_draining)?;
            match piece {
                Ok(piece) => return piece.map_err(|error| Rejection::Body(error).into()),
                Err(_) if Instant::now() >= idle_until => {
                    return Err(Rejection::Body(BodyError::Timeout).into());
                }
                Err(_) => {}
            }
        }
    }
}

impl Tickets {
    /// Who sent them.
    pub(super) fn sender(&self) -> Option<&Sender> {
        self.head.sender.as_deref()
    }

    async fn take(&mut self, entry: Entry<'_>) -> Result<(), Halt> {
        entry.check_text()?;
        self.admit().await?;
        let id = self.id(&entry);
        let record = Record {
            id,
            received_at_us: self.received_at_us,
            origin: Origin {
                source: self
                    .head
                    .sender
                    .as_ref()
                    .map(|sender| sender.source.borrowed()),
                issued_at_us: entry.issued_at_us.or(self.head.issued_at_us),
            },
            body: &entry.body,
        };
        let full = self.groups.add(record);
        self.taken += 1;
        if let Some(ids) = &mut self.ids {
            ids.push(id);
        }
        if let Some(group) = full {
            self.submit(group).await.map_err(Halt::not_published)?;
            // Making a group takes a part of a millisecond, and others wait for this thread.
            yield_now().await;
        }
        Ok(())
    }

    /// The id of the ticket's own key, else of its number and the request's, else a new one.
    fn id(&self, entry: &Entry<'_>) -> Uuid {
        let source = self.head.sender.as_ref().map(|sender| &sender.source);
        match (&entry.key, self.head.id_of_key) {
            (Some(key), _) => id_of_key(source, key),
            (None, Some(id)) => id_of_nth(id, entry.place.number),
            (None, None) => Uuid::now_v7(),
        }
    }

    /// Counts a ticket against its sender's limit, and waits for that within bounds: a body that
    /// was rejected in its middle would be counted from its beginning when it is sent again.
    async fn admit(&mut self) -> Result<(), Halt> {
        let Some(sender) = &self.head.sender else {
            return Ok(());
        };
        while let Err(seconds) = sender.admit() {
            if self.rate_wait >= RATE_WAIT_MAX {
                return Err(Rejection::RateLimited(seconds).into());
            }
            sleep(RATE_TICK).await;
            self.rate_wait += RATE_TICK;
        }
        Ok(())
    }

    async fn submit(&mut self, group: Group) -> Result<(), PublishError> {
        let tickets = group.tickets();
        match self.submit_one(group).await {
            Ok(()) => Ok(()),
            Err(error) => {
                self.outcomes.fail(tickets, error);
                Err(error)
            }
        }
    }

    async fn submit_one(&mut self, group: Group) -> Result<(), PublishError> {
        let tickets = group.tickets();
        self.outcomes.room().await?;
        if let Some(ids) = &mut self.ids {
            ids.charge(tickets)?;
        }
        let outcome = self.handler.publisher.submit_group(group).await?;
        self.outcomes.add(tickets, outcome);
        Ok(())
    }
}

impl Deadlines {
    fn new() -> Self {
        Self {
            whole: Instant::now() + BODY_TIMEOUT,
            drain: None,
        }
    }

    fn check(&mut self, now: Instant, is_draining: bool) -> Result<(), Halt> {
        if now >= self.whole {
            return Err(Rejection::Body(BodyError::Timeout).into());
        }
        if is_draining && now >= *self.drain.get_or_insert(now + DRAIN_TIMEOUT) {
            return Err(Halt::not_published(PublishError::Draining));
        }
        Ok(())
    }
}
