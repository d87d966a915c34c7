//! Packing a day of archived records that lie in a local folder, read back included, beside a plain Python loop that makes the
//! same file of the same objects with pyarrow (`bench/baseline/records.py`).

use super::made::{SERVICE, TABLE, read, recorded, removed};
use crate::aws::job::Job;
use crate::aws::servers::Beside;
use crate::aws::table::Lines;
use crate::process::{Took, answer, ready, work};
use crate::stats::{median, median_ratio};
use anyhow::{Result, ensure};
use engine::clock::{SystemClock, SystemNonces};
use engine::flows::archive::Archive;
use engine::flows::pack::{PackRecords, PackRequest};
use engine::ports::clock::{Clock, Nonces};
use engine::ports::metrics::Counters;
use engine::ports::objects::{Listed, ObjectPurge, PurgeItem};
use engine::ports::progress::Silent;
use engine::steps::archived_names::Days;
use lifecycle::archive::ServiceName;
use lifecycle::time::UnixMs;
use local::journal::FileJournal;
use local::store::{BucketName, BucketSpec, Role, Store};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

const BUCKET: &str = "archive";
/// The day that is packed, and its first moment.
const DAY: &str = "2026/06/15";
const DAY_BEGINS: UnixMs = UnixMs(1_781_481_600_000);
const DAY_MS: usize = 86_400_000;
/// Records that are archived at once while the folder is filled.
const FILLED_AT_ONCE: usize = 20_000;
const PYTHON: &str = "Python with pyarrow";
const OURS: &str = "Afterimage";

/// Fills the folder, runs all rounds, and prints the medians.
pub(crate) async fn run(beside: &Beside, folder: &Path, rounds: usize, records: usize) -> Result<()> {
    fill(folder, records).await?;
    let mut lines = Lines::new(records, "record");
    let mut sizes = (0.0, 0.0);
    for round in 1..=rounds {
        for side in [PYTHON, OURS] {
            let took = one_side(beside, folder, side, records)?;
            eprintln!("round {round}: {}, {} MiB", lines.add(side, &took), took.peak_mib);
            if side == OURS {
                sizes = (took.sum("bytes"), took.sum("pack_bytes"));
            }
        }
    }
    lines.print(&format!("Packing {records} records of a local folder; medians of {rounds} rounds"));
    let pairs = |a: Vec<f64>, b: Vec<f64>| a.into_iter().zip(b).collect::<Vec<_>>();
    println!(
        "records/s beside Python {:.2} (aim: at least 10), CPU {:.3}; memory {:.0} MiB (aim: under 300); {:.0} MB of JSON are \
         {:.0} MB: 1/{:.1} (aim: at most 1/5)",
        median_ratio(&pairs(lines.rates(OURS), lines.rates(PYTHON))),
        median_ratio(&pairs(lines.cpus(OURS), lines.cpus(PYTHON))),
        median(&lines.peaks(OURS)),
        sizes.0 / 1e6,
        sizes.1 / 1e6,
        sizes.0 / sizes.1
    );
    Ok(())
}

fn one_side(beside: &Beside, folder: &Path, side: &str, records: usize) -> Result<Took> {
    let day = bucket_folder(folder).join(SERVICE).join(DAY).to_string_lossy().into_owned();
    let job = Job { source: day, ..Job::alone("", folder, records) };
    let command = match side {
        OURS => job.worker("pack")?,
        _ => job.handlers(&beside.python, "records.py", "pack", 1)?.remove(0),
    };
    let took = work(vec![command], &[])?;
    ensure!(took.sum("done") == records as f64, "{side}: {:?}", took.answers);
    Ok(took)
}

fn bucket_folder(folder: &Path) -> PathBuf {
    folder.join(BUCKET)
}

/// Archives the records into the folder, as the daemon would.
async fn fill(folder: &Path, records: usize) -> Result<()> {
    let (store, bucket) = open(folder).await?;
    let archive = Archive::new(TABLE, store.writer(&bucket)?, Arc::new(Counters::default()));
    let table = recorded()?;
    for first in (0..records).step_by(FILLED_AT_ONCE) {
        let at = |n: usize| DAY_BEGINS.0 + (n * (DAY_MS / records)) as i64;
        let some = (first..records.min(first + FILLED_AT_ONCE)).map(|n| read(&removed(n, at(n)), &table));
        for ended in archive.archive(&some.collect::<Result<Vec<_>>>()?).await {
            ended?;
        }
        eprintln!("{} of {records} records are archived", records.min(first + FILLED_AT_ONCE));
    }
    store.close().await;
    Ok(())
}

async fn open(folder: &Path) -> Result<(Arc<Store>, BucketName)> {
    let (clock, nonces): (Arc<dyn Clock>, Arc<dyn Nonces>) = (Arc::new(SystemClock), Arc::new(SystemNonces::new()?));
    let (data, bucket) = (folder.join("data"), BucketName::new(BUCKET)?);
    std::fs::create_dir_all(&data)?;
    let store = Store::open(&data, clock, nonces).await?;
    if store.buckets().is_empty() {
        let root = Some(bucket_folder(folder));
        store.create_bucket(BucketSpec { name: bucket.clone(), role: Role::Destination, root }).await?;
    }
    Ok((store, bucket))
}

/// The worker: `archive pack` of the day.
pub(crate) async fn ours(job: &Job) -> Result<()> {
    let (store, bucket) = open(&job.folder).await?;
    let archive = store.writer(&bucket)?;
    unpack(archive.list("packed/", None, 100).await?.items, store.purger(&bucket)?.as_ref()).await?;
    unpack(archive.list(".afterimage/packs/", None, 100).await?.items, store.purger(&bucket)?.as_ref()).await?;
    let packer = PackRecords {
        archive,
        purger: None,
        journal: Arc::new(FileJournal::open(&job.folder.join("journal"))?),
        clock: Arc::new(SystemClock),
        scratch: job.folder.clone(),
        who: "bench".to_owned(),
    };
    let request = PackRequest { service: ServiceName::new(SERVICE)?, days: Days::default(), dry_run: false };
    ready()?;
    let report = packer.run(&request, &Silent, &CancellationToken::new()).await;
    ensure!(report.is_success(), "{:?}", report.failed.first());
    let counted = |name| report.counted(name);
    answer(&json!({ "done": counted("packed"), "bytes": counted("bytes"), "pack_bytes": counted("pack-bytes") }))
}

/// What an earlier round made goes, so that this one has everything to do.
async fn unpack(listed: Vec<Listed>, purger: &dyn ObjectPurge) -> Result<()> {
    let item = |listed: Listed| PurgeItem { key: listed.key, version_id: None, if_match: None };
    let items: Vec<PurgeItem> = listed.into_iter().map(item).collect();
    for purged in purger.purge(&items).await {
        purged?;
    }
    Ok(())
}
