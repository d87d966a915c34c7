//! Archiving deletions of 1 KB, as Lambda tells them, through an S3 server: beside a plain boto3 handler that puts each one
//! (`bench/baseline/records.py`), and beside a bare load generator that sends the same puts, made beforehand.

use super::made::{TABLE, made, read, recorded, removed};
use crate::aws::job::Job;
use crate::aws::servers::{Beside, Servers};
use crate::aws::table::Lines;
use crate::aws::wiring::Endpoint;
use crate::client::{Client, Keys};
use crate::process::{Took, answer, ready, work};
use crate::stats::median_ratio;
use anyhow::{Result, ensure};
use engine::clock::SystemClock;
use engine::flows::archive::Archive;
use engine::format::archived::metadata;
use engine::ports::clock::Clock;
use engine::ports::metrics::Counters;
use futures_util::{StreamExt, TryStreamExt, stream};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Records of one event. Lambda gives at most 10,000, and 6 MB.
const BATCH: usize = 1_000;
/// Records that are archived before a function looks at its time again (`crates/lambda/src/limits.rs`).
const AT_ONCE: usize = 200;
const IN_FLIGHT: usize = 64;
const HANDLER: &str = "boto3 handler";
const OURS: &str = "Afterimage";
const BARE: &str = "bare generator, 64 in flight";

/// Runs all rounds, and prints the medians.
pub(crate) async fn run(beside: &Beside, folder: &Path, rounds: usize, records: usize) -> Result<()> {
    let servers = Servers::start(beside, folder)?;
    let mut lines = Lines::new(records, "record");
    for round in 1..=rounds {
        for side in [HANDLER, OURS, BARE] {
            let took = one_side(&servers, beside, side, round, records).await?;
            eprintln!("{}", lines.add(side, &took));
        }
    }
    lines.print(&format!("Archiving {records} deletions of 1 KB; S3: {}; medians of {rounds} rounds", servers.name()));
    let pairs = |a: Vec<f64>, b: Vec<f64>| a.into_iter().zip(b).collect::<Vec<_>>();
    println!(
        "client CPU beside the handler {:.3} (aim: at most 0.1); records/s beside the bare generator {:.2} (aim: at least 0.8), \
         beside the handler {:.2}",
        median_ratio(&pairs(lines.cpus(OURS), lines.cpus(HANDLER))),
        median_ratio(&pairs(lines.rates(OURS), lines.rates(BARE))),
        median_ratio(&pairs(lines.rates(OURS), lines.rates(HANDLER)))
    );
    Ok(())
}

/// One side of one round, into a bucket of its own.
async fn one_side(servers: &Servers, beside: &Beside, side: &str, round: usize, records: usize) -> Result<Took> {
    let tag = match side {
        HANDLER => "handler",
        OURS => "ours",
        _ => "bare",
    };
    let name = format!("archive-{tag}-{round}");
    servers.make_bucket(&name).await?;
    let job = Job { items: records, from_ms: SystemClock.now().0, ..servers.job("", &name, TABLE)? };
    write_batches(&job)?;
    let command = match side {
        HANDLER => job.handlers(&beside.python, "records.py", "archive", 1)?.remove(0),
        OURS => job.worker("archive")?,
        _ => job.worker("archive-bare")?,
    };
    let took = work(vec![servers.known_to(command)], &servers.ids())?;
    let there = work(vec![servers.known_to(job.worker("count")?)], &[])?.sum("objects");
    ensure!(there == records as f64, "{name}: {there} objects");
    Ok(took)
}

/// Where a job's events lie: one a line.
fn batches(job: &Job) -> PathBuf {
    job.folder.join("batches.jsonl")
}

fn write_batches(job: &Job) -> Result<()> {
    let mut file = BufWriter::new(File::create(batches(job))?);
    for first in (0..job.items).step_by(BATCH) {
        let records: Vec<Value> =
            (first..job.items.min(first + BATCH)).map(|n| removed(n, job.from_ms + n as i64)).collect();
        writeln!(file, "{}", json!({ "Records": records }))?;
    }
    Ok(file.flush()?)
}

/// The worker: what the function does with each event.
pub(crate) async fn ours(job: &Job) -> Result<()> {
    let requests = Arc::default();
    let s3 = Endpoint::of(&job.s3, &requests).await;
    let bucket = s3.bucket(&job.destination);
    let archive = Archive::new(TABLE, bucket.writer(), Arc::new(Counters::default()));
    let table = recorded()?;
    // A warm function has its connections, and knows what the store can do.
    archive.archive(&[read(&removed(0, job.from_ms), &table)?]).await.remove(0)?;
    requests.store(0, std::sync::atomic::Ordering::Relaxed);
    ready()?;
    let mut done = 0;
    for line in BufReader::new(File::open(batches(job))?).lines() {
        let event: Value = serde_json::from_str(&line?)?;
        let records = event["Records"].as_array().map(Vec::as_slice).unwrap_or_default();
        let read = records.iter().map(|record| read(record, &table)).collect::<Result<Vec<_>>>()?;
        for records in read.chunks(AT_ONCE) {
            for ended in archive.archive(records).await {
                ended?;
                done += 1;
            }
        }
    }
    answer(&json!({ "done": done, "requests": requests.load(std::sync::atomic::Ordering::Relaxed) }))
}

/// The worker that sends the same puts, and nothing else.
pub(crate) async fn bare(job: &Job) -> Result<()> {
    let keys = Keys { access: job.access.clone(), secret: job.secret.clone() };
    let client = Client::of(job.s3.trim_start_matches("http://").parse()?, &job.destination, &keys)?;
    let table = recorded()?;
    let puts = (0..job.items).map(|n| {
        let made = made(n, job.from_ms + n as i64, &table)?;
        let metadata = metadata(&made.record, &made.body);
        Ok((made.record.deletion.plain_name().to_string(), made.body, metadata))
    });
    let puts = puts.collect::<Result<Vec<_>>>()?;
    ready()?;
    stream::iter(&puts)
        .map(async |(name, body, metadata)| {
            let put = client.new_object(name, "application/json", metadata)?;
            client.send(put.body(Full::new(body.clone()).boxed())?).await.map(drop)
        })
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<Vec<()>>()
        .await?;
    answer(&json!({ "done": puts.len(), "requests": puts.len() }))
}
