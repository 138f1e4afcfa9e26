//! `ticketd migrate`: the tables as this version needs them.

use anyhow::Context;

use crate::config::DatabaseSettings;
use crate::store;

/// Creates the tables, or brings them up to date.
pub async fn migrate(settings: &DatabaseSettings) -> anyhow::Result<()> {
    let database = settings.config().map_err(anyhow::Error::msg);
    store::migrate(&database.context("DATABASE_URL")?)
        .await
        .context("DATABASE_URL")
}
