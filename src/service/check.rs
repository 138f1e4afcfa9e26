//! Whether a command could start with its settings, as far as files tell.

use anyhow::Context;

use super::checked;
use super::listen::Listening;
use super::senders::KnownSenders;
use crate::broker::Broker;
use crate::config::{AcceptRole, BrokerSettings, Command};

/// Reads the files that a command's settings name, as the command itself would, and fails as that
/// would. Listens nowhere, and connects to nothing.
pub fn check_files(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(settings) => {
            checked(settings.consume.database.config())?;
            accept(&settings.accept)?;
            broker(&settings.common.broker)
        }
        Command::Accept(settings) => {
            let database = settings.database.config().transpose();
            database.map(checked).transpose()?;
            accept(&settings.accept)?;
            broker(&settings.common.broker)
        }
        Command::Consume(settings) => {
            checked(settings.consume.database.config())?;
            Listening::read(&settings.tls, None)?;
            broker(&settings.common.broker)
        }
        Command::Migrate(settings) => checked(settings.config()).map(drop),
        _ => Ok(()),
    }
}

fn accept(settings: &AcceptRole) -> anyhow::Result<()> {
    let http = &settings.http;
    Listening::read(&http.listen.tls, http.client_ca())?;
    KnownSenders::read(&settings.auth, false).map(drop)
}

fn broker(settings: &BrokerSettings) -> anyhow::Result<()> {
    let broker = Broker::new(settings).map_err(anyhow::Error::msg);
    broker.context("AMQP_URL").map(drop)
}
