//! Resident memory of the real process: with many objects (puts, their copies, a comparison of everything), then while one
//! large object goes in, is copied, and comes out of the copies.
//!
//! The peak is the kernel's own (`VmHWM` in `/proc/PID/status`), set back before each step (`/proc/PID/clear_refs`), so that
//! no short peak between two looks is missed. Linux only.

use crate::client::Client;
use crate::rig::{COPIES, SOURCE};
use crate::serving::Serving;
use crate::stats::Table;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use local::credentials::Credentials;
use serde_json::Value;
use std::path::Path;

const BODY: usize = 100;
const IN_FLIGHT: usize = 32;
const PIECE: usize = 1024 * 1024;
const PIECES_OF_A_GIB: usize = 1024;
const LIMIT_MIB: u64 = 150;

/// Runs every step once and prints the peak of each.
pub(crate) async fn run(program: &Path, folder: &Path, objects: usize, gib: usize) -> Result<()> {
    let serving = Serving::start(program, folder, &[])?;
    let credentials = Credentials::load(&serving.data)?.context("`serve` makes credentials")?;
    let source = Client::new(serving.address, SOURCE, &credentials)?;
    let copies = Client::new(serving.address, COPIES, &credentials)?;
    let mut table = Table::new(&["step", "peak of resident memory, MiB"]);
    let mut highest = 0;
    let mut note = |step: String, peak: u64| {
        highest = highest.max(peak);
        eprintln!("{step}: {peak} MiB");
        table.row(vec![step, peak.to_string()]);
    };

    note("started".to_owned(), serving.peak_mib()?);
    let body = Bytes::from(vec![7u8; BODY]);
    stream::iter(0..objects)
        .map(|n| source.put(source.signed_put(&format!("folder-{:04}/object-{n:07}", n % 1_000)), body.clone()))
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<Vec<()>>()
        .await?;
    serving.drained()?;
    note(format!("{objects} objects put and copied"), serving.peak_mib()?);
    serving.command(&["reconcile"])?;
    note(format!("`reconcile` of {objects} objects"), serving.peak_mib()?);

    source.put_pieces("large", Bytes::from(vec![7u8; PIECE]), PIECES_OF_A_GIB * gib).await?;
    note(format!("{gib} GiB go in"), serving.peak_mib()?);
    serving.drained()?;
    note(format!("{gib} GiB are copied"), serving.peak_mib()?);
    let listed = serving.command(&["history", "large", "--json"])?;
    let listed: Value = serde_json::from_str(&listed)?;
    let copy =
        listed["policies"][0]["copies"][0]["copy_key"].as_str().with_context(|| format!("one copy in {listed}"))?;
    let bytes = copies.read(copy).await?;
    ensure!(bytes == (PIECE * PIECES_OF_A_GIB * gib) as u64, "the copy has {bytes} bytes");
    note(format!("{gib} GiB come out"), serving.peak_mib()?);

    table.print("Resident memory of `afterimage serve`");
    println!("highest {highest} MiB (aim: under {LIMIT_MIB})");
    Ok(())
}
