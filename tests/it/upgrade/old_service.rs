//! The Go service, as far as its tables see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use ticketd_testing::servers::connect;
use ticketd_testing::{Namespace, wait_within};

use super::online::UPGRADE_MAX;

/// Maximum duration of an INSERT of the old service.
pub(super) const INSERT_MAX: Duration = Duration::from_secs(2);

/// The old service's pace.
const INSERT_EVERY: Duration = Duration::from_millis(20);

/// A zone whose times are not the server's own, so that no time can be taken as it is.
const ZONE: &str = "Europe/Paris";

/// What the old service did: one INSERT after the other, as each ticket came.
pub(super) struct OldService {
    stop: CancellationToken,
    attempts: Arc<AtomicU64>,
    task: JoinHandle<Written>,
}

/// What came of it.
pub(super) struct Written {
    tickets: i64,
    longest: Duration,
    failures: Vec<String>,
}

impl Written {
    /// Takes note of how long an INSERT took.
    fn took(&mut self, what: &str, started: Instant) {
        let took = started.elapsed();
        if took > INSERT_MAX / 4 {
            eprintln!("{what} took {took:?}, until {:?}", SystemTime::now());
        }
        self.longest = self.longest.max(took);
    }
}

impl OldService {
    /// Writes until it is told to stop.
    pub(super) async fn start(namespace: &Namespace) -> Self {
        let client = session(namespace).await;
        let stop = CancellationToken::new();
        let attempts = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(write(client, stop.clone(), attempts.clone()));
        let old = Self {
            stop,
            attempts,
            task,
        };
        old.goes_on().await;
        old
    }

    /// Waits until it has written, or tried to, some more.
    pub(super) async fn goes_on(&self) {
        let before = self.attempts.load(Ordering::Relaxed);
        wait_within("more tickets", UPGRADE_MAX, async || {
            (self.attempts.load(Ordering::Relaxed) > before + 20).then_some(())
        })
        .await;
    }

    /// Stops it, and checks that every ticket went in, and soon; returns how many.
    pub(super) async fn stopped(self) -> i64 {
        self.stop.cancel();
        let written = self.task.await.unwrap();
        eprintln!(
            "{} tickets, longest INSERT {:?}",
            written.tickets, written.longest
        );
        assert!(
            written.failures.is_empty(),
            "of {} tickets {} failed, such as: {}; the longest INSERT took {:?}",
            written.tickets,
            written.failures.len(),
            written.failures[0],
            written.longest
        );
        assert!(written.longest < INSERT_MAX, "{:?}", written.longest);
        written.tickets
    }
}

/// A connection like one of the old service's.
pub(super) async fn session(namespace: &Namespace) -> Client {
    connect(&in_zone(namespace)).await.unwrap()
}

/// The URL of a server that keeps another zone.
pub(super) fn in_zone(namespace: &Namespace) -> String {
    format!("{}%20-c%20TimeZone%3D{ZONE}", namespace.database_url())
}

/// Prepared statements and plain ones in turn: what PostgreSQL remembers of a table may be old.
async fn write(client: Client, stop: CancellationToken, attempts: Arc<AtomicU64>) -> Written {
    let ticket = "insert into tickets (order_id, vat, total, valid, ticket_text) \
        values ($1, 3.10, $2::float8, true, 'old')";
    let product = "insert into products (name, product_id, price) values ($1, $2, $3::float8) \
        on conflict (product_id) do update set name = excluded.name, price = excluded.price";
    let ticket = client.prepare(ticket).await.unwrap();
    let product = client.prepare(product).await.unwrap();
    let mut written = Written {
        tickets: 0,
        longest: Duration::ZERO,
        failures: Vec::new(),
    };
    let mut tick = tokio::time::interval(INSERT_EVERY);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        let started = Instant::now();
        let price = written.tickets as f64;
        let inserted = if written.tickets % 2 == 0 {
            client.execute(&ticket, &[&"old", &price]).await.map(|_| ())
        } else {
            let ticket = format!(
                "insert into tickets (order_id, vat, total, valid, ticket_text, created_at) \
                values ('old', 3.10, {price}, true, 'old', '2024-05-06 07:08:09')"
            );
            client.batch_execute(&ticket).await
        };
        let known = format!("p{}", written.tickets % 50);
        written.took("a ticket", started);
        let started = Instant::now();
        let sold = client
            .execute(&product, &[&"Old product", &known, &price])
            .await;
        written.took("a product", started);
        written.tickets += 1;
        attempts.fetch_add(1, Ordering::Relaxed);
        let failures = inserted.err().into_iter().chain(sold.err());
        written.failures.extend(failures.map(|error| {
            error
                .as_db_error()
                .map_or(error.to_string(), |db| db.message().to_owned())
        }));
    }
    written
}
