//! `reconcile`: compares source, destination and catalog, and settles what differs; with `--rebuild` it begins with an
//! empty catalog. A crash while the old one is set aside leaves all of it or none: see [`set_aside`]. The next start fills an
//! empty one in the same way.

use crate::answer::{Answer, Done, ReportView};
use crate::exit::Failure;
use crate::feed::Feed;
use crate::home::Home;
use crate::instance::Instance;
use crate::wiring::catalog_file;
use anyhow::Context;
use engine::config::{CatalogPlace, Config};
use engine::flows::reconcile::Orphans;
use engine::policy::Policy;
use engine::report::Report;
use lifecycle::time::UnixMs;
use local::store::Reindexed;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

/// Reconciles. This process is the only handler of the folder's events, so bytes without a row that are older than its
/// start are nobody's work in progress.
pub(crate) async fn reconcile(
    instance: &Instance,
    policy: Option<&str>,
    feed: &Feed,
    cancel: &CancellationToken,
) -> Result<Answer, Failure> {
    let mut done = Done::default();
    for policy in instance.selected(policy)? {
        if cancel.is_cancelled() {
            done.reports.push(ReportView::not_begun("reconcile", &policy));
            continue;
        }
        let result = reconcile_policy(instance, &policy, feed, cancel).await;
        done.push(&policy, "reconcile", result);
    }
    Ok(Answer::Done(done))
}

async fn reconcile_policy(
    instance: &Instance,
    policy: &Policy,
    feed: &Feed,
    cancel: &CancellationToken,
) -> Result<Report, Failure> {
    let notes = compare_files(instance, policy).await?;
    let orphans = Orphans::Before(instance.started_at);
    let mut report = engine::flows::reconcile::reconcile(policy, orphans, feed, cancel).await?;
    report.notes.extend(notes);
    let gap = report.counted("gap");
    if gap > 0 && report.failures == 0 {
        report.notes.push(format!("{gap} differences are left: they settle when their events are handled"));
    }
    Ok(report)
}

/// Compares the index of a policy's buckets with their folders, so that the listings that are compared next tell what is
/// there; what it found, for people. Killed half-way it has repaired some of it, and the next one does the rest.
pub(crate) async fn compare_files(instance: &Instance, policy: &Policy) -> Result<Vec<String>, Failure> {
    let mut notes = Vec::new();
    let Some(setting) = instance.setting(policy) else { return Ok(notes) };
    for bucket in [&setting.source, &setting.destination].into_iter().filter_map(Home::here) {
        let Reindexed { added, garbage, aside, forgotten, missing, foreign, .. } =
            instance.store.reindex(bucket).await?;
        let found = [
            (added, "files were not in the index"),
            (garbage, "files that nobody had been told of were deleted"),
            (aside, "files newer than the index were set aside, into `.afterimage/aside/`"),
            (forgotten, "files are gone, and left the index"),
            (missing, "objects have lost their files: the disk must be looked at, and `restore` brings copies back"),
            (foreign, "files are none of the bucket's and were left alone"),
        ];
        let found = found.into_iter().filter(|(count, _)| *count > 0);
        notes.extend(found.map(|(count, what)| format!("in {bucket}, {count} {what}")));
    }
    Ok(notes)
}

/// Moves catalogs aside, so that a reconcile makes them again from their destinations. The caller holds the folder's lock
/// and has opened nothing in it. The old files stay, with the time in their names; nothing is deleted.
pub(crate) fn set_catalogs_aside(
    data: &Path,
    config: &Config,
    policy: Option<&str>,
    now: UnixMs,
) -> Result<(), Failure> {
    let in_a_table = |name: &str| {
        let policy = config.policies.iter().find(|policy| policy.name.as_str() == name);
        policy.is_some_and(|policy| policy.catalog != CatalogPlace::Local)
    };
    let meant = config.policies.iter().map(|configured| configured.name.to_string());
    let meant = meant.filter(|name| policy.is_none_or(|policy| policy == name));
    let (tables, mut names): (Vec<String>, Vec<String>) = meant.partition(|name| in_a_table(name));
    if !tables.is_empty() {
        return Err(Failure::usage(format!(
            "a catalog in a table is not moved aside, as that of {}: name a new table in the configuration, then \
             `afterimage serve --make-tables` fills it from the destination; name a policy with another catalog with \
             --policy",
            tables.join(", ")
        )));
    }
    // Buckets that clients made have catalogs, too, under the buckets' names.
    let folder = data.join("catalog");
    if folder.exists() {
        let cannot = || format!("cannot read {}", folder.display());
        for entry in fs::read_dir(&folder).with_context(cannot)? {
            let file = entry.with_context(cannot)?.file_name();
            names.extend(file.to_str().and_then(|file| file.strip_suffix(".sqlite")).map(str::to_owned));
        }
    }
    names.sort();
    names.dedup();
    if let Some(policy) = policy {
        if !names.iter().any(|name| name == policy) {
            return Err(Failure::usage(format!("there is no policy `{policy}`; there are: {}", names.join(", "))));
        }
        names.retain(|name| name == policy);
    }
    let stamp = now.timestamp().strftime("%Y%m%dT%H%M%SZ").to_string();
    for name in names {
        set_aside(&catalog_file(data, &name), &stamp)?;
    }
    Ok(())
}

/// Sets a database aside with its log, the file durably first. A crash before that leaves the old database as it was; one
/// after it leaves none, and SQLite throws a log away that it finds beside none. The other way round a crash would leave
/// the file without the last commits in its log, and the next start would believe it.
fn set_aside(file: &Path, stamp: &str) -> Result<(), Failure> {
    for ending in ["", "-wal", "-shm"] {
        let from = with_ending(file, ending);
        let to = with_ending(file, &format!(".{stamp}{ending}"));
        let renamed =
            fs::rename(&from, &to).and_then(|()| File::open(from.parent().unwrap_or(Path::new("/")))?.sync_all());
        match renamed {
            Ok(()) => tracing::warn!("set {} aside as {}", from.display(), to.display()),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                let context = format!("cannot set {} aside", from.display());
                return Err(Failure::Failed(anyhow::Error::new(error).context(context)));
            }
        }
    }
    Ok(())
}

fn with_ending(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::ports::catalog::{Catalog, CatalogRead};
    use lifecycle::ids::ObjectKey;
    use lifecycle::order::Order;
    use lifecycle::row::Tombstone;
    use local::sqlite::catalog::SqliteCatalog;

    fn key(text: &str) -> ObjectKey {
        ObjectKey::new(text).unwrap()
    }

    async fn note(catalog: &SqliteCatalog, text: &str) {
        let at = UnixMs(1);
        let tombstone = Tombstone { order: Order::from_time(at), time: at, noted_at: at, floating: false };
        catalog.bury(&key(text), &tombstone).await.unwrap();
    }

    /// A catalog as a killed process leaves it: what was noted first is in the file, what was noted last in its log.
    async fn killed(file: &Path) {
        let work = tempfile::tempdir().unwrap();
        let at_work = work.path().join("catalog.sqlite");
        let catalog = SqliteCatalog::open(&at_work).unwrap();
        note(&catalog, "first").await;
        catalog.close().await;
        let catalog = SqliteCatalog::open(&at_work).unwrap();
        note(&catalog, "last").await;
        for ending in ["", "-wal", "-shm"] {
            fs::copy(with_ending(&at_work, ending), with_ending(file, ending)).unwrap();
        }
        catalog.close().await;
    }

    async fn known(file: &Path) -> [bool; 2] {
        let catalog = SqliteCatalog::open(file).unwrap();
        let mut known = [false; 2];
        for (known, text) in known.iter_mut().zip(["first", "last"]) {
            *known = catalog.partition(&key(text)).await.unwrap().tombstone.is_some();
        }
        catalog.close().await;
        known
    }

    #[tokio::test]
    async fn a_catalog_is_set_aside_as_a_whole_or_not_at_all_wherever_it_is_cut_short() {
        for (stopped_at, left) in [("", [true; 2]), ("-wal", [false; 2]), ("-shm", [false; 2]), ("?", [false; 2])] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("catalog.sqlite");
            killed(&file).await;
            // In the way of one of the renames.
            fs::create_dir(with_ending(&file, &format!(".1{stopped_at}"))).unwrap();
            let done = set_aside(&file, "1");
            assert_eq!(done.is_ok(), stopped_at == "?");
            assert_eq!(known(&file).await, left, "stopped at `{stopped_at}`");
        }
    }

    #[tokio::test]
    async fn what_was_set_aside_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("catalog.sqlite");
        killed(&file).await;
        set_aside(&file, "1").unwrap();
        assert_eq!(known(&with_ending(&file, ".1")).await, [true; 2]);
    }
}
