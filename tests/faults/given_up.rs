//! Messages that RabbitMQ has given up delivering, and their repair by `ticketd dead`.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicQosOptions, BasicRejectOptions};
use lapin::types::FieldTable;
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;
use uuid::{Uuid, Version};

use crate::rig::Rig;
use crate::ticketd::Role;
use ticketd_testing::wait_within;

/// Maximum wait for that many messages, under load, and for what `dead` has begun.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Maximum time for everything to be repaired: RabbitMQ offers what was refused again only now and then.
const REPAIR_DEADLINE: Duration = Duration::from_secs(60);

/// The command that moves them to the table.
pub(crate) const COLLECT: [&str; 2] = ["dead", "collect"];

/// The command that publishes again what stands for them.
pub(crate) const REPLAY: [&str; 4] = ["dead", "replay", "--all", "--reason=RabbitMQ gave up"];

/// What a dead ticket of such a message has for a reason.
const REASON: &str = "RabbitMQ gave up%";

/// How many messages wait in the queue of what was given up.
pub(crate) async fn waiting(rig: &Rig) -> u32 {
    let queue = format!("{}.dead", rig.name);
    rig.stack.ready_messages(&queue).await.unwrap_or(0)
}

/// Has RabbitMQ give up that many messages: a second consumer rejects them for good. Only tickets
/// without a key: of two with one key, either may be stored first, and the other be replayed under an
/// id of its own, which no till here was told.
pub(crate) async fn give_up(rig: &Rig, messages: u16) {
    let (connection, channel) = rig.stack.amqp().await;
    let qos = channel.basic_qos(messages, BasicQosOptions::default());
    qos.await.unwrap();
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let (queue, tag) = (rig.name.as_str().into(), "gives up".into());
    let consumer = channel.basic_consume(queue, tag, options, none);
    let mut consumer = consumer.await.unwrap();
    let mut left = messages;
    let enough = async {
        while left > 0 {
            let delivery = consumer.next().await.expect("a delivery").unwrap();
            let requeue = !is_without_key(&delivery);
            let rejected = delivery.acker.reject(BasicRejectOptions { requeue });
            rejected.await.unwrap();
            left -= u16::from(!requeue);
        }
    };
    let given_up = timeout(DEADLINE, enough).await;
    given_up.expect("messages to give up");
    connection.close(200, "given up".into()).await.unwrap();
}

/// An id that is not made from a key is made from the time.
fn is_without_key(delivery: &Delivery) -> bool {
    let id = delivery.properties.message_id().as_ref();
    let id = id.and_then(|id| Uuid::parse_str(id.as_str()).ok());
    id.is_some_and(|id| id.get_version() == Some(Version::SortRand))
}

/// The dead tickets that stand for those messages, as a session sees them that waits for nobody.
pub(crate) async fn listed(sql: &Client) -> Vec<i64> {
    let query = "select id from dead_tickets where reason like $1 for update skip locked";
    let rows = sql.query(query, &[&REASON]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Moves them to the table, and publishes them again.
pub(crate) async fn repair(rig: &mut Rig) {
    for command in [&COLLECT[..], &REPLAY] {
        let ended = rig.process(Role::Consume).run(command).await;
        assert!(ended.status.success(), "{}", ended.log);
    }
}

/// The same, with each command killed after that time.
pub(crate) async fn repair_killed(rig: &mut Rig, after: Duration) {
    for command in [&COLLECT[..], &REPLAY] {
        let running = rig.process(Role::Consume).start_command(command);
        sleep(after).await;
        running.signal("KILL");
        running.ended().await;
    }
}

/// Repairs until everything that was answered 202 is stored, and nothing is left to repair.
pub(crate) async fn repaired(rig: &mut Rig) {
    rig.driver.pause().await;
    let what = "everything is repaired";
    wait_within(what, REPAIR_DEADLINE, async || {
        repair(rig).await;
        let is_empty = waiting(rig).await == 0;
        (rig.is_all_stored().await && is_empty).then_some(())
    })
    .await;
    rig.driver.resume();
}
