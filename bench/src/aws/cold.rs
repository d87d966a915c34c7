//! From the start of a function's process to its first answer, TLS to both services included: the `replicator`, built as for
//! Lambda, beside a Python function with boto3 (`bench/baseline/cold.py`). Both are given the same S3 notification by the same
//! Runtime API, make a copy and a row of it, and read the key's rows. Each start is a new process; the files that it reads are
//! in the page cache, as nobody can promise of Lambda.

use super::job::{Job, source_key};
use super::runtime_api::{Start, first_answer};
use super::servers::{Beside, Servers};
use super::tls::Tls;
use crate::process::work;
use crate::stats::{Table, median, median_ratio, n2};
use anyhow::{Context, Result};
use bytes::Bytes;
use engine::clock::SystemClock;
use engine::ports::clock::Clock;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Starts of each side in a round.
const STARTS: usize = 5;
const BODY: usize = 4_096;
const SOURCE: &str = "documents";
const LIMIT_MB: f64 = 15.0;

/// Runs all rounds, and prints the medians.
pub(crate) async fn run(beside: &Beside, replicator: &Path, folder: &Path, rounds: usize) -> Result<()> {
    let replicator = replicator.canonicalize().with_context(|| {
        format!("{} is not there: `cargo build --profile lambda -p afterimage-lambda` makes it", replicator.display())
    })?;
    let servers = Servers::start(beside, folder)?;
    let bench = Bench::open(beside, replicator, folder, servers, rounds * STARTS).await?;
    let (mut ours, mut python) = (Vec::new(), Vec::new());
    for n in 0..=rounds * STARTS {
        let event = bench.event(n);
        let starts = (
            first_answer(bench.python(), event.clone()).await.context("the Python function")?,
            first_answer(bench.ours(), event).await.context("the replicator")?,
        );
        // The first start of each marks the destination, and compiles what Python reads.
        if n > 0 {
            python.push(starts.0);
            ours.push(starts.1);
        }
    }
    let mut table = Table::new(&["who", "until it asks for an event, ms", "until its first answer, ms", "slowest, ms"]);
    let ms = |starts: &[Start], what: fn(&Start) -> f64| starts.iter().map(what).collect::<Vec<f64>>();
    let asked = |start: &Start| start.asked.as_secs_f64() * 1e3;
    let answered = |start: &Start| start.answered.as_secs_f64() * 1e3;
    for (who, starts) in [("Python 3 with boto3", &python), ("replicator", &ours)] {
        let slowest = ms(starts, answered).into_iter().fold(0.0, f64::max);
        let cells = [median(&ms(starts, asked)), median(&ms(starts, answered)), slowest];
        table.row([vec![who.to_owned()], cells.map(n2).to_vec()].concat());
    }
    table.print(&format!(
        "From the start of the process to the first answer, TLS included, medians of {} starts",
        rounds * STARTS
    ));
    let pairs: Vec<(f64, f64)> = ms(&ours, answered).into_iter().zip(ms(&python, answered)).collect();
    let ratio = median_ratio(&pairs);
    println!("one of {:.1} of the Python function's time (aim: at least 20)", 1.0 / ratio);
    let size = fs::metadata(&bench.replicator)?.len() as f64 / 1e6;
    println!("the binary has {size:.1} MB (aim: under {LIMIT_MB:.0})");
    Ok(())
}

struct Bench {
    servers: Servers,
    tls: Tls,
    replicator: PathBuf,
    python: PathBuf,
    etag: String,
    /// What the Python function is told.
    job: Job,
    config: String,
}

impl Bench {
    async fn open(
        beside: &Beside,
        replicator: PathBuf,
        folder: &Path,
        servers: Servers,
        starts: usize,
    ) -> Result<Bench> {
        let source = servers.make_bucket(SOURCE).await?;
        for n in 0..=starts {
            source.put(source.signed_put(&source_key(n)), Bytes::from(vec![7u8; BODY])).await?;
        }
        let mut etag = None;
        for name in ["ours", "python"] {
            servers.make_bucket(name).await?;
            let prepare = servers.job(SOURCE, name, name)?.worker("prepare")?;
            let prepared = work(vec![servers.known_to(prepare)], &[])?;
            etag = prepared.answers[0]["etag"].as_str().map(str::to_owned);
        }
        let tls = Tls::new(folder)?;
        let s3 = format!("https://{}", tls.before(servers.s3_address()).await?);
        let dynamodb = format!("https://{}", tls.before(servers.dynamodb_address()?).await?);
        let config = format!(
            "default_policy = \"off\"\n[[service]]\nname = \"s3\"\nendpoint = \"{s3}\"\npath_style = true\n\
             [[service]]\nname = \"rows\"\nendpoint = \"{dynamodb}\"\n\
             [[policy]]\nname = \"bench\"\nsource = \"s3://s3@{SOURCE}\"\ndestination = \"s3://s3@ours\"\n\
             catalog = \"dynamodb://rows@ours\"\nkeep = 3\ngrace = \"30d\"\n"
        );
        let job = Job { s3, dynamodb, keep: 3, ..servers.job(SOURCE, "python", "python")? };
        let etag = etag.context("the source's objects have a tag")?;
        Ok(Bench { servers, tls, replicator, python: beside.python.clone(), etag, job, config })
    }

    /// The notification of the n-th object, which both get.
    fn event(&self, n: usize) -> String {
        let object =
            json!({ "key": source_key(n), "size": BODY, "eTag": self.etag, "sequencer": format!("{:016X}", n + 1) });
        let s3 = json!({ "bucket": { "name": SOURCE }, "object": object });
        let time = SystemClock.now().timestamp().to_string();
        json!({ "Records": [{
            "eventVersion": "2.1", "eventSource": "aws:s3", "eventTime": time, "eventName": "ObjectCreated:Put", "s3": s3,
        }] })
        .to_string()
    }

    fn ours(&self) -> Command {
        let mut command = self.function(&self.replicator);
        command.env("AFTERIMAGE_CONFIG", &self.config);
        command
    }

    fn python(&self) -> Command {
        let mut command = self.function(&self.python);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/baseline/cold.py"));
        command.env("JOB", serde_json::to_string(&self.job).unwrap_or_default());
        // What Python compiles is kept, as beside the packages of a function, but not among the sources.
        command.env("PYTHONPYCACHEPREFIX", self.job.folder.join("compiled"));
        command
    }

    fn function(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("AWS_LAMBDA_FUNCTION_NAME", "bench").env("AWS_LAMBDA_FUNCTION_VERSION", "1");
        command.env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256").env("AFTERIMAGE_LOG", "warn");
        // The one is rustls's, the other boto3's.
        command.env("SSL_CERT_FILE", &self.tls.trusted).env("AWS_CA_BUNDLE", &self.tls.trusted);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        self.servers.known_to(command)
    }
}
