//! Questions about tickets, for whoever sent them and for operators. Over a connection of its own
//! with a short queue in front, so that they never slow the tickets.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::warn;
use uuid::Uuid;

use super::StoreError;
use super::connect::{Connected, connect};
use super::ticket_queries::{Queries, TicketFilter};
use crate::config::DatabaseConfig;
use crate::source::Source;

/// Maximum number of questions that wait; further ones fail at once.
const WAITING_MAX: usize = 64;

/// Maximum time for one question, waiting included.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);

/// How old a list may be for whoever asks for the newest: however many look, it is read once in that
/// time.
const LIST_AGE: Duration = Duration::from_secs(1);

/// Maximum number of lists that are kept for that.
const LISTS_MAX: usize = 8;

/// PostgreSQL could not be asked, or did not answer in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unavailable;

/// Asks about tickets, for any number of request handlers.
#[derive(Clone)]
pub(crate) struct TicketReader {
    questions: mpsc::Sender<Question>,
}

struct Question {
    about: About,
    answer: oneshot::Sender<Result<Option<String>, Unavailable>>,
}

enum About {
    State(Uuid, Option<Source>),
    /// As they were so long ago or later.
    Newest(TicketFilter, Duration),
}

impl TicketReader {
    /// The handle, and the task behind it, which ends when every handle is gone.
    pub(crate) fn new(config: DatabaseConfig) -> (Self, impl Future<Output = ()> + Send) {
        let (questions, received) = mpsc::channel(WAITING_MAX);
        let answering = Answering {
            config,
            session: None,
            lists: HashMap::new(),
        };
        (Self { questions }, answering.run(received))
    }

    /// What became of a ticket, as JSON; none while that is not known, and for a ticket that is not of
    /// this source, if there is one.
    pub(crate) async fn state(
        &self,
        id: Uuid,
        source: Option<Source>,
    ) -> Result<Option<String>, Unavailable> {
        self.ask(About::State(id, source)).await
    }

    /// The newest tickets that fit, as JSON, as they were a second ago or later, or `age` ago where that
    /// is longer.
    pub(crate) async fn newest(
        &self,
        filter: TicketFilter,
        age: Duration,
    ) -> Result<String, Unavailable> {
        let about = About::Newest(filter, age.max(LIST_AGE));
        let list = self.ask(about).await?;
        list.ok_or(Unavailable)
    }

    async fn ask(&self, about: About) -> Result<Option<String>, Unavailable> {
        let (answer, answered) = oneshot::channel();
        let question = Question { about, answer };
        self.questions
            .try_send(question)
            .map_err(|_full| Unavailable)?;
        match timeout(QUERY_TIMEOUT, answered).await {
            Ok(Ok(answer)) => answer,
            _ => Err(Unavailable),
        }
    }
}

/// What answers, one question after the other.
struct Answering {
    config: DatabaseConfig,
    session: Option<(Connected, Queries)>,
    /// What was answered, and when.
    lists: HashMap<TicketFilter, (Instant, String)>,
}

impl Answering {
    async fn run(mut self, mut received: mpsc::Receiver<Question>) {
        while let Some(question) = received.recv().await {
            if question.answer.is_closed() {
                continue;
            }
            let answer = match timeout(QUERY_TIMEOUT, self.answer(question.about)).await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(error)) => Err(format!("{error:#}")),
                Err(_timeout) => Err("no answer in time".to_owned()),
            };
            let answer = answer.map_err(|error| {
                warn!(error, "reading tickets failed");
                self.session = None;
                Unavailable
            });
            // Nobody receives it once the client has gone.
            let _unheard = question.answer.send(answer);
        }
    }

    async fn answer(&mut self, about: About) -> Result<Option<String>, StoreError> {
        match about {
            About::State(id, source) => {
                let (client, queries) = self.session().await?;
                let state = queries.state(&client.client, id, source.as_ref()).await;
                state.map_err(StoreError::classify)
            }
            About::Newest(filter, age) => self.newest(filter, age).await.map(Some),
        }
    }

    async fn newest(&mut self, filter: TicketFilter, age: Duration) -> Result<String, StoreError> {
        let kept = self.lists.get(&filter);
        if let Some((_, list)) = kept.filter(|(at, _)| at.elapsed() < age) {
            return Ok(list.clone());
        }
        let (client, queries) = self.session().await?;
        let list = queries.newest(&client.client, &filter).await;
        let list = list.map_err(StoreError::classify)?;
        self.keep(filter, list.clone());
        Ok(list)
    }

    /// Keeps a list, in the place of the oldest where there are too many.
    fn keep(&mut self, filter: TicketFilter, list: String) {
        self.lists.insert(filter, (Instant::now(), list));
        if self.lists.len() > LISTS_MAX {
            let oldest = self.lists.iter().min_by_key(|(_, (at, _))| *at);
            let oldest = oldest.map(|(filter, _)| filter.clone());
            oldest.map(|filter| self.lists.remove(&filter));
        }
    }

    /// The session, connected anew where it has ended, or where columns were missing that may have come.
    async fn session(&mut self) -> Result<&(Connected, Queries), StoreError> {
        let usable = self
            .session
            .take()
            .filter(|(connected, queries)| queries.have_origins && !connected.client.is_closed());
        let session = match usable {
            Some(session) => session,
            None => {
                let connected = connect(&self.config, "ticketd status").await?;
                let queries = Queries::prepare(&connected.client).await;
                (connected, queries.map_err(StoreError::classify)?)
            }
        };
        Ok(self.session.insert(session))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn a_bounded_number_of_questions_wait() {
        let (reader, _not_run) = TicketReader::new(DatabaseConfig::default());
        let ask = || Box::pin(reader.state(Uuid::nil(), None));
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
