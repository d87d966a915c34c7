//! What is in services is asked here whether it is there and may be used, before `serve` says that it is ready.
//!
//! What a service refuses refuses the start, with its reason: a bucket or a table that does not exist, a right that is
//! missing, a destination that is another's. What does not answer does not: the other policies have their work, and a
//! restore of theirs cannot wait for it. Every handle asks again when it is used, so events wait until it answers (V8).

use crate::archiving::Archiving;
use crate::exit::Failure;
use crate::home::Kept;
use crate::instance::{Instance, Setting, UNPOISONED};
use crate::limits::REACH_WAIT;
use async_trait::async_trait;
use engine::config::CatalogPlace;
use engine::error::{ErrorKind, PortError, PortResult};
use engine::policy::Mode;
use engine::wrap::owned::{Introduces, Owner};
use futures_util::future::join_all;
use local::store::Store;
use std::sync::Arc;

/// A policy, as the owner of its destination: whoever works with the same catalog and source is the same owner.
pub(crate) struct Me {
    pub(crate) policy: String,
    pub(crate) mode: Mode,
    pub(crate) catalog: Kept,
    /// The source is in the data folder: another one has another source, whatever its catalog.
    pub(crate) source_here: bool,
    pub(crate) store: Arc<Store>,
}

#[async_trait]
impl Introduces for Me {
    async fn owner(&self) -> PortResult<Owner> {
        let (id, at) = self.store.data_folder();
        let catalog = match &self.catalog {
            Kept::File(_) => format!("data folder {id}"),
            Kept::Table(table) if self.source_here => {
                format!("{}, source in data folder {id}", table.identity().await?)
            }
            Kept::Table(table) => table.identity().await?,
        };
        Ok(Owner { policy: self.policy.clone(), mode: self.mode, catalog, at: at.to_owned() })
    }
}

/// Asks everything that the policies have in services, all at once.
pub(crate) async fn reach(instance: &Instance) -> Result<(), Failure> {
    let settings: Vec<Setting> = instance.settings.read().expect(UNPOISONED).values().cloned().collect();
    let policies = settings.iter().map(|setting| async move {
        let reached = tokio::select! {
            reached = reach_policy(instance, setting) => reached,
            () = instance.clock.sleep(REACH_WAIT) => Err(slow(setting.config.name.as_str())),
        };
        judge(setting.config.name.as_str(), "events wait until it does", reached)
    });
    let intakes = instance.all_intakes();
    let queues = intakes.iter().map(|intake| async {
        let reached = tokio::select! {
            found = intake.queue.has_dead_letters() => found.map_err(Failure::from),
            () = instance.clock.sleep(REACH_WAIT) => Err(slow(&intake.name)),
        };
        judge(&intake.name, "it is asked again and again", reached.map(drop))
    });
    let archivings = instance.all_archivings();
    let archives = archivings.iter().map(|archiving| async {
        let reached = tokio::select! {
            reached = reach_archive(instance, archiving) => reached,
            () = instance.clock.sleep(REACH_WAIT) => Err(slow(&archiving.config.table.name)),
        };
        judge(
            &format!("the archive of {}", archiving.config.table),
            "its records wait in the stream, for a day",
            reached,
        )
    });
    let (policies, queues, archives) = tokio::join!(join_all(policies), join_all(queues), join_all(archives));
    policies.into_iter().chain(queues).chain(archives).collect()
}

async fn reach_policy(instance: &Instance, setting: &Setting) -> Result<(), Failure> {
    if let (CatalogPlace::Table(place), Some(table)) = (&setting.config.catalog, setting.catalog.table()) {
        instance.services.check_table(place, table, instance.clock.as_ref()).await?;
    }
    for bucket in [setting.source.there(), setting.destination.there()].into_iter().flatten() {
        bucket.is_versioned().await?;
    }
    match &setting.ownership {
        Some(ownership) => Ok(ownership.hold().await?),
        None => Ok(()),
    }
}

async fn reach_archive(instance: &Instance, archiving: &Archiving) -> Result<(), Failure> {
    if let (CatalogPlace::Table(place), Some(table)) = (&archiving.config.leases, archiving.leases.table()) {
        instance.services.check_table(place, table, instance.clock.as_ref()).await?;
    }
    archiving.objects(instance)?.list("", None, 1).await?;
    // This machine's own tables come and go while `serve` runs.
    if !archiving.is_own() {
        instance.services.streams(&archiving.config).await?;
    }
    if let Some((_, queue)) = archiving.failures() {
        queue.has_dead_letters().await?;
    }
    Ok(())
}

fn slow(what: &str) -> Failure {
    PortError::new("reach", what, ErrorKind::Unavailable).into()
}

/// An outage is told and waited for; all else is for a person.
fn judge(what: &str, meanwhile: &str, reached: Result<(), Failure>) -> Result<(), Failure> {
    match reached {
        Err(failure) if failure.port().is_some_and(is_outage) => {
            tracing::warn!("{what} does not answer, and {meanwhile}: {}", failure.chain());
            Ok(())
        }
        reached => reached.map_err(|failure| failure.while_doing(format!("cannot set up {what}"))),
    }
}

fn is_outage(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unavailable | ErrorKind::Throttled)
}
