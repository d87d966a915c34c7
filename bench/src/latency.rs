//! From PUT received to copy and row durable, at 200 puts/s of 4 KiB, beside the bare cost of the same durable steps at the
//! same load. Latency counts from when the put was due, until the last copy is there.

use crate::bare::Bare;
use crate::client::Client;
use crate::load::Pace;
use crate::rig::{Rig, SOURCE};
use crate::stats::{Latencies, Table, median, median_ratio, n2};
use anyhow::{Context, Result};
use bytes::Bytes;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const RATE: u32 = 200;
const BODY: usize = 4_096;

/// Pairs of rounds of so many puts each.
pub(crate) async fn run(folder: &Path, rounds: usize, puts: u32) -> Result<()> {
    let mut table =
        Table::new(&["round", "bare p50 ms", "bare p99 ms", "put→copy p50 ms", "put→copy p99 ms", "200 OK p50 ms"]);
    let (mut p50, mut p99) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let bare = bare(&folder.join(format!("bare-{round}")), puts).await?;
        let (ours, answered) = ours(&folder.join(format!("ours-{round}")), puts).await?;
        let cells = [&bare, &ours].map(|latencies| [latencies.percentile_ms(0.5), latencies.percentile_ms(0.99)]);
        p50.push((cells[1][0], cells[0][0]));
        p99.push((cells[1][1], cells[0][1]));
        let mut row = vec![(round + 1).to_string()];
        row.extend(cells.iter().flatten().map(|number| n2(*number)));
        row.push(n2(answered.percentile_ms(0.5)));
        table.row(row);
    }
    let medians = |pairs: &[(f64, f64)]| {
        let (ours, bare): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
        (median(&ours), median(&bare))
    };
    table.print(&format!("PUT to durable copy, {RATE}/s of {BODY} bytes, {puts} puts a round"));
    for (name, pairs, limit) in [("p50", &p50, 2.0), ("p99", &p99, 5.0)] {
        let (ours, bare) = medians(pairs);
        println!(
            "{name}: median {ours:.2} ms against {bare:.2} ms bare; ratio {:.2} (aim: at most {limit})",
            median_ratio(pairs)
        );
    }
    Ok(())
}

async fn bare(folder: &Path, puts: u32) -> Result<Latencies> {
    let bare = Arc::new(Bare::open(folder)?);
    let pace = Pace::per_second(RATE);
    let body = Arc::new(vec![7u8; BODY]);
    let mut tasks = Vec::new();
    for n in 0..puts {
        let due = pace.wait(n).await;
        let (bare, body) = (Arc::clone(&bare), Arc::clone(&body));
        tasks.push(tokio::task::spawn_blocking(move || -> Result<_> {
            bare.put_and_copy(&format!("object-{n:06}"), &body)?;
            Ok(now().duration_since(due))
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.push(task.await??);
    }
    Ok(Latencies::of(all))
}

async fn ours(folder: &Path, puts: u32) -> Result<(Latencies, Latencies)> {
    let mut rig = Rig::open(folder).await?;
    rig.start_driver();
    let client = Client::new(rig.start_endpoint().await?, SOURCE, &rig.credentials)?;
    let latencies = paced_puts(&mut rig, &client, "object", puts).await?;
    rig.stop().await?;
    Ok(latencies)
}

/// Puts new objects at the pace; how long each took until its copy's row was durable, and until it was answered.
pub(crate) async fn paced_puts(
    rig: &mut Rig,
    client: &Client,
    prefix: &str,
    puts: u32,
) -> Result<(Latencies, Latencies)> {
    let name = |n: u32| format!("{prefix}-{n:06}");
    let body = Bytes::from(vec![7u8; BODY]);
    let signed: Vec<String> = (0..puts).map(|n| client.signed_put(&name(n))).collect();
    let pace = Pace::per_second(RATE);
    let mut tasks = Vec::new();
    for (n, signed) in (0..puts).zip(signed) {
        let due = pace.wait(n).await;
        let (client, body) = (client.clone(), body.clone());
        tasks.push(tokio::spawn(async move {
            client.put(signed, body).await?;
            anyhow::Ok(now().duration_since(due))
        }));
    }
    let mut answered = Vec::new();
    for task in tasks {
        answered.push(task.await??);
    }
    let due: HashMap<String, Instant> = (0..puts).map(|n| (name(n), pace.due(n))).collect();
    let mut all = Vec::new();
    while all.len() < puts as usize {
        let (key, done) = rig.copies_done.recv().await.context("the driver stopped")?;
        if let Some(due) = due.get(key.as_str()) {
            all.push(done.duration_since(*due));
        }
    }
    Ok((Latencies::of(all), Latencies::of(answered)))
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
