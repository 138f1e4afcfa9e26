//! A channel to publish on, and one message on it.

use std::time::Duration;

use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{Channel, Confirmation};
use tokio::time::sleep;

use super::group::GroupMessage;
use crate::broker::{Broker, BrokerError, Link};

/// Waits, connects, and opens a channel on which every publish is confirmed.
pub(super) async fn open(broker: &Broker, wait: Duration) -> Result<(Link, Channel), BrokerError> {
    sleep(wait).await;
    let link = broker.connect("publish").await?;
    let channel = link.publishing_channel().await?;
    Ok((link, channel))
}

/// Publishes a message and waits for its confirm.
pub(super) async fn confirm(
    channel: &Channel,
    exchange: ShortString,
    key: ShortString,
    message: GroupMessage,
) -> Result<Confirmation, lapin::Error> {
    // Mandatory: should even the alternate exchange be missing, the message comes back instead of
    // being confirmed into nothing.
    let options = BasicPublishOptions {
        mandatory: true,
        immediate: false,
    };
    let properties = message.properties.clone();
    let written = channel.basic_publish(exchange, key, options, message.payload(), properties);
    let confirmed = written.await?;
    drop(message);
    confirmed.await
}
