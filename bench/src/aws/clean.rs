//! Cleaning due rows and their copies, beside the boto3 handler (`bench/baseline/handler.py`): how many requests each sends,
//! and how fast it is.

use super::job::Job;
use super::servers::{Beside, Servers};
use super::table::Lines;
use super::wiring::Wired;
use crate::process::{Took, answer, ready, work};
use crate::scale;
use crate::stats::{median, median_ratio};
use anyhow::{Result, ensure};
use bytes::Bytes;
use engine::clock::SystemClock;
use engine::flows::clean::clean;
use engine::ports::clock::Clock;
use futures_util::{StreamExt, TryStreamExt, stream};
use lifecycle::time::{SpanMs, UnixMs};
use serde_json::json;
use std::path::Path;
use tokio_util::sync::CancellationToken;

const IN_FLIGHT: usize = 32;
const SOURCE: &str = "documents";
/// Keys that are removed at one moment; a millisecond later the next ones are.
const KEYS_AT_ONCE: usize = 30;
const HANDLER: &str = "boto3 handler";
const OURS: &str = "Afterimage";

/// Runs all rounds, and prints the medians.
pub(crate) async fn run(beside: &Beside, folder: &Path, rounds: usize, due: usize) -> Result<()> {
    let servers = Servers::start(beside, folder)?;
    servers.make_bucket(SOURCE).await?;
    let mut lines = Lines::new(due, "row");
    for round in 1..=rounds {
        for side in [HANDLER, OURS] {
            let took = side_of(&servers, beside, side, round, due).await?;
            eprintln!("{}", lines.add(side, &took));
        }
    }
    lines.print(&format!(
        "Cleaning {due} due rows and their copies; S3: {}; medians of {rounds} rounds",
        servers.name()
    ));
    let pairs = |a: Vec<f64>, b: Vec<f64>| a.into_iter().zip(b).collect::<Vec<_>>();
    println!(
        "API calls: one for {:.1} of the handler's (aim: at least 35); rows/s beside the handler {:.1} (aim: at least 10)",
        median(&lines.requests(HANDLER)) / median(&lines.requests(OURS)),
        median_ratio(&pairs(lines.rates(OURS), lines.rates(HANDLER)))
    );
    Ok(())
}

async fn side_of(servers: &Servers, beside: &Beside, side: &str, round: usize, due: usize) -> Result<Took> {
    let name = format!("{}-{round}", if side == OURS { "ours" } else { "handler" });
    let bucket = servers.make_bucket(&name).await?;
    let from_ms = SystemClock.now().minus(SpanMs::hours(1)).0;
    let job = Job { items: due, keep: scale::ROWS_PER_KEY, from_ms, ..servers.job(SOURCE, &name, &name)? };
    work(vec![servers.known_to(job.worker("prepare")?)], &[])?;
    // The rows first: an empty bucket is marked as the policy's own.
    work(vec![servers.known_to(job.worker("disowned")?)], &[])?;
    let body = Bytes::from_static(b"a copy that is due");
    let copies = (0..due).map(|n| {
        let row = scale::row(n / scale::ROWS_PER_KEY, n % scale::ROWS_PER_KEY, UnixMs(from_ms));
        row.map(|(_, row)| bucket.signed_put(row.copy_key.as_str()))
    });
    let puts = stream::iter(copies).map_ok(|signed| bucket.put(signed, body.clone()));
    puts.try_buffer_unordered(IN_FLIGHT).try_collect::<Vec<()>>().await?;
    let commands = match side {
        OURS => vec![job.worker("clean")?],
        _ => job.handlers(&beside.python, "handler.py", "clean", 1)?,
    };
    let commands = commands.into_iter().map(|command| servers.known_to(command)).collect();
    let took = work(commands, &servers.ids())?;
    ensure!(took.sum("done") == due as f64, "rows left: {:?}", took.answers);
    let tally = work(vec![servers.known_to(job.worker("tally")?)], &[])?;
    let (copies, rows) = (tally.sum("copies"), tally.sum("rows"));
    ensure!(copies == 0.0 && rows < 4.0, "{name}: {copies} copies and {rows} rows are left");
    Ok(took)
}

/// A worker that fills the table with due rows.
pub(crate) async fn disowned(job: &Job) -> Result<()> {
    let wired = Wired::open(job).await?;
    ready()?;
    let (rows, at) = (scale::ROWS_PER_KEY, UnixMs(job.from_ms));
    stream::iter(0..job.items)
        .map(|n| scale::put_row(&wired.policy, n / rows, n % rows, at))
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<Vec<()>>()
        .await?;
    let keys = job.items.div_ceil(rows);
    for (moment, first) in (0..keys).step_by(KEYS_AT_ONCE).enumerate() {
        let at = UnixMs(job.from_ms + moment as i64);
        scale::disown(&wired.policy, first..(first + KEYS_AT_ONCE).min(keys), at).await?;
    }
    answer(&json!({ "done": job.items }))
}

/// The worker: one clean.
pub(crate) async fn ours(job: &Job) -> Result<()> {
    let wired = Wired::open(job).await?;
    ready()?;
    let report = clean(&wired.policy, &CancellationToken::new()).await?;
    ensure!(report.is_success(), "{report:?}");
    answer(&json!({ "done": report.counted("purged"), "requests": wired.requests() }))
}
