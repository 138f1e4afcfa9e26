//! The alerts of deploy/prometheus/ in a real Prometheus: quiet while all is well, and each fires by a
//! fault of its own. `make test_alerts` runs them, one after the other, as some befall RabbitMQ as a
//! whole; nothing else may use the servers meanwhile.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use ticketd_testing::*;

use crate::TICKETD;
use crate::documents::{dashboard, panels};
use crate::senders::{LINES, SHOP_1};

/// How the test is impatient: in place of each of these in the shipped files, that.
const SOONER: &[(&str, &str)] = &[
    ("15s", "500ms"),
    ("for: 1m", "for: 1s"),
    ("for: 2m", "for: 1s"),
    ("for: 5m", "for: 1s"),
    ("[2d:5m]", "[1m:1s]"),
    ("> 86400", "> 3"),
];

/// A Prometheus with the shipped configuration, which watches some processes.
pub(crate) struct Watch {
    address: SocketAddr,
    folder: PathBuf,
    _prometheus: Process,
}

impl Watch {
    /// Watches these, which answer, and waits until it has seen them.
    pub(crate) async fn of(targets: &[SocketAddr]) -> Self {
        let folder = std::env::temp_dir().join(format!("ticketd-alerts-{}", Uuid::now_v7()));
        fs::create_dir_all(&folder).unwrap();
        let targets: Vec<_> = targets.iter().map(|at| format!("\"{at}\"")).collect();
        for file in ["prometheus.yml", "ticketd.rules.yml"] {
            let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus/");
            let mut text = fs::read_to_string(format!("{shipped}{file}")).unwrap();
            for (patient, sooner) in SOONER {
                text = text.replace(patient, sooner);
            }
            text = text.replace("\"ticketd:8080\"", &targets.join(", "));
            fs::write(folder.join(file), text).unwrap();
        }
        let address = free_address();
        let watch = Self {
            address,
            _prometheus: start(&folder, address),
            folder,
        };
        let up = format!("count(up == 1) == {}", targets.len());
        wait_until("Prometheus sees them", async || {
            !watch.query(&up).await.is_empty()
        })
        .await;
        watch
    }

    /// Nothing is about to fire once every rule was evaluated a few times.
    pub(crate) async fn is_quiet(&self) {
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        let alerts = self.ask("/api/v1/alerts").await;
        assert_eq!(alerts["data"]["alerts"], Value::Array(Vec::new()));
    }

    /// Waits until that alert fires.
    pub(crate) async fn fires(&self, alert: &str) {
        wait_until(alert, async || {
            let alerts = self.ask("/api/v1/alerts").await;
            let alerts = alerts["data"]["alerts"].as_array();
            let is_it = |it: &Value| it["labels"]["alertname"] == alert && it["state"] == "firing";
            alerts.is_some_and(|alerts| alerts.iter().any(is_it))
        })
        .await;
    }

    /// What a query gives.
    pub(crate) async fn query(&self, query: &str) -> Vec<Value> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer = self.ask(&format!("/api/v1/query?query={encoded}")).await;
        let result = answer["data"]["result"].as_array();
        result.cloned().unwrap_or_default()
    }

    /// Its answer, null while it does not answer.
    async fn ask(&self, path: &str) -> Value {
        let Ok(mut stream) = TcpStream::connect(self.address).await else {
            return Value::Null;
        };
        // In this version of HTTP nothing comes in chunks.
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (_, json) = answer.split_once("\r\n\r\n").unwrap_or_default();
        serde_json::from_str(json).unwrap_or_default()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It is only in the way where a test fails.
        let _gone = fs::remove_dir_all(&self.folder);
    }
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn start(folder: &std::path::Path, address: SocketAddr) -> Process {
    let mut command = Command::new("prometheus");
    command
        .arg(format!("--config.file={}/prometheus.yml", folder.display()))
        .arg(format!("--storage.tsdb.path={}/data", folder.display()))
        .arg(format!("--web.listen-address={address}"));
    Process::try_spawn(&mut command, None).expect("Debian's package prometheus is installed")
}

/// Runs rabbitmqctl.
fn ctl(args: &[&str]) {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/stack.sh"));
    let ended = command.args(["ctl", "--quiet"]).args(args).output();
    let ended = ended.unwrap();
    assert!(ended.status.success(), "{ended:?}");
}

async fn sql(namespace: &Namespace, script: &str) {
    namespace.database.batch_execute(script).await.unwrap();
}

/// Sends tickets, at the same time, whatever is answered.
async fn send(address: SocketAddr, tickets: usize) {
    let mut clients = Vec::new();
    for _ in 0..tickets {
        let mut client = Client::connect(address).await.unwrap();
        client.send(post(&[], EXAMPLE)).await;
        clients.push(client);
    }
    for client in &mut clients {
        let _answer = client.answer().await;
    }
}

/// What was received some minutes ago.
fn old() -> lapin::BasicProperties {
    ticket_properties(Uuid::now_v7(), now_us() - 300_000_000)
}

/// RabbitMQ cannot be reached: nothing can be published or consumed, and senders are answered 503.
#[tokio::test]
#[ignore = "make test_alerts"]
async fn the_broker_is_away() {
    let namespace = Namespace::new(TICKETD).await;
    let mut way = Forwarder::shut();
    way.open(&namespace.amqp_url());
    let url = way.url(&namespace.amqp_url());
    let mut ticketd = namespace.ready("serve", &[("AMQP_URL", &url)]).await;
    let address = ticketd.address("LISTEN").await;
    let watch = Watch::of(&[address]).await;
    send(address, 3).await;
    watch.is_quiet().await;
    way.cut();
    drop(way);
    watch.fires("TicketdNotPublishing").await;
    send(address, 3).await;
    watch.fires("TicketdRejecting").await;
    watch.fires("TicketdNotConsuming").await;
}

/// PostgreSQL cannot be reached: tickets are held, and grow old.
#[tokio::test]
#[ignore = "make test_alerts"]
async fn the_database_is_away() {
    let namespace = Namespace::new(TICKETD).await;
    let mut way = Forwarder::shut();
    way.open(&namespace.database_url());
    let url = way.url(&namespace.database_url());
    let mut consume = namespace.ready("consume", &[("DATABASE_URL", &url)]).await;
    let watch = Watch::of(&[consume.address("ADMIN_LISTEN").await]).await;
    watch.is_quiet().await;
    let lock = "begin; lock table tickets";
    sql(&namespace, lock).await;
    namespace.publish(old(), EXAMPLE.as_bytes()).await;
    watch.fires("TicketdBacklogOld").await;
    way.cut();
    drop(way);
    watch.fires("TicketdStoringRetried").await;
    watch.fires("TicketdDatabaseAway").await;
}

/// What cannot be stored: garbage, tables that take no ticket, and messages where none should be.
#[tokio::test]
#[ignore = "make test_alerts"]
async fn tickets_cannot_be_stored() {
    let namespace = Namespace::new(TICKETD).await;
    let mut consume = namespace.ready("consume", &[]).await;
    let watch = Watch::of(&[consume.address("ADMIN_LISTEN").await]).await;
    namespace.publish(old(), EXAMPLE.as_bytes()).await;
    namespace.stored(1).await;
    watch.is_quiet().await;
    let garbage = old().with_content_type("image/png".into());
    namespace.publish(garbage, b"\x89PNG").await;
    watch.fires("TicketdDeadTickets").await;
    let dead = namespace.dead_queue();
    namespace.publish_to(&dead, old(), b"x").await;
    watch.fires("TicketdDeadLetters").await;
    let refuse =
        "alter table tickets add constraint nothing_fits check (ticket_text is null) not valid";
    sql(&namespace, refuse).await;
    for _ in 0..20 {
        let unrouted = namespace.unrouted();
        namespace
            .publish_to(&unrouted, old(), EXAMPLE.as_bytes())
            .await;
    }
    watch.fires("TicketdTablesRefuse").await;
    watch.fires("TicketdUnrouted").await;
}

/// Nobody makes partitions: the role may not.
#[tokio::test]
#[ignore = "make test_alerts"]
async fn partitions_run_out() {
    let (namespace, url) = crate::partitions::kept::neglected("id_of(0, -2)").await;
    let mut consume = namespace.ready("consume", &[("DATABASE_URL", &url)]).await;
    let watch = Watch::of(&[consume.address("ADMIN_LISTEN").await]).await;
    watch.fires("TicketdPartitionsRunOut").await;
    crate::partitions::kept::forget_role(&namespace).await;
}

/// RabbitMQ refuses what is published, since the queue is full by a policy.
#[tokio::test]
#[ignore = "make test_alerts"]
async fn the_broker_refuses() {
    const LIMIT: &str = "{\"max-length\": 1, \"overflow\": \"reject-publish\"}";
    let namespace = Namespace::new(TICKETD).await;
    let mut accept = namespace.ready("accept", &[]).await;
    let address = accept.address("LISTEN").await;
    let watch = Watch::of(&[address]).await;
    watch.is_quiet().await;
    let (name, pattern) = (namespace.queue(), format!("^{}$", namespace.queue()));
    ctl(&["set_policy", "--apply-to", "queues", name, &pattern, LIMIT]);
    wait_until("the queue is full", async || {
        send(address, 3).await;
        let refused = "ticketd_publish_failed_total{reason=\"nack\"} > 0";
        !watch.query(refused).await.is_empty()
    })
    .await;
    watch.fires("TicketdPublishRefused").await;
    ctl(&["clear_policy", name]);
}

/// RabbitMQ is short of memory.
#[tokio::test]
#[ignore = "make test_alerts"]
async fn the_broker_is_blocked() {
    let namespace = Namespace::new(TICKETD).await;
    let mut accept = namespace.ready("accept", &[]).await;
    let address = accept.address("LISTEN").await;
    let watch = Watch::of(&[address]).await;
    watch.is_quiet().await;
    ctl(&["set_vm_memory_high_watermark", "0"]);
    let _enough = OnDrop(|| ctl(&["set_vm_memory_high_watermark", "0.4"]));
    // Only who publishes is told.
    wait_until("blocked", async || {
        send(address, 1).await;
        !watch.query("ticketd_amqp_blocked > 0").await.is_empty()
    })
    .await;
    watch.fires("TicketdBrokerBlocked").await;
}

/// RabbitMQ is silent: confirms do not come, and tickets in flight become too many.
#[tokio::test]
#[ignore = "make test_alerts"]
async fn the_broker_is_silent() {
    let namespace = Namespace::new(TICKETD).await;
    let settings = [("INFLIGHT_MAX", "2"), ("CONFIRM_TIMEOUT", "2s")];
    let mut accept = namespace.ready("accept", &settings).await;
    let address = accept.address("LISTEN").await;
    let watch = Watch::of(&[address]).await;
    send(address, 1).await;
    watch.is_quiet().await;
    let pids = broker_pids();
    signal("STOP", &pids);
    let _go_on = OnDrop(|| signal("CONT", &pids));
    send(address, 6).await;
    watch.fires("TicketdOverloaded").await;
    watch.fires("TicketdConfirmTimeout").await;
}

/// A ticketd that is killed, and one that is started again and again in its place.
#[tokio::test]
#[ignore = "make test_alerts"]
async fn a_process_is_killed() {
    let namespace = Namespace::new(TICKETD).await;
    let address = free_address();
    let listen = address.to_string();
    let settings = [("LISTEN", listen.as_str())];
    let ticketd = namespace.ready("serve", &settings).await;
    let watch = Watch::of(&[address]).await;
    watch.is_quiet().await;
    drop(ticketd);
    watch.fires("TicketdDown").await;
    for _ in 0..3 {
        let _started = namespace.ready("serve", &settings).await;
        let up = "up == 1";
        wait_until("seen", async || !watch.query(up).await.is_empty()).await;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    watch.fires("TicketdRestarting").await;
}

/// A shutdown that does not end.
#[tokio::test]
#[ignore = "make test_alerts"]
async fn a_shutdown_takes_long() {
    let namespace = Namespace::new(TICKETD).await;
    let mut accept = namespace.ready("accept", &[("LAME_DUCK", "10m")]).await;
    let watch = Watch::of(&[accept.address("LISTEN").await]).await;
    watch.is_quiet().await;
    accept.signal("TERM");
    watch.fires("TicketdShutdownStuck").await;
}

/// Senders: one without a credential, and one that sends no more.
#[tokio::test]
#[ignore = "make test_alerts"]
async fn senders_are_wrong_or_silent() {
    let namespace = Namespace::new(TICKETD).await;
    let settings = [("CREDENTIALS", LINES), ("ADMIN_LISTEN", "127.0.0.1:0")];
    let mut accept = namespace.ready("accept", &settings).await;
    let watch = Watch::of(&[accept.address("ADMIN_LISTEN").await]).await;
    watch.is_quiet().await;
    let answer = accept.client().await.ask(post(&[SHOP_1], EXAMPLE)).await;
    assert_eq!(answer.status, 202);
    watch.fires("TicketdSourceSilent").await;
    let answer = accept.client().await.ask(post(&[], EXAMPLE)).await;
    assert_eq!(answer.status, 401);
    watch.fires("TicketdUnauthorized").await;
}

/// The processes of RabbitMQ.
fn broker_pids() -> Vec<u32> {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/stack.sh"));
    let status = String::from_utf8(command.arg("status").output().unwrap().stdout).unwrap();
    let (_, rest) = status.split_once("rabbitmq pid=").expect("it is up");
    proc::family(rest.split(' ').next().unwrap().parse().unwrap())
}

/// Does something at its end, however that comes.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Every expression of the dashboard, with its variables filled as Grafana does, gives numbers: sends
/// tickets of all kinds to a process of both roles, and runs them.
#[tokio::test]
#[ignore = "make test_alerts"]
async fn every_panel_of_the_dashboard_has_data() {
    let namespace = Namespace::new(TICKETD).await;
    let settings = [("CREDENTIALS", LINES), ("ADMIN_LISTEN", "127.0.0.1:0")];
    let mut ticketd = namespace.ready("serve", &settings).await;
    let watch = Watch::of(&[ticketd.address("ADMIN_LISTEN").await]).await;
    let mut client = ticketd.client().await;
    let mut lacking = expressions(&watch).await;
    assert!(lacking.len() > 30, "{lacking:?}");
    wait_until("every panel has data", async || {
        for body in [EXAMPLE, "Order: none"] {
            namespace.accepted(&mut client, &[SHOP_1], body).await;
        }
        let mut still = Vec::new();
        for (panel, expression) in &lacking {
            if !has_numbers(&watch.query(expression).await) {
                still.push((panel.clone(), expression.clone()));
            }
        }
        lacking = still;
        lacking.is_empty()
    })
    .await;
}

/// The panels' expressions, with variables filled.
async fn expressions(watch: &Watch) -> Vec<(String, String)> {
    let dashboard = dashboard();
    let mut values = vec![("$__rate_interval".to_owned(), "10s".to_owned())];
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        let Some(query) = variable["query"]["query"].as_str() else {
            continue;
        };
        let asked = query.strip_prefix("label_values(").unwrap();
        let (series, label) = asked.strip_suffix(')').unwrap().rsplit_once(", ").unwrap();
        let found = watch.query(&filled(series, &values)).await;
        let value = found[0]["metric"][label].as_str().unwrap();
        let name = format!("${}", variable["name"].as_str().unwrap());
        values.push((name, value.to_owned()));
    }
    let mut expressions = Vec::new();
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().unwrap() {
            let expression = filled(target["expr"].as_str().unwrap(), &values);
            assert!(!expression.contains('$'), "{expression}");
            expressions.push((title.to_owned(), expression));
        }
    }
    expressions
}

fn filled(text: &str, values: &[(String, String)]) -> String {
    let fill = |text: String, (name, value): &(String, String)| text.replace(name, value);
    values.iter().fold(text.to_owned(), fill)
}

fn has_numbers(result: &[Value]) -> bool {
    let is_number = |sample: &Value| sample["value"][1].as_str().is_some_and(|it| it != "NaN");
    result.iter().any(is_number)
}
