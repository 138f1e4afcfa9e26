//! One ticket's state by its id, for its sender. Over a connection of its own with a short
//! queue in front, so that queries never slow the tickets.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_postgres::Statement;
use tracing::warn;
use uuid::Uuid;

use super::StoreError;
use super::connect::{Connected, connect};
use crate::config::DatabaseConfig;
use crate::source::Source;

/// Maximum number of queries that wait; further ones fail at once.
const WAITING_MAX: usize = 64;

/// Maximum time for one query, waiting included.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);

// PostgreSQL writes the JSON: it knows how to quote. Money stays text, since
// many readers turn a JSON number into a float.
//
// Source and time of issue are read out of the whole row, where they are null as long as the table
// has no such columns.
const QUERY: &str = "select json_build_object(\
    'id', ticket_id, 'valid', valid, 'invalid_reason', invalid_reason, 'order_id', order_id, \
    'total', total::text, 'source', whole -> 'source', 'issued_at', whole -> 'issued_at', \
    'received_at', received_at, 'stored_at', created_at)::text \
    from tickets, to_jsonb(tickets) as whole \
    where ticket_id = $1 and ($2::text is null or whole ->> 'source' = $2)";

/// PostgreSQL could not be asked, or did not answer in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unavailable;

/// Looks up tickets' states, for any number of request handlers.
#[derive(Clone)]
pub(crate) struct TicketStates {
    queries: mpsc::Sender<Query>,
}

struct Query {
    id: Uuid,
    source: Option<Source>,
    answer: oneshot::Sender<Result<Option<String>, Unavailable>>,
}

impl TicketStates {
    /// The ticket as JSON; none while it is not stored, and for a ticket that is not of this source,
    /// if there is one.
    pub(crate) async fn of(
        &self,
        id: Uuid,
        source: Option<Source>,
    ) -> Result<Option<String>, Unavailable> {
        let (answer, answered) = oneshot::channel();
        let query = Query { id, source, answer };
        self.queries.try_send(query).map_err(|_full| Unavailable)?;
        match timeout(QUERY_TIMEOUT, answered).await {
            Ok(Ok(answer)) => answer,
            _ => Err(Unavailable),
        }
    }
}

/// Makes the handle and the task behind it, which ends when every handle is gone.
pub(crate) fn ticket_states(
    config: DatabaseConfig,
) -> (TicketStates, impl Future<Output = ()> + Send) {
    let (queries, received) = mpsc::channel(WAITING_MAX);
    (TicketStates { queries }, run(config, received))
}

async fn run(config: DatabaseConfig, mut received: mpsc::Receiver<Query>) {
    let mut session: Option<(Connected, Statement)> = None;
    while let Some(query) = received.recv().await {
        if query.answer.is_closed() {
            continue;
        }
        let answer = match timeout(QUERY_TIMEOUT, look_up(&config, &mut session, &query)).await {
            Ok(Ok(row)) => Ok(row),
            Ok(Err(error)) => Err(format!("{error:#}")),
            Err(_timeout) => Err("no answer in time".to_owned()),
        };
        let answer = answer.map_err(|error| {
            warn!(error, "reading a ticket's state failed");
            session = None;
            Unavailable
        });
        // Nobody receives it once the client has gone.
        let _unheard = query.answer.send(answer);
    }
}

async fn look_up(
    config: &DatabaseConfig,
    session: &mut Option<(Connected, Statement)>,
    query: &Query,
) -> Result<Option<String>, StoreError> {
    if session
        .as_ref()
        .is_none_or(|(connected, _)| connected.client.is_closed())
    {
        let connected = connect(config, "ticketd status").await?;
        let statement = connected
            .client
            .prepare(QUERY)
            .await
            .map_err(StoreError::classify)?;
        *session = Some((connected, statement));
    }
    let Some((connected, statement)) = session else {
        return Ok(None);
    };
    let source = query.source.as_ref().map(Source::as_str);
    let row = connected
        .client
        .query_opt(statement, &[&query.id, &source])
        .await
        .map_err(StoreError::classify)?;
    row.map(|row| row.try_get(0))
        .transpose()
        .map_err(StoreError::classify)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn a_bounded_number_of_queries_wait() {
        let (states, _not_run) = ticket_states(DatabaseConfig::default());
        let ask = || Box::pin(states.of(Uuid::nil(), None));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let runtime = runtime.expect("a runtime");
        let _time = runtime.enter();
        let mut waiting: Vec<_> = (0..WAITING_MAX).map(|_| ask()).collect();
        for query in &mut waiting {
            assert!(query.now_or_never().is_none());
        }
        assert_eq!(ask().now_or_never(), Some(Err(Unavailable)));
    }
}
