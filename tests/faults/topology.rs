//! What is done to the queue and its binding.

use std::time::Duration;

use lapin::options::{QueueBindOptions, QueueDeleteOptions};
use lapin::types::FieldTable;

use crate::rig::Rig;
use crate::ticketd::Role;
use ticketd_testing::wait_within;

/// The policy by which the broker bounds the queue.
const LIMIT: &str = r#"{"max-length": 20}"#;

/// Without its consumer, the queue is full after a few messages.
pub(crate) fn fill_queue(rig: &mut Rig) {
    let pattern = format!("^{}$", rig.name);
    rig.stack.ctl(&[
        "set_policy",
        "--apply-to",
        "queues",
        &rig.name,
        &pattern,
        LIMIT,
    ]);
    rig.process(Role::Consume).signal("STOP");
}

/// Deletes the queue when all that was confirmed is stored: what a mistaken operator could lose
/// is nobody's promise, but ticketd must find its way back.
pub(crate) async fn delete_queue(rig: &mut Rig) {
    rig.driver.pause().await;
    wait_within("an empty queue", Duration::from_secs(60), async || {
        let ready = rig.stack.ready_messages(&rig.name).await?;
        (ready == 0 && rig.is_all_stored().await).then_some(())
    })
    .await;
    let (connection, channel) = rig.stack.amqp().await;
    let options = QueueDeleteOptions::default();
    channel
        .queue_delete(rig.name.as_str().into(), options)
        .await
        .unwrap();
    connection.close(200, "deleted".into()).await.unwrap();
    rig.driver.resume();
}

/// Binds the queue to its exchange, or takes the binding away.
pub(crate) async fn bind(rig: &Rig, bound: bool) {
    let (connection, channel) = rig.stack.amqp().await;
    let name = || rig.name.as_str().into();
    let arguments = FieldTable::default();
    let done = if bound {
        channel
            .queue_bind(
                name(),
                name(),
                name(),
                QueueBindOptions::default(),
                arguments,
            )
            .await
    } else {
        channel
            .queue_unbind(name(), name(), name(), arguments)
            .await
    };
    done.unwrap();
    connection.close(200, "bound".into()).await.unwrap();
}
