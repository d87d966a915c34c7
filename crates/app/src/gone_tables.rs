//! Tables of this machine that are gone, or whose endpoint is switched off: what was archived of them is there still, and so is
//! what could not be archived, until a person decides.
//!
//! Nothing says which tables there were but the archive itself; it is only read here.

use crate::archiving::Archiving;
use crate::exit::Failure;
use crate::instance::Instance;
use crate::wiring::{open_archiving, own_archive};
use engine::config::Destination;
use engine::steps::archived_names::{Days, days};
use engine::steps::aside::ASIDE_PREFIX;
use engine::steps::shard_places::{GAPS_PREFIX, tables_under};
use lifecycle::archive::ServiceName;
use local::store::{Role, is_bucket_folder};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The archive of a table of this machine that is gone: what was archived of it is there still. `None`: nothing was.
pub(crate) async fn archiving_of_gone_table(
    instance: &Instance,
    service: &ServiceName,
) -> Result<Option<Archiving>, Failure> {
    let Some(archiving) = opened(instance, service.as_str()).await? else { return Ok(None) };
    let any = days(archiving.reader(instance)?.as_ref(), service, Days::default()).await?;
    Ok((!any.is_empty()).then_some(archiving))
}

/// All archives, and those of tables that are gone where something lies aside, or is noted as lost.
pub(crate) async fn archivings_with_notes(instance: &Instance) -> (Vec<Arc<Archiving>>, Result<(), Failure>) {
    let mut all = instance.all_archivings();
    let gone = gone_with_notes(instance, &all).await;
    let found = gone.map(|gone| all.extend(gone.into_iter().map(Arc::new)));
    (all, found)
}

async fn gone_with_notes(instance: &Instance, known: &[Arc<Archiving>]) -> Result<Vec<Archiving>, Failure> {
    // Any name will do: the archive is that of all of them.
    let Some(any) = opened(instance, "any").await? else { return Ok(Vec::new()) };
    let (reader, mut tables) = (any.objects(instance)?, BTreeSet::new());
    for prefix in [ASIDE_PREFIX, GAPS_PREFIX] {
        tables.extend(tables_under(reader.as_ref(), prefix).await?);
    }
    let mut gone = Vec::new();
    for table in tables {
        let is_of_it = |archiving: &&Arc<Archiving>| {
            archiving.config.table.name == table && archiving.config.destination == any.config.destination
        };
        if known.iter().find(is_of_it).is_none() {
            gone.extend(opened(instance, &table).await?);
        }
    }
    Ok(gone)
}

/// The archive of a table of this machine, if there is any place where it could be, and the table's name could have been one.
async fn opened(instance: &Instance, table: &str) -> Result<Option<Archiving>, Failure> {
    let Ok(archive) = own_archive(instance, table) else { return Ok(None) };
    let is_there = match &archive.destination {
        Destination::S3(_) => true,
        Destination::Bucket(bucket) => is_of_nobody_else(instance, bucket),
        Destination::Folder(folder) => is_bucket_folder(folder),
    };
    if !is_there {
        return Ok(None);
    }
    Ok(Some(open_archiving(instance, archive).await?))
}

/// A bucket that clients do not write, and no policy: with the endpoint switched off, it may have become another's.
fn is_of_nobody_else(instance: &Instance, bucket: &str) -> bool {
    let Ok(there) = instance.store.bucket(bucket) else { return false };
    let is_policys = |policy: Arc<engine::policy::Policy>| {
        let setting = instance.setting(&policy);
        setting.is_some_and(|setting| setting.destination.here().is_some_and(|here| here.as_str() == bucket))
    };
    there.info().role == Role::Destination && !instance.policies.all().into_iter().any(is_policys)
}
