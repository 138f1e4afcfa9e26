//! The Go service's tables, and whatever has become of them since, brought to what they must be while
//! others write to them.

use tokio_postgres::Error;
use tracing::{info, warn};

use super::super::StoreError;
use super::catalog::Table;
use super::exclusive::{exclusive, exclusive_once};
use super::plan::{TablePlan, UpgradeStep};
use super::session::Session;
use super::spec::{PRODUCTS, TICKETS, TableSpec};
use super::{fill, index, obstacles};

impl Session<'_> {
    /// What the tables lack that are there.
    pub(super) async fn plans(&self) -> Result<Vec<TablePlan>, StoreError> {
        let mut plans = Vec::new();
        for spec in [&TICKETS, &PRODUCTS] {
            plans.extend(self.plan(spec).await?);
        }
        Ok(plans)
    }

    async fn plan(&self, spec: &'static TableSpec) -> Result<Option<TablePlan>, StoreError> {
        let table = Table::read(&self.client, spec)
            .await
            .map_err(StoreError::classify)?;
        Ok(table.map(|table| TablePlan::new(spec, table, self.is_utc)))
    }

    /// Fails, naming all of them, if something is in the way of what is to be done.
    pub(super) async fn look_for_obstacles(&self, plans: &[TablePlan]) -> Result<(), StoreError> {
        let mut found = Vec::new();
        for plan in plans.iter().filter(|plan| plan.next().is_some()) {
            let obstacles = obstacles::obstacles(&self.client, plan).await;
            found.extend(obstacles.map_err(StoreError::classify)?);
        }
        if found.is_empty() {
            return Ok(());
        }
        Err(StoreError::Schema(found.join("; ").into()))
    }

    /// Does one step after the other, each as the catalogs then say.
    pub(super) async fn upgrade(&self, spec: &'static TableSpec) -> Result<(), StoreError> {
        let mut done = None;
        while let Some(plan) = self.plan(spec).await? {
            let Some(step) = plan.next() else { break };
            if done.as_ref() == Some(&step) {
                let why = format!("{} did not change by {step:?}", spec.name);
                return Err(StoreError::Schema(why.into()));
            }
            self.take(&plan, &step).await?;
            done = Some(step);
        }
        Ok(())
    }

    async fn take(&self, plan: &TablePlan, step: &UpgradeStep) -> Result<(), StoreError> {
        let (client, table) = (&self.client, &plan.table);
        match step {
            UpgradeStep::Begin => {
                info!("upgrading {}: {} pages", table.name, table.pages);
                exclusive(client, table, &plan.begin())
                    .await
                    .map_err(StoreError::classify)
            }
            UpgradeStep::Fill => {
                let check = plan.check().unwrap_or_default();
                fill::fill(client, plan, &check)
                    .await
                    .map_err(StoreError::classify)
            }
            UpgradeStep::Index(build) => index::build(self.config, client, plan, build).await,
            UpgradeStep::Finish => {
                self.finish(plan).await.map_err(StoreError::classify)?;
                info!("upgraded {}", table.name);
                Ok(())
            }
        }
    }

    async fn finish(&self, plan: &TablePlan) -> Result<(), Error> {
        let path = plan.table.path();
        // The columns that take the place of others are new to the planner.
        self.client
            .batch_execute(&format!("analyze {path}"))
            .await?;
        let query = format!("select coalesce(max(id), 0)::bigint from only {path}");
        let largest = self.client.query_one(&query, &[]).await?.try_get(0)?;
        exclusive(&self.client, &plan.table, &plan.finish(largest)).await
    }

    /// Lets INSERTs of others leave out what is ticketd's, where an earlier ticketd did not. Nothing
    /// of ours needs it, so nobody is waited for.
    pub(super) async fn set_defaults(&self, spec: &'static TableSpec) -> Result<(), StoreError> {
        match self.plan(spec).await? {
            Some(plan) if !plan.defaults.is_empty() => {
                let set = self.set_defaults_of(&plan).await;
                set.map_err(StoreError::classify)
            }
            _ => Ok(()),
        }
    }

    async fn set_defaults_of(&self, plan: &TablePlan) -> Result<(), Error> {
        let name = plan.spec.name;
        match exclusive_once(&self.client, &plan.table, &plan.only_defaults()).await {
            Ok(true) => {}
            Ok(false) => warn!(
                "columns of {name} have no default, and others' transactions are in the way: \
                 INSERTs of the Go service fail until ticketd migrate was run again"
            ),
            Err(error) if error.as_db_error().is_some() => {
                warn!(
                    "columns of {name} have no default: {:#}",
                    StoreError::classify(error)
                );
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
