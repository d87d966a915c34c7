//! `reconcile`: compares source, destination and catalog, and settles what differs; with `--rebuild` it begins with an
//! empty catalog. A crash after the old one was set aside leaves an empty one, which the next start fills in the same way.

use crate::answer::{Answer, Done, ReportView};
use crate::exit::Failure;
use crate::feed::Feed;
use crate::instance::Instance;
use crate::wiring::catalog_file;
use anyhow::Context;
use engine::config::Config;
use engine::flows::reconcile::Orphans;
use engine::policy::Policy;
use lifecycle::time::UnixMs;
use local::store::{BucketName, Reindexed};
use std::fs;
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
            let note = format!("{} was not begun", policy.name);
            done.reports.push(ReportView {
                operation: "reconcile".to_owned(),
                policy: Some(policy.name.to_string()),
                notes: vec![note],
                cancelled: true,
                ..ReportView::default()
            });
            continue;
        }
        let notes = compare_files(instance, &policy).await?;
        let orphans = Orphans::Before(instance.started_at);
        let mut report = engine::flows::reconcile::reconcile(&policy, orphans, feed, cancel).await?;
        report.notes.extend(notes);
        let gap = report.counted("gap");
        if gap > 0 && report.failures == 0 {
            report.notes.push(format!("{gap} differences are left: they settle when their events are handled"));
        }
        done.reports.push(ReportView::of(Some(policy.name.as_str()), report));
    }
    Ok(Answer::Done(done))
}

/// Compares the index of a policy's buckets with their folders, so that the listings that are compared next tell what is
/// there; what it found, for people. Killed half-way it has repaired some of it, and the next one does the rest.
pub(crate) async fn compare_files(instance: &Instance, policy: &Policy) -> Result<Vec<String>, Failure> {
    let mut notes = Vec::new();
    let Some(setting) = instance.setting(policy) else { return Ok(notes) };
    for bucket in [BucketName::new(setting.config.source.bucket.clone())?, setting.destination] {
        let Reindexed { added, garbage, aside, forgotten, missing, foreign, .. } =
            instance.store.reindex(&bucket).await?;
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
    let mut names: Vec<String> = config.policies.iter().map(|policy| policy.name.to_string()).collect();
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
        let file = catalog_file(data, &name);
        // The file goes last: a log that a crash left beside no file would be taken for the new file's.
        for ending in ["-wal", "-shm", ""] {
            let from = with_ending(&file, ending);
            let to = with_ending(&file, &format!(".{stamp}{ending}"));
            match fs::rename(&from, &to) {
                Ok(()) => tracing::warn!("set {} aside as {}", from.display(), to.display()),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    let context = format!("cannot set {} aside", from.display());
                    return Err(Failure::Failed(anyhow::Error::new(error).context(context)));
                }
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
