//! One ticket's state by its id, for whoever posted it. On a connection of its
//! own with a short queue in front, so that questions never slow the intake.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_postgres::{Config, Statement};
use tracing::warn;
use uuid::Uuid;

use super::StoreError;
use super::connect::{Connected, connect};

/// Most questions waiting; further ones are answered at once that it is busy.
const WAITING_MAX: usize = 64;

/// Longest for one answer, waiting included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

// PostgreSQL writes the JSON: it knows how to quote. Money stays text, since
// many readers turn a JSON number into a float.
const QUERY: &str = "select json_build_object(\
    'id', ticket_id, 'valid', valid, 'invalid_reason', invalid_reason, 'order_id', order_id, \
    'total', total::text, 'received_at', received_at, 'stored_at', created_at)::text \
    from tickets where ticket_id = $1";

/// PostgreSQL could not be asked, or did not answer in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unavailable;

/// The way to ask, for any number of request handlers.
#[derive(Clone)]
pub(crate) struct Status {
    questions: mpsc::Sender<Question>,
}

struct Question {
    id: Uuid,
    answer: oneshot::Sender<Result<Option<String>, Unavailable>>,
}

impl Status {
    /// The ticket as JSON; none while it is not stored.
    pub(crate) async fn of(&self, id: Uuid) -> Result<Option<String>, Unavailable> {
        let (answer, answered) = oneshot::channel();
        self.questions
            .try_send(Question { id, answer })
            .map_err(|_full| Unavailable)?;
        match timeout(ANSWER_TIMEOUT, answered).await {
            Ok(Ok(answer)) => answer,
            _ => Err(Unavailable),
        }
    }
}

/// Makes the way to ask and the task behind it, which ends when every handle is gone.
pub(crate) fn status(config: Config) -> (Status, impl Future<Output = ()> + Send) {
    let (questions, asked) = mpsc::channel(WAITING_MAX);
    (Status { questions }, answer(config, asked))
}

async fn answer(config: Config, mut asked: mpsc::Receiver<Question>) {
    let mut session: Option<(Connected, Statement)> = None;
    while let Some(question) = asked.recv().await {
        if question.answer.is_closed() {
            continue;
        }
        let answer =
            match timeout(ANSWER_TIMEOUT, look_up(&config, &mut session, question.id)).await {
                Ok(Ok(row)) => Ok(row),
                failed => {
                    warn!(
                        "a ticket's state could not be read: {}",
                        failed.map_or("no answer in time".into(), why)
                    );
                    session = None;
                    Err(Unavailable)
                }
            };
        // Nobody hears it once the asking client has gone.
        let _unheard = question.answer.send(answer);
    }
}

fn why(answer: Result<Option<String>, StoreError>) -> String {
    answer.map_or_else(|error| format!("{error:#}"), |_row| String::new())
}

async fn look_up(
    config: &Config,
    session: &mut Option<(Connected, Statement)>,
    id: Uuid,
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
    let row = connected
        .client
        .query_opt(statement, &[&id])
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
    fn so_many_questions_may_wait_and_no_more() {
        let (status, _unanswered) = status(Config::new());
        let ask = || Box::pin(status.of(Uuid::nil()));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let runtime = runtime.expect("a runtime");
        let _time = runtime.enter();
        let mut waiting: Vec<_> = (0..WAITING_MAX).map(|_| ask()).collect();
        for question in &mut waiting {
            assert!(question.now_or_never().is_none());
        }
        assert_eq!(ask().now_or_never(), Some(Err(Unavailable)));
    }
}
