//! Putting many records back at a given rate, by the real program: how near it comes to that rate.

use super::made::{SERVICE, TABLE, made, recorded};
use super::program::Program;
use crate::aws::servers::{Beside, Servers};
use crate::process::work;
use crate::stats::{Table, median};
use anyhow::{Result, ensure};
use engine::format::archived::metadata;
use futures_util::{StreamExt, TryStreamExt, stream};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use std::path::Path;

const BUCKET: &str = "archive";
const IN_FLIGHT: usize = 32;
/// 2026-06-15, noon.
const AT: i64 = 1_781_524_800_000;

/// Archives the records, puts them back at each rate, and prints the medians.
pub(crate) async fn run(beside: &Beside, folder: &Path, rounds: usize, records: usize, rates: &[u32]) -> Result<()> {
    let servers = Servers::start(beside, folder)?;
    let bucket = servers.make_bucket(BUCKET).await?;
    let table = recorded()?;
    stream::iter(0..records)
        .map(async |n| {
            let made = made(n, AT, &table)?;
            let metadata = metadata(&made.record, &made.body);
            let name = made.record.deletion.plain_name();
            let put = bucket.new_object(name.as_str(), "application/json", &metadata)?;
            bucket.send(put.body(Full::new(made.body).boxed())?).await.map(drop)
        })
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<Vec<()>>()
        .await?;
    let program = Program::new(beside, &servers, folder)?;
    let archive = program.with_archive(BUCKET)?;
    let mut table = Table::new(&["rate given", "records/s", "share of it", "client CPU, µs each"]);
    for rate in rates {
        let (mut reached, mut cpus) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let into = format!("into-{rate}-{round}");
            let job = servers.job("", &format!("restore-{into}"), &into)?;
            work(vec![servers.known_to(job.worker("orders-table")?)], &[])?;
            let (to, given) = (format!("dynamodb://db@{into}"), rate.to_string());
            let (from, rate_given) = ("2026-06-15", ["--rate", &given]);
            let words = ["archive", "restore", SERVICE, "--from", from, "--to", from, "--to-table", &to, "--json"];
            let (ran, out) = archive.ran(&[&words[..], &rate_given[..]].concat())?;
            let report: Value = serde_json::from_str(&out)?;
            ensure!(report["reports"][0]["counts"]["restored"] == records, "{TABLE}: {out}");
            reached.push(records as f64 / ran.seconds);
            cpus.push(ran.cpu_seconds * 1e6 / records as f64);
        }
        let share = median(&reached) / f64::from(*rate);
        table.row(vec![
            rate.to_string(),
            format!("{:.0}", median(&reached)),
            format!("{share:.2}"),
            format!("{:.0}", median(&cpus)),
        ]);
    }
    table.print(&format!(
        "Putting {records} records back, from start to end of the command; medians of {rounds} rounds"
    ));
    println!("aim: at least 0.9 of the rate that it is given");
    Ok(())
}
