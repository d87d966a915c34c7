//! What settling and cleaning cost per item with 10,000 and with 1,000,000 rows in the catalog, and what cleaning 100,000
//! due copies in one go does to puts.

use crate::client::Client;
use crate::latency::{now, paced_puts};
use crate::rig::{COPIES, Rig, SOURCE};
use crate::stats::{Table, median, n2};
use anyhow::{Context, Result, ensure};
use engine::flows::{clean::clean, settle::settle};
use engine::policy::Policy;
use engine::ports::catalog::{Changed, RowChange, RowId, RowSet};
use futures_util::{StreamExt, TryStreamExt, stream};
use lifecycle::copy_key::CopyName;
use lifecycle::event::Version;
use lifecycle::ids::{Checksum, CopyKey, ETag, ObjectKey, Rev, VersionId};
use lifecycle::order::Order;
use lifecycle::row::{CopyRow, CopyState, Origin, Reason};
use lifecycle::settle::Ask;
use lifecycle::time::{SpanMs, UnixMs};
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Versions of one key.
pub(crate) const ROWS_PER_KEY: usize = 3;
const MEASURED: usize = 2_000;
const IN_FLIGHT: usize = 256;
/// The empty object: its copies need no bytes to be found right.
const EMPTY: &str = "d41d8cd98f00b204e9800998ecf8427e";

/// Cost per item at both sizes.
pub(crate) async fn per_item(folder: &Path, sizes: &[usize]) -> Result<()> {
    let mut table = Table::new(&["rows", "settle µs", "settle reads", "clean µs", "clean reads"]);
    for rows in sizes {
        let rig = Rig::open(&folder.join(format!("scale-{rows}"))).await?;
        let policy = rig.policy();
        fill(&policy, rows / ROWS_PER_KEY, rig.now()).await?;
        let (settle_us, settle_reads) = measure_settle(&policy, rows / ROWS_PER_KEY, rig.now()).await?;
        let (clean_us, clean_reads) = measure_clean(&policy, rows / ROWS_PER_KEY, rig.now()).await?;
        table.row(vec![rows.to_string(), n2(settle_us), n2(settle_reads), n2(clean_us), n2(clean_reads)]);
        rig.stop().await?;
    }
    table
        .print(&format!("Cost per item over {MEASURED} items (one after the other; reads: read calls of the process)"));
    Ok(())
}

/// Cleans `due` copies in one go while puts arrive at 200/s.
pub(crate) async fn clean_under_load(folder: &Path, due: usize, puts: u32) -> Result<()> {
    let folder = folder.join("clean");
    let copies = folder.join("buckets").join(COPIES);
    std::fs::create_dir_all(&copies)?;
    let created = UnixMs(1_700_000_000_000);
    for n in 0..due {
        let (_, row) = row(n / ROWS_PER_KEY, n % ROWS_PER_KEY, created)?;
        std::fs::write(copies.join(row.copy_key.as_str()), b"")?;
    }
    let mut rig = Rig::open(&folder).await?;
    let policy = rig.policy();
    stream::iter((0..due).map(|n| (n / ROWS_PER_KEY, n % ROWS_PER_KEY)))
        .map(|(key, version)| put_row(&policy, key, version, created))
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<Vec<()>>()
        .await?;
    for first in (0..due.div_ceil(ROWS_PER_KEY)).step_by(300) {
        let keys = first..(first + 300).min(due.div_ceil(ROWS_PER_KEY));
        disown(&policy, keys, rig.now().minus(SpanMs::hours(1))).await?;
    }
    rig.start_driver();
    let client = Client::new(rig.start_endpoint().await?, SOURCE, &rig.credentials)?;
    let (idle, _) = paced_puts(&mut rig, &client, "idle", puts).await?;
    let cleaning = tokio::spawn({
        let policy = Arc::clone(&policy);
        async move {
            let started = now();
            let report = clean(&policy, &CancellationToken::new()).await?;
            anyhow::Ok((report, started.elapsed()))
        }
    });
    let (busy, _) = paced_puts(&mut rig, &client, "busy", puts).await?;
    let (report, took) = cleaning.await??;
    ensure!(report.counted("purged") == due as u64, "unexpected report: {report:?}");
    let (idle, busy) = (idle.percentile_ms(0.99), busy.percentile_ms(0.99));
    println!(
        "\nCleaning {due} due copies took {:.1} s ({:.0}/s); puts' p99 {idle:.2} ms idle, {busy:.2} ms while cleaning; ratio {:.2} (aim: at most 3)",
        took.as_secs_f64(),
        due as f64 / took.as_secs_f64(),
        busy / idle
    );
    rig.stop().await
}

/// Rows of that many keys, all active.
async fn fill(policy: &Policy, keys: usize, created: UnixMs) -> Result<()> {
    stream::iter((0..keys * ROWS_PER_KEY).map(|n| (n / ROWS_PER_KEY, n % ROWS_PER_KEY)))
        .map(|(key, version)| put_row(policy, key, version, created))
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(())
}

/// A fourth row comes to each key: the oldest is claimed and purged.
async fn measure_settle(policy: &Policy, keys: usize, created: UnixMs) -> Result<(f64, f64)> {
    let mut times = Vec::with_capacity(MEASURED);
    let reads = read_calls()?;
    for key in spread(keys) {
        put_row(policy, key, ROWS_PER_KEY, created).await?;
        let started = now();
        settle(policy, &original(key)?, Ask::BY_FACTS).await?;
        times.push(started.elapsed().as_secs_f64() * 1e6);
    }
    Ok((median(&times), (read_calls()? - reads) as f64 / MEASURED as f64))
}

/// One key's copies are due at a time.
async fn measure_clean(policy: &Policy, keys: usize, at: UnixMs) -> Result<(f64, f64)> {
    let mut times = Vec::with_capacity(MEASURED);
    let mut reads = 0;
    for key in spread(keys) {
        disown(policy, key..key + 1, at.minus(SpanMs::hours(1))).await?;
        let (before, started) = (read_calls()?, now());
        let report = clean(policy, &CancellationToken::new()).await?;
        times.push(started.elapsed().as_secs_f64() * 1e6 / report.counted("purged") as f64);
        reads += read_calls()? - before;
    }
    Ok((median(&times), reads as f64 / MEASURED as f64))
}

/// Keys spread evenly over all.
fn spread(keys: usize) -> impl Iterator<Item = usize> {
    (0..MEASURED).map(move |n| n * keys / MEASURED)
}

pub(crate) async fn put_row(policy: &Policy, key: usize, version: usize, created: UnixMs) -> Result<()> {
    let (original, row) = row(key, version, created)?;
    Ok(policy.catalog.upsert(&original, &row).await?)
}

pub(crate) async fn disown(policy: &Policy, keys: std::ops::Range<usize>, at: UnixMs) -> Result<()> {
    let mut changes = Vec::new();
    for key in keys {
        let original = original(key)?;
        for row in policy.catalog.partition(&original).await?.rows {
            let id = RowId { original: original.clone(), copy_key: row.copy_key };
            let set = RowSet::Disowned { at, reason: Reason::Removed, removed_at: Some(at) };
            changes.push(RowChange { id, if_rev: row.rev, set });
        }
    }
    for result in policy.catalog.change(&changes).await {
        ensure!(matches!(result?, Changed::Applied(_)), "a claim was refused");
    }
    Ok(())
}

fn original(key: usize) -> Result<ObjectKey> {
    // Scattered, as keys are: neighbours in time are no neighbours in the table.
    Ok(ObjectKey::new(format!("key-{:08x}", (key as u32).wrapping_mul(2_654_435_761)))?)
}

pub(crate) fn row(key: usize, version: usize, created: UnixMs) -> Result<(ObjectKey, CopyRow)> {
    let original = original(key)?;
    let id = format!("{:016x}", (created.0 as u64) << 20 | (version as u64 + 1));
    let order = Order::from_sequencer(&id).context("16 hex digits")?;
    let version = Version { version_id: Some(VersionId(id)), etag: ETag::from(EMPTY), size: 0 };
    let (copy_key, _): (CopyKey, bool) = CopyName::of_event(&version, order, created).copy_key(&original);
    let row = CopyRow {
        copy_key,
        order,
        floating: false,
        origin: Origin::Event,
        created_at: created,
        state: CopyState::Active { due_at: None },
        removed_at: None,
        version_id: version.version_id,
        etag: version.etag,
        size: 0,
        checksum: Some(Checksum(0)),
        storage_class: None,
        rev: Rev(String::new()),
    };
    Ok((original, row))
}

/// Read calls of this process so far: what SQLite reads from its files, when its caches do not have it.
fn read_calls() -> Result<u64> {
    let io = std::fs::read_to_string("/proc/self/io").context("read /proc/self/io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("syscr: ")).context("syscr in /proc/self/io")?;
    Ok(line.parse()?)
}
