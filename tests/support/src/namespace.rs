//! A schema and queues of a test's own.

use std::path::PathBuf;
use std::time::Duration;

use lapin::message::Delivery;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeleteOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::http::{Answer, Client as Http, post};
use crate::process::{Ended, Process};
use crate::servers::{Servers, connect, depth};
use crate::wait::{wait_for, wait_until};

/// Maximum time for cleaning up after a test, whose servers may be in any state.
const CLEANING_DEADLINE: Duration = Duration::from_secs(20);

/// Rows as [`Namespace::products`] gives them.
pub fn owned(products: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    let owned = |&(id, name, price): &(&str, &str, &str)| (id.into(), name.into(), price.into());
    products.iter().map(owned).collect()
}

/// Somewhere to work: names in both servers that nobody else uses, and connections to look at them
/// with. Dropping it deletes all that is there, also when the test fails.
pub struct Namespace {
    name: String,
    servers: Servers,
    /// The ticketd that is started in it.
    binary: PathBuf,
    /// Sees the schema and nothing else.
    pub database: Client,
    broker: Connection,
}

/// A row of `tickets`; decimals as PostgreSQL writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The id that the 202 gave.
    pub ticket_id: Uuid,
    /// Null where it was not read, like VAT and total.
    pub order_id: Option<String>,
    /// The VAT.
    pub vat: Option<String>,
    /// The total.
    pub total: Option<String>,
    /// Whether no rule is broken.
    pub valid: bool,
    /// The code of the rule that is, and its line.
    pub invalid_reason: Option<String>,
    /// The body as it was sent.
    pub ticket_text: Option<String>,
    /// Microseconds since the Unix epoch.
    pub received_at_us: i64,
}

/// A row of `dead_tickets`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dead {
    /// Counts what was dead-lettered.
    pub number: i64,
    /// The id that the 202 gave.
    pub ticket_id: Uuid,
    /// Why it could not be stored.
    pub reason: String,
    /// The body as it was sent.
    pub body: Vec<u8>,
}

impl Namespace {
    /// Makes an empty schema for that ticketd; queues come with the first of its processes.
    pub async fn new(binary: impl Into<PathBuf>) -> Self {
        let name = format!("it_{}", Uuid::now_v7().simple());
        // Before the schema: without a broker there would be nobody to take it away.
        let servers = Servers::of_environment();
        let broker = servers.broker().await.unwrap();
        let database = servers.create(&name).await.unwrap();
        Self {
            name,
            servers,
            binary: binary.into(),
            database,
            broker,
        }
    }

    /// The database's URL, with the schema in it.
    pub fn database_url(&self) -> String {
        self.servers.schema_url(&self.name)
    }

    /// The broker's URL.
    pub fn amqp_url(&self) -> String {
        self.servers.amqp_url.clone()
    }

    /// The queue that tickets wait in.
    pub fn queue(&self) -> &str {
        &self.name
    }

    /// The queue for tickets that found no other.
    pub fn unrouted(&self) -> String {
        format!("{}.unrouted", self.name)
    }

    /// The queue for messages that RabbitMQ gave up delivering.
    pub fn dead_queue(&self) -> String {
        format!("{}.dead", self.name)
    }

    /// The schema.
    pub fn schema(&self) -> &str {
        &self.name
    }

    /// The settings of any command, listeners on ports of their own, and these, which count more.
    /// `accept` gets no database unless it is among them.
    pub fn settings<'a>(&self, command: &str, more: &[(&'a str, &str)]) -> Vec<(&'a str, String)> {
        let mut settings = vec![
            ("AMQP_URL", self.amqp_url()),
            ("QUEUE", self.name.clone()),
            ("LISTEN", "127.0.0.1:0".to_owned()),
            // Nobody stands in front of most tests' ticketd who would have to notice its end.
            ("LAME_DUCK", "0".to_owned()),
            ("RUST_BACKTRACE", "1".to_owned()),
        ];
        if command != "accept" {
            settings.push(("DATABASE_URL", self.database_url()));
        }
        if command == "consume" {
            settings.push(("ADMIN_LISTEN", "127.0.0.1:0".to_owned()));
        }
        settings.extend(
            more.iter()
                .map(|(name, value)| (*name, (*value).to_owned())),
        );
        settings
    }

    /// Starts a role.
    pub fn start(&self, role: &str, more: &[(&str, &str)]) -> Process {
        Process::start(&self.binary, &[role], &self.settings(role, more))
    }

    /// Starts a role and waits until it is ready.
    pub async fn ready(&self, role: &str, more: &[(&str, &str)]) -> Process {
        let mut process = self.start(role, more);
        let setting = if role == "consume" {
            "ADMIN_LISTEN"
        } else {
            "LISTEN"
        };
        process.ready_on(setting).await;
        process
    }

    /// Runs a command to its end.
    pub async fn run(&self, args: &[&str], more: &[(&str, &str)]) -> Ended {
        Process::run(&self.binary, args, &self.settings(args[0], more)).await
    }

    /// Sends a ticket, with header lines, to a ticketd, which must accept it; returns its id.
    pub async fn accepted(&self, client: &mut Http, headers: &[&str], body: &str) -> Uuid {
        let answer: Answer = client.ask(post(headers, body)).await;
        answer.id()
    }

    /// Every row of `tickets`, in the order of storing.
    pub async fn rows(&self) -> Vec<Row> {
        // Before version 14 extract() gives a float, which is exact for seconds but not for microseconds.
        let query = "select ticket_id, order_id, vat::text, total::text, valid, invalid_reason, \
            ticket_text, extract(epoch from date_trunc('second', received_at))::bigint * 1000000 \
                + extract(microseconds from received_at)::bigint % 1000000 \
            from tickets order by id";
        let rows = self.database.query(query, &[]).await.unwrap();
        let row = |row: &tokio_postgres::Row| Row {
            ticket_id: row.get(0),
            order_id: row.get(1),
            vat: row.get(2),
            total: row.get(3),
            valid: row.get(4),
            invalid_reason: row.get(5),
            ticket_text: row.get(6),
            received_at_us: row.get(7),
        };
        rows.iter().map(row).collect()
    }

    /// The row of a ticket, once it is there.
    pub async fn row(&self, id: Uuid) -> Row {
        let row = async || {
            self.rows()
                .await
                .into_iter()
                .find(|row| row.ticket_id == id)
        };
        wait_for(&format!("a row of {id}"), row).await
    }

    /// How many rows a table has.
    pub async fn count(&self, table: &str) -> i64 {
        let query = format!("select count(*) from {table}");
        self.database.query_one(&query, &[]).await.unwrap().get(0)
    }

    /// Waits until that many tickets are stored, and checks that there are no more.
    pub async fn stored(&self, tickets: i64) {
        self.filled("tickets", tickets).await;
    }

    /// Waits until a table has that many rows, and checks that there are no more.
    pub async fn filled(&self, table: &str, rows: i64) {
        self.filled_at_least(table, rows).await;
        assert_eq!(self.count(table).await, rows, "rows in {table}");
    }

    /// Waits until a table has at least that many rows.
    pub async fn filled_at_least(&self, table: &str, rows: i64) {
        wait_until(&format!("{rows} rows in {table}"), async || {
            self.count(table).await >= rows
        })
        .await;
    }

    /// Source and time of issue of a row of a table, the time in UTC to the microsecond; none where
    /// there is no such row.
    pub async fn origin(&self, table: &str, id: Uuid) -> Option<(Option<String>, Option<String>)> {
        let query = format!(
            "select source, to_char(issued_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') \
             from {table} where ticket_id = $1"
        );
        let row = self.database.query_opt(&query, &[&id]).await.unwrap();
        row.map(|row| (row.get(0), row.get(1)))
    }

    /// Product id, name and price of every row of `products`, by product id.
    pub async fn products(&self) -> Vec<(String, String, String)> {
        let query =
            "select product_id, name, price::text from products order by product_id collate \"C\"";
        let rows = self.database.query(query, &[]).await.unwrap();
        rows.iter()
            .map(|row| (row.get(0), row.get(1), row.get(2)))
            .collect()
    }

    /// Every row of `dead_tickets`, oldest first.
    pub async fn dead(&self) -> Vec<Dead> {
        let query = "select id, ticket_id, reason, body from dead_tickets order by id";
        let rows = self.database.query(query, &[]).await.unwrap();
        let dead = |row: &tokio_postgres::Row| Dead {
            number: row.get(0),
            ticket_id: row.get(1),
            reason: row.get(2),
            body: row.get(3),
        };
        rows.iter().map(dead).collect()
    }

    /// A database of the test's own, made with these options, and a connection to it. It goes with
    /// the schema.
    pub async fn own_database(&self, options: &str) -> (String, Client) {
        let create = format!("create database {} {options}", self.name);
        self.database.batch_execute(&create).await.unwrap();
        let url = in_database(&self.servers.database_url, &self.name);
        let client = connect(&url).await.unwrap();
        (url, client)
    }

    /// A channel of its own, since an error closes it.
    pub async fn channel(&self) -> Channel {
        self.broker.create_channel().await.unwrap()
    }

    /// How many messages a queue holds that nobody has taken.
    pub async fn depth(&self, queue: &str) -> u32 {
        depth(&self.broker, queue).await.unwrap()
    }

    /// Takes the next message off the queue, for good.
    pub async fn take(&self) -> Delivery {
        let channel = self.channel().await;
        let message = wait_for("a message", async || {
            let options = BasicGetOptions { no_ack: true };
            channel
                .basic_get(self.queue().into(), options)
                .await
                .unwrap()
        });
        message.await.delivery
    }

    /// Publishes to the queue as another producer would, persistent and confirmed.
    pub async fn publish(&self, properties: BasicProperties, body: &[u8]) {
        self.publish_to(self.queue(), properties, body).await;
    }

    /// The same to one of the other queues.
    pub async fn publish_to(&self, queue: &str, properties: BasicProperties, body: &[u8]) {
        let channel = self.channel().await;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .unwrap();
        let options = BasicPublishOptions {
            mandatory: true,
            ..Default::default()
        };
        let (exchange, key): (ShortString, ShortString) = ("".into(), queue.into());
        let properties = properties.with_delivery_mode(2);
        let published = channel.basic_publish(exchange, key, options, body, properties);
        let confirmation = published.await.unwrap().await.unwrap();
        assert_eq!(confirmation, Confirmation::Ack(None));
        channel.close(200, "published".into()).await.unwrap();
    }

    /// Deletes a queue with all that is in it.
    pub async fn delete_queue(&self, queue: &str) {
        let channel = self.channel().await;
        let deleted = channel.queue_delete(queue.into(), QueueDeleteOptions::default());
        deleted.await.unwrap();
    }

    /// Cuts the queue off from the exchange.
    pub async fn unbind(&self) {
        let channel = self.channel().await;
        let name = || ShortString::from(self.queue());
        channel
            .queue_unbind(name(), name(), name(), FieldTable::default())
            .await
            .unwrap();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let (servers, name) = (self.servers.clone(), self.name.clone());
        // On a thread of its own, because this one may be in the middle of a runtime or of a panic.
        let cleaning = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                tokio::time::timeout(CLEANING_DEADLINE, clean(&servers, &name))
                    .await
                    .unwrap();
            });
        });
        if cleaning.join().is_err() {
            eprintln!("what {} left behind could not be deleted", self.name);
        }
    }
}

async fn clean(servers: &Servers, name: &str) {
    servers.remove(name).await.unwrap();
    let database = connect(&servers.database_url).await.unwrap();
    let own = format!("drop database if exists {name} with (force)");
    database.batch_execute(&own).await.unwrap();
}

/// A URL that leads to another database of the same server.
fn in_database(url: &str, database: &str) -> String {
    let Some((start, path)) = url.split_once("://").and(url.rsplit_once('/')) else {
        return format!("{url} dbname={database}");
    };
    let options = path
        .split_once('?')
        .map_or(String::new(), |(_, options)| format!("?{options}"));
    format!("{start}/{database}{options}")
}
