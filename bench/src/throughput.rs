//! Puts through the endpoint until all their copies are durable, beside the same puts into a bucket without a policy.

use crate::client::Client;
use crate::latency::now;
use crate::rig::{Rig, SOURCE};
use crate::stats::{Table, median_ratio, n2};
use anyhow::{Result, ensure};
use bytes::Bytes;
use engine::ports::catalog::CatalogRead;
use futures_util::{StreamExt, TryStreamExt, stream};
use std::path::Path;

const BODY: usize = 4_096;
const IN_FLIGHT: usize = 32;

/// Pairs of rounds of so many puts each.
pub(crate) async fn run(folder: &Path, rounds: usize, puts: usize) -> Result<()> {
    let mut table = Table::new(&["round", "no policy puts/s", "with copies puts/s", "ratio"]);
    let mut pairs = Vec::new();
    for round in 0..rounds {
        let plain = puts as f64 / round_of(&folder.join(format!("plain-{round}")), puts, false).await?;
        let copied = puts as f64 / round_of(&folder.join(format!("copied-{round}")), puts, true).await?;
        pairs.push((copied, plain));
        table.row(vec![(round + 1).to_string(), n2(plain), n2(copied), n2(copied / plain)]);
    }
    table.print(&format!("{puts} puts of {BODY} bytes, {IN_FLIGHT} at a time, until all is durable"));
    println!("median ratio {:.2} (aim: at least 0.5)", median_ratio(&pairs));
    Ok(())
}

async fn round_of(folder: &Path, puts: usize, with_policy: bool) -> Result<f64> {
    let mut rig = Rig::open(folder).await?;
    if !with_policy {
        rig.policies.remove(&rig.policy().name);
    }
    rig.start_driver();
    let client = Client::new(rig.start_endpoint().await?, SOURCE, &rig.credentials)?;
    let signed: Vec<String> = (0..puts).map(|n| client.signed_put(&format!("object-{n:06}"))).collect();
    let body = Bytes::from(vec![7u8; BODY]);
    let started = now();
    stream::iter(signed)
        .map(|signed| client.put(signed, body.clone()))
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<Vec<()>>()
        .await?;
    if with_policy {
        rig.drained().await?;
    }
    let seconds = started.elapsed().as_secs_f64();
    if with_policy {
        let totals = rig.catalog.totals().await?;
        ensure!(totals.active == puts as u64, "unexpected end state: {totals:?}");
    }
    rig.stop().await?;
    Ok(seconds)
}
