//! Draining a spool of events (5 puts per key, keep 3, so that retention works), beside a plain Python loop that leaves the
//! same files and rows with the same durability (`bench/baseline/drain.py`).

use crate::latency::now;
use crate::rig::Rig;
use crate::stats::{Table, median, median_ratio, n2};
use anyhow::{Context, Result, ensure};
use engine::ports::catalog::CatalogRead;
use futures_util::{StreamExt, TryStreamExt, stream};
use std::path::Path;
use std::process::Command;

const PUTS_PER_KEY: usize = 5;
const KEEP: usize = 3;
const BODY: usize = 4_096;

/// Pairs of rounds of so many events each.
pub(crate) async fn run(folder: &Path, rounds: usize, events: usize) -> Result<()> {
    let mut table = Table::new(&["round", "Python events/s", "Afterimage events/s", "ratio"]);
    let mut pairs = Vec::new();
    for round in 0..rounds {
        let python = events as f64 / python(&folder.join(format!("python-{round}")), events)?;
        let ours = events as f64 / ours(&folder.join(format!("ours-{round}")), events).await?;
        pairs.push((ours, python));
        table.row(vec![(round + 1).to_string(), n2(python), n2(ours), n2(ours / python)]);
    }
    table.print(&format!("Draining {events} events over {} keys of {BODY} bytes, keep {KEEP}", events / PUTS_PER_KEY));
    let ours = median(&pairs.iter().map(|(ours, _)| *ours).collect::<Vec<_>>());
    println!("median {ours:.0} events/s; median ratio {:.2} (aim: at least 3)", median_ratio(&pairs));
    Ok(())
}

async fn ours(folder: &Path, events: usize) -> Result<f64> {
    let mut rig = Rig::open(folder).await?;
    let keys = events / PUTS_PER_KEY;
    for version in 0..PUTS_PER_KEY {
        // One version after the other, so that the versions of a key keep their order.
        stream::iter(0..keys)
            .map(|key| rig.put(format!("key-{key:05}"), body(key, version)))
            .buffer_unordered(64)
            .try_collect::<Vec<()>>()
            .await?;
    }
    let started = now();
    rig.start_driver();
    rig.drained().await?;
    let seconds = started.elapsed().as_secs_f64();
    let totals = rig.catalog.totals().await?;
    ensure!(totals.active == (keys * KEEP) as u64 && totals.disowned == 0, "unexpected end state: {totals:?}");
    rig.stop().await?;
    Ok(seconds)
}

fn python(folder: &Path, events: usize) -> Result<f64> {
    let (sources, copies) = (folder.join("source"), folder.join("copies"));
    std::fs::create_dir_all(&sources)?;
    std::fs::create_dir_all(&copies)?;
    let mut spool = rusqlite::Connection::open(folder.join("spool.sqlite"))?;
    let transaction = spool.transaction()?;
    transaction.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, source, target, key, copy_key, ord)", [])?;
    let keys = events / PUTS_PER_KEY;
    for n in 0..events {
        let (key, version) = (n % keys, n / keys);
        let name = format!("key-{key:05}");
        let source = sources.join(format!("{name}@{version}"));
        std::fs::write(&source, body(key, version))?;
        let copy_key = format!("{name}.20261121T072612345Z-s{n:016x}-v{n:016x}");
        let target = copies.join(&copy_key);
        let row = rusqlite::params![source.to_str(), target.to_str(), name, copy_key, format!("s{n:016x}"),];
        transaction
            .execute("INSERT INTO events (source, target, key, copy_key, ord) VALUES (?1, ?2, ?3, ?4, ?5)", row)?;
    }
    transaction.commit()?;
    drop(spool);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline/drain.py");
    let output =
        Command::new("python3").arg(script).arg(folder).arg(KEEP.to_string()).output().context("run python3")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    answer["seconds"].as_f64().context("drain.py prints its seconds")
}

fn body(key: usize, version: usize) -> Vec<u8> {
    let mut body = vec![b'.'; BODY];
    let mark = format!("{key} {version}");
    body[..mark.len()].copy_from_slice(mark.as_bytes());
    body
}
