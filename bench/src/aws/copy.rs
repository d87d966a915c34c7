//! Copying one large object in parts inside the S3 server, through the copier, beside the same requests (UploadPartCopy, as
//! many side by side) in a bare loop: the server's own speed.

use super::job::Job;
use super::servers::{Beside, Servers};
use super::wiring::Endpoint;
use crate::client::{Client, Keys};
use crate::process::{answer, ready, work};
use crate::stats::{Table, median, median_ratio, n2};
use anyhow::{Context, Result, ensure};
use aws::CopySizes;
use aws::limits::PARTS_IN_FLIGHT;
use bytes::Bytes;
use engine::ports::objects::{Copied, CopyRequest, Onto};
use futures_util::{StreamExt, TryStreamExt, stream};
use lifecycle::ids::ObjectKey;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const PIECE: usize = 1024 * 1024;
const PIECES_OF_A_GIB: usize = 1024;
const SOURCE: &str = "documents";
const COPIES: &str = "copies";
const LARGE: &str = "large";

/// Runs all rounds, and prints the medians.
pub(crate) async fn run(beside: &Beside, folder: &Path, rounds: usize, gib: usize) -> Result<()> {
    let servers = Servers::start(beside, folder)?;
    let source = servers.make_bucket(SOURCE).await?;
    let copies = servers.make_bucket(COPIES).await?;
    source.put_pieces(LARGE, Bytes::from(vec![7u8; PIECE]), PIECES_OF_A_GIB * gib).await?;
    let bytes = (PIECE * PIECES_OF_A_GIB * gib) as u64;
    let job = Job { items: 1, size: bytes, part: aws::limits::COPY_PART_BYTES, ..servers.job(SOURCE, COPIES, "none")? };
    let sides = [("copy", "Afterimage"), ("copy-bare", "bare loop")];
    let mut seconds: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut table =
        Table::new(&["round", "Afterimage, s", "bare loop, s", "ratio", "Afterimage's CPU, ms", "its memory, MiB"]);
    for round in 1..=rounds {
        let mut cells = vec![round.to_string()];
        let (mut cpu, mut memory) = (0.0, 0);
        // Who is first changes with every round: what one leaves in the page cache, the other finds.
        let order = if round % 2 == 1 { [0, 1] } else { [1, 0] };
        for (work_name, who) in order.map(|n| sides[n]) {
            let took = work(vec![servers.known_to(job.worker(work_name)?)], &servers.ids())?;
            copies.delete(LARGE).await?;
            eprintln!("{who}: {:.2} s", took.seconds);
            seconds.entry(work_name).or_default().push(took.seconds);
            if work_name == "copy" {
                (cpu, memory) = (took.client_cpu * 1e3, took.peak_mib);
            }
        }
        let last = |name: &str| seconds.get(name).and_then(|all| all.last()).copied().unwrap_or(f64::NAN);
        let (ours, bare) = (last("copy"), last("copy-bare"));
        cells.extend([ours, bare, ours / bare, cpu].map(n2));
        cells.push(memory.to_string());
        table.row(cells);
    }
    table.print(&format!(
        "Copying an object of {gib} GiB in parts of {} MiB, {PARTS_IN_FLIGHT} at a time; S3: {}",
        job.part >> 20,
        servers.name()
    ));
    let of = |name: &str| seconds.get(name).cloned().unwrap_or_default();
    let pairs: Vec<(f64, f64)> = of("copy").into_iter().zip(of("copy-bare")).collect();
    println!(
        "median {:.2} s against {:.2} s; time beside the server's own {:.2} (aim: at most 1.1)",
        median(&of("copy")),
        median(&of("copy-bare")),
        median_ratio(&pairs)
    );
    Ok(())
}

/// The worker: the adapter's copier.
pub(crate) async fn ours(job: &Job) -> Result<()> {
    let requests = Arc::default();
    let s3 = Endpoint::of(&job.s3, &requests).await;
    let source = s3.bucket(&job.source);
    let sizes = CopySizes { single_max: job.part, part: job.part };
    let copier = s3.bucket(&job.destination).copying_by(sizes).copier(&source).context("both are of one service")?;
    let key = ObjectKey::new(LARGE)?;
    let head = source.reader().head(&key, None).await?.context("the object is there")?;
    ready()?;
    let request = CopyRequest {
        from: key.clone(),
        version: head.version,
        to: key,
        onto: Onto::Anything,
        add_metadata: BTreeMap::new(),
        seen: None,
    };
    let copied = copier.copy(&request).await?;
    ensure!(matches!(&copied, Copied::Done(there) if there.version.size == job.size), "{copied:?}");
    answer(&json!({ "done": 1 }))
}

/// The worker: the requests alone.
pub(crate) async fn bare(job: &Job) -> Result<()> {
    let keys = Keys { access: job.access.clone(), secret: job.secret.clone() };
    let address = job.s3.trim_start_matches("http://").parse()?;
    let client = Client::of(address, &job.destination, &keys)?;
    let from = format!("{}/{LARGE}", job.source);
    ready()?;
    let upload = client.begin_upload(LARGE).await?;
    let ranges = (0..job.size.div_ceil(job.part)).map(|n| (n * job.part, job.size.min((n + 1) * job.part) - 1));
    let parts = stream::iter(ranges.enumerate())
        .map(|(n, (first, last))| client.copy_part(LARGE, &upload, n + 1, &from, first, last))
        .buffered(PARTS_IN_FLIGHT)
        .try_collect::<Vec<String>>()
        .await?;
    client.complete_upload(LARGE, &upload, &parts).await?;
    answer(&json!({ "done": 1 }))
}
