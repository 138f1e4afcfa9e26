//! What is not as ticketd needs it in RabbitMQ, or may not be declared by it, is named and never
//! taken for good.

use lapin::ExchangeKind;
use lapin::options::{
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use uuid::Uuid;

use crate::stack::{self, Exclusivity, Server, StackLease, amqp_url, database_url};
use ticketd_testing::*;

use crate::TICKETD;

const PASSWORD: &str = "declaring";

/// Everything of one test: queues, a schema, and a user of RabbitMQ with few rights, all of one name.
struct Site {
    name: String,
    stack: StackLease,
}

impl Site {
    async fn new() -> Self {
        let stack = stack::lease(Exclusivity::Shared).await;
        let name = format!("d{}", Uuid::now_v7().simple());
        let sql = stack.sql().await;
        let schema = format!("create schema {name}");
        sql.batch_execute(&schema).await.unwrap();
        stack.ctl(&["add_user", &name, PASSWORD]);
        Self { name, stack }
    }

    fn named(&self, suffix: &str) -> String {
        format!("{}{suffix}", self.name)
    }

    /// Lets the user configure, write and read what matches these patterns.
    fn permit(&self, configure: &str, write: &str, read: &str) {
        let permit = ["set_permissions", &self.name, configure, write, read];
        self.stack.ctl(&permit);
    }

    fn settings<'a>(&self, more: &[(&'a str, &str)]) -> Vec<(&'a str, String)> {
        let port = self.stack.port(Server::Broker);
        let mut settings = vec![
            ("AMQP_URL", amqp_url(port)),
            ("QUEUE", self.name.clone()),
            (
                "DATABASE_URL",
                database_url(self.stack.port(Server::Database), &self.name),
            ),
            ("LISTEN", "127.0.0.1:0".to_owned()),
            ("ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
        ];
        let more = more
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()));
        settings.extend(more);
        settings
    }

    fn start(&self, role: &str, more: &[(&str, &str)]) -> Process {
        Process::start(TICKETD, &[role], &self.settings(more))
    }

    /// Starts a role as the user.
    fn start_as_user(&self, role: &str, topology: &str) -> Process {
        let url = amqp_url(self.stack.port(Server::Broker));
        let login = format!("{}:{PASSWORD}@", self.name);
        let url = url.replace("guest:guest@", &login);
        self.start(role, &[("AMQP_URL", &url), ("TOPOLOGY", topology)])
    }

    /// Declares a queue as somebody else might.
    async fn declare(&self, suffix: &str, arguments: &[(&str, AMQPValue)]) {
        let mut table = FieldTable::default();
        for (name, value) in arguments {
            table.insert((*name).into(), value.clone());
        }
        let options = QueueDeclareOptions {
            durable: true,
            ..Default::default()
        };
        let (connection, channel) = self.stack.amqp().await;
        let declared = channel.queue_declare(self.named(suffix).into(), options, table);
        declared.await.unwrap();
        connection.close(200, "declared".into()).await.unwrap();
    }

    /// Declares an exchange, and binds the queue of the same name to it.
    async fn declare_exchange(&self, suffix: &str, alternate: Option<&str>) {
        let mut table = FieldTable::default();
        if let Some(alternate) = alternate {
            table.insert("alternate-exchange".into(), text(&self.named(alternate)));
        }
        let kind = alternate.map_or(ExchangeKind::Fanout, |_| ExchangeKind::Direct);
        let options = ExchangeDeclareOptions {
            durable: true,
            ..Default::default()
        };
        let name = || ShortString::from(self.named(suffix));
        let (connection, channel) = self.stack.amqp().await;
        let declared = channel.exchange_declare(name(), kind, options, table);
        declared.await.unwrap();
        let (options, none) = (QueueBindOptions::default(), FieldTable::default());
        let bound = channel.queue_bind(name(), name(), name(), options, none);
        bound.await.unwrap();
        connection.close(200, "declared".into()).await.unwrap();
    }

    /// Lets ticketd make everything itself.
    async fn made_by_ticketd(&self) {
        let mut accept = self.start("accept", &[]);
        accept.ready().await;
        accept.drained().await;
    }

    async fn delete_queue(&self, suffix: &str) {
        let (connection, channel) = self.stack.amqp().await;
        let options = QueueDeleteOptions::default();
        let deleted = channel.queue_delete(self.named(suffix).into(), options);
        deleted.await.unwrap();
        connection.close(200, "deleted".into()).await.unwrap();
    }

    async fn clear_away(self) {
        self.stack.ctl(&["delete_user", &self.name]);
        self.stack.servers().remove(&self.name).await.unwrap();
    }
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

/// Posts a ticket, which must be accepted and stored.
async fn goes_through(accept: &mut Process, site: &Site) {
    let id = accept
        .client()
        .await
        .ask(post(&[], ticket("through")))
        .await
        .id();
    let sql = site.stack.session(&site.name).await;
    wait_until("the ticket is stored", async || {
        let query = "select 1 from tickets where ticket_id = $1";
        sql.query_opt(query, &[&id]).await.unwrap().is_some()
    })
    .await;
}

/// Attacks: a queue in which RabbitMQ would drop tickets after a few deliveries, or at its limit, is
/// refused by its name, and what is missing is said; with all of it, it is taken.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_would_lose_tickets_is_refused() {
    let site = Site::new().await;
    let quorum = ("x-queue-type", text("quorum"));
    let dead = ("x-dead-letter-exchange", text(&site.named(".dead")));
    let strategy = ("x-dead-letter-strategy", text("at-least-once"));
    let overflow = ("x-overflow", text("reject-publish"));
    let limit = ("x-delivery-limit", AMQPValue::LongLongInt(1_000_000));
    let all = [quorum.clone(), dead, strategy, overflow, limit];
    let unsafe_ones: Vec<(&str, Vec<_>)> = vec![
        ("", vec![quorum.clone()]),
        (".unrouted", vec![quorum]),
        ("", [&all[..2], &all[3..]].concat()),
        ("", all[..4].to_vec()),
        (
            "",
            [&all[..], &[("x-message-ttl", AMQPValue::LongInt(1_000))]].concat(),
        ),
        ("", vec![]),
    ];
    let setting = |suffix: &str| {
        if suffix.is_empty() {
            "QUEUE"
        } else {
            "UNROUTED_QUEUE"
        }
    };
    let roles = ["accept", "consume"].into_iter().cycle();
    for ((suffix, arguments), role) in unsafe_ones.into_iter().zip(roles) {
        site.declare(suffix, &arguments).await;
        let mut ticketd = site.start(role, &[]);
        let name = format!("the queue {} ", site.named(suffix));
        ticketd.logged(&name).await;
        let mut admin = ticketd.admin().await;
        assert_eq!(admin.ask(get("/readyz")).await.status, 503);
        let log = ticketd.log();
        for needed in all.iter().map(|(name, _)| *name) {
            assert!(log.contains(needed), "{needed}: {log}");
        }
        assert!(log.contains("TOPOLOGY=existing"), "{log}");
        assert!(log.contains(&format!("set {} ", setting(suffix))), "{log}");
        ticketd.drained().await;
        for suffix in ["", ".unrouted"] {
            site.delete_queue(suffix).await;
        }
    }
    site.declare("", &all).await;
    let mut serve = site.start("serve", &[]);
    serve.ready().await;
    goes_through(&mut serve, &site).await;
    serve.drained().await;
    site.clear_away().await;
}

/// Attacks: ticketd takes nothing to be as it should be because it may not declare it: it does not
/// start, and names the right that is missing; one that runs when it loses a right goes on by itself
/// once it has it back.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_stops_the_start() {
    let site = Site::new().await;
    site.made_by_ticketd().await;
    for (role, right, [configure, write, read]) in [
        ("accept", "configure", ["^$", ".*", ".*"]),
        ("consume", "write", [".*", "^$", ".*"]),
        ("serve", "read", [".*", ".*", "^$"]),
    ] {
        site.permit(configure, write, read);
        let ended = site.start_as_user(role, "declare").ended().await;
        assert_eq!(ended.code(), Some(1), "{right}: {}", ended.log);
        let last = ended.log.lines().last().unwrap_or_default();
        for told in [
            &format!("the right to {right}"),
            &site.name,
            "TOPOLOGY=existing",
        ] {
            assert!(last.contains(told), "{told}: {}", ended.log);
        }
    }

    site.permit(".*", ".*", ".*");
    let mut serve = site.start_as_user("serve", "declare");
    serve.ready().await;
    site.permit("^$", ".*", ".*");
    let close = ["close_all_user_connections", &site.name, "a test"];
    site.stack.ctl(&close);
    serve.logged("the right to configure").await;
    let mut client = serve.client().await;
    assert_eq!(client.ask(get("/readyz")).await.status, 503);
    site.permit(".*", ".*", ".*");
    serve.ready().await;
    goes_through(&mut serve, &site).await;
    serve.drained().await;
    site.clear_away().await;
}

/// Attacks: with TOPOLOGY=existing nothing is declared or bound, and no more rights are needed than
/// to publish and to read; what is not there is named and waited for. A policy gives the queues what
/// they need.
#[tokio::test(flavor = "multi_thread")]
async fn an_existing_topology_is_used_as_it_is() {
    let site = Site::new().await;
    let exchange = format!("^{}$", site.name);
    let queues = format!(r"^{}(\.unrouted)?$", site.name);
    site.permit("^$", &exchange, &queues);
    // RabbitMQ 4.3 tells what is missing to none but those who could make it.
    let existing = [("TOPOLOGY", "existing")];
    let mut accept = site.start("accept", &existing);
    let missing = format!("the exchange {} does not exist", site.name);
    accept.logged(&missing).await;
    let mut admin = accept.admin().await;
    assert_eq!(admin.ask(get("/readyz")).await.status, 503);
    accept.drained().await;

    let policy = format!(
        r#"{{"dead-letter-exchange": "{}", "dead-letter-strategy": "at-least-once",
            "overflow": "reject-publish", "delivery-limit": 1000000}}"#,
        site.named(".dead")
    );
    let set = ["set_policy", &site.name, &queues, &policy];
    site.stack.ctl(&set);
    let quorum = [("x-queue-type", text("quorum"))];
    for suffix in [".dead", ".unrouted", ""] {
        site.declare(suffix, &quorum).await;
        let alternate = suffix.is_empty().then_some(".unrouted");
        site.declare_exchange(suffix, alternate).await;
    }
    site.delete_queue(".unrouted").await;
    let mut accept = site.start("accept", &existing);
    let mut consume = site.start("consume", &existing);
    let missing = format!("the queue {} does not exist", site.named(".unrouted"));
    accept.logged(&missing).await;
    consume.logged(&missing).await;
    site.declare(".unrouted", &quorum).await;
    site.declare_exchange(".unrouted", None).await;
    accept.ready().await;
    consume.ready_on("ADMIN_LISTEN").await;
    goes_through(&mut accept, &site).await;
    accept.drained().await;
    consume.drained().await;

    let mut accept = site.start_as_user("accept", "existing");
    let mut consume = site.start_as_user("consume", "existing");
    accept.ready().await;
    consume.ready_on("ADMIN_LISTEN").await;
    goes_through(&mut accept, &site).await;

    // What was taken away stays away, and tickets go the other way.
    let (connection, channel) = site.stack.amqp().await;
    let name = || ShortString::from(site.name.as_str());
    let unbound = channel.queue_unbind(name(), name(), name(), FieldTable::default());
    unbound.await.unwrap();
    connection.close(200, "unbound".into()).await.unwrap();
    accept.drained().await;
    let mut accept = site.start_as_user("accept", "existing");
    accept.ready().await;
    consume.signal("STOP");
    let mut client = accept.client().await;
    client.ask(post(&[], ticket("unrouted"))).await.id();
    assert_eq!(site.stack.ready_messages(&site.name).await, Some(0));
    consume.signal("CONT");
    goes_through(&mut accept, &site).await;
    accept.drained().await;
    consume.drained().await;
    site.stack.ctl(&["clear_policy", &site.name]);
    site.clear_away().await;
}
