//! Saves a policy's catalog, and the journal beside it, into the destination: losing the data disk does not lose them.
//!
//! They stand in the destination folder's own part, `.afterimage/catalog-a.sqlite` and `-b`, written in turn and each
//! replaced in one step, so that one of the two is always whole, whatever is killed. Of the journal, segments that have
//! grown are copied again; one that a crash cut short is shorter than here, and so copied again an hour later.

use crate::exit::Failure;
use crate::home::Kept;
use crate::instance::Instance;
use crate::limits::SNAPSHOT_EVERY;
use anyhow::Context;
use engine::policy::Policy;
use lifecycle::time::UnixMs;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

const SLOTS: [&str; 2] = ["catalog-a.sqlite", "catalog-b.sqlite"];

/// Saves the catalog if the last snapshot is as old as that.
pub(crate) async fn save_if_old(instance: &Instance, policy: &Policy) -> Result<(), Failure> {
    let Some(setting) = instance.setting(policy) else { return Ok(()) };
    // A table needs none; and where the destination is in a service, the catalog is made again from its listing.
    let (Some(destination), Kept::File(catalog)) = (setting.destination.here(), &setting.catalog) else {
        return Ok(());
    };
    let destination = instance.store.bucket(destination.as_str())?;
    let own = destination.info().root.join(".afterimage");
    let (older, newest) = slots(&own)?;
    if let Some(saved_at) = newest {
        instance.saved(policy, saved_at);
        if instance.now().since(saved_at) < SNAPSHOT_EVERY {
            return Ok(());
        }
    }
    catalog.snapshot_to(&older).await?;
    let (from, to) = (instance.folder.path().join("journal"), own.join("journal"));
    tokio::task::spawn_blocking(move || copy_grown(&from, &to)).await??;
    instance.saved(policy, instance.now());
    Ok(())
}

/// The slot to write next, and when the newest of both was written.
fn slots(own: &Path) -> Result<(PathBuf, Option<UnixMs>), Failure> {
    let written = |slot: &&str| -> Result<Option<UnixMs>, Failure> {
        let path = own.join(slot);
        match fs::metadata(&path).and_then(|found| found.modified()) {
            Ok(modified) => {
                let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
                Ok(Some(UnixMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                Err(Failure::Failed(anyhow::Error::new(error).context(format!("cannot look at {}", path.display()))))
            }
        }
    };
    let [a, b] = [written(&SLOTS[0])?, written(&SLOTS[1])?];
    let older = if a <= b { SLOTS[0] } else { SLOTS[1] };
    Ok((own.join(older), a.max(b)))
}

/// Copies the files that are longer here than there.
fn copy_grown(from: &Path, to: &Path) -> Result<(), Failure> {
    if !from.exists() {
        return Ok(());
    }
    let copy = || -> io::Result<()> {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let (found, target) = (entry.metadata()?, to.join(entry.file_name()));
            let there = fs::metadata(&target).map(|there| there.len()).ok();
            if found.is_file() && there != Some(found.len()) {
                fs::copy(entry.path(), &target)?;
                File::open(&target)?.sync_all()?;
            }
        }
        File::open(to)?.sync_all()
    };
    Ok(copy().with_context(|| format!("cannot copy the journal to {}", to.display()))?)
}
