//! Draining created events through S3 and DynamoDB (copy, row, settle with pruning), beside a plain boto3 handler as one and
//! as eight warm functions (`bench/baseline/handler.py`), and beside a bare load generator that sends the handler's calls
//! without any logic: what the two servers can do at most on this machine. All processes share its cores.

use super::fed::Fed;
use super::job::{Job, source_key};
use super::servers::{Beside, Servers};
use super::table::Lines;
use super::wiring::Wired;
use crate::process::{Took, answer, ready, work};
use crate::stats::median_ratio;
use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use engine::clock::SystemClock;
use engine::driver::{Driver, Policies};
use engine::ports::clock::Clock;
use engine::ports::metrics::Counters;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

const EVENTS_PER_KEY: usize = 5;
const KEEP: usize = 3;
const BODY: usize = 4_096;
const IN_FLIGHT: usize = 32;
const SOURCE: &str = "documents";
/// How long ago the first event happened.
const AGE_MS: i64 = 3_600_000;
/// As many warm functions as compared with.
const MANY: usize = 8;

/// Runs all rounds, and prints the medians.
pub(crate) async fn run(beside: &Beside, folder: &Path, rounds: usize, events: usize) -> Result<()> {
    let servers = Servers::start(beside, folder)?;
    let keys = events / EVENTS_PER_KEY;
    let source = servers.make_bucket(SOURCE).await?;
    let body = Bytes::from(vec![7u8; BODY]);
    stream::iter(0..keys)
        .map(|n| source.put(source.signed_put(&source_key(n)), body.clone()))
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<Vec<()>>()
        .await?;
    let mut lines = Lines::new(events, "event");
    let bench = Bench { servers, beside, events, keys };
    let sides = [Side::Handler(1), Side::Handler(MANY), Side::Ours, Side::Bare];
    for round in 1..=rounds {
        for side in sides {
            let took = bench.side(side, round).await?;
            eprintln!("{}", lines.add(side.name(), &took));
        }
    }
    lines.print(&format!(
        "Draining {events} created events over {keys} keys of {BODY} bytes, keep {KEEP}; S3: {}; medians of {rounds} rounds",
        bench.servers.name()
    ));
    let (ours, one, many) = (Side::Ours.name(), Side::Handler(1).name(), Side::Handler(MANY).name());
    let best: Vec<f64> = lines.rates(one).iter().zip(lines.rates(many)).map(|(a, b)| a.max(b)).collect();
    let cheapest: Vec<f64> = lines.cpus(one).iter().zip(lines.cpus(many)).map(|(a, b)| a.min(b)).collect();
    let pairs = |ours: Vec<f64>, theirs: Vec<f64>| ours.into_iter().zip(theirs).collect::<Vec<_>>();
    println!(
        "Afterimage beside the handler at its best: client CPU {:.3} (aim: at most 0.1), events/s {:.2} (aim: at least 4, or \
         the servers saturated); events/s beside the bare generator {:.2}",
        median_ratio(&pairs(lines.cpus(ours), cheapest)),
        median_ratio(&pairs(lines.rates(ours), best)),
        median_ratio(&pairs(lines.rates(ours), lines.rates(Side::Bare.name())))
    );
    Ok(())
}

#[derive(Clone, Copy)]
enum Side {
    /// So many warm functions.
    Handler(usize),
    Ours,
    Bare,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Side::Handler(1) => "boto3 handler, 1 process",
            Side::Handler(_) => "boto3 handler, 8 processes",
            Side::Ours => "Afterimage",
            Side::Bare => "bare generator, 64 in flight",
        }
    }

    fn tag(self) -> String {
        match self {
            Side::Handler(workers) => format!("handler-{workers}"),
            Side::Ours => "ours".to_owned(),
            Side::Bare => "bare".to_owned(),
        }
    }
}

struct Bench<'a> {
    servers: Servers,
    beside: &'a Beside,
    events: usize,
    keys: usize,
}

impl Bench<'_> {
    /// One side of one round, into a bucket and a table of its own.
    async fn side(&self, side: Side, round: usize) -> Result<Took> {
        let name = format!("{}-{round}", side.tag());
        self.servers.make_bucket(&name).await?;
        let mut job = Job {
            items: self.events,
            keys: self.keys,
            keep: KEEP,
            size: BODY as u64,
            from_ms: SystemClock.now().0 - AGE_MS,
            ..self.servers.job(SOURCE, &name, &name)?
        };
        let prepared = work(vec![self.servers.known_to(job.worker("prepare")?)], &[])?;
        let Some(etag) = prepared.answers[0]["etag"].as_str() else { bail!("no tag: {:?}", prepared.answers) };
        job.etag = etag.to_owned();
        let commands: Vec<Command> = match side {
            Side::Handler(workers) => job.handlers(&self.beside.python, "handler.py", "drain", workers)?,
            Side::Ours => vec![job.worker("drain")?],
            Side::Bare => vec![job.worker("drain-bare")?],
        };
        let commands = commands.into_iter().map(|command| self.servers.known_to(command)).collect();
        let took = work(commands, &self.servers.ids())?;
        ensure!(took.sum("done") == self.events as f64, "events left: {:?}", took.answers);
        let tally = work(vec![self.servers.known_to(job.worker("tally")?)], &[])?;
        let (copies, rows) = (tally.sum("copies"), tally.sum("rows"));
        let expected = (self.keys * KEEP) as f64;
        // Besides rows the table holds the policy's state.
        ensure!(
            copies == expected && (expected..expected + 4.0).contains(&rows),
            "{name}: {copies} copies, {rows} rows"
        );
        Ok(took)
    }
}

/// The worker: the engine's driver until every event is answered.
pub(crate) async fn ours(job: &Job) -> Result<()> {
    let wired = Wired::open(job).await?;
    let policies = Policies::default();
    policies.put(wired.policy.clone());
    let queue = Arc::new(Fed::of(job)?);
    let driver = Driver {
        queue: queue.clone(),
        policies,
        clock: wired.policy.clock.clone(),
        nonces: wired.policy.nonces.clone(),
        metrics: Arc::new(Counters::default()),
    };
    ready()?;
    driver.run(&queue.over).await?;
    if let Some(why) = queue.failure() {
        bail!("an event failed: {why}");
    }
    answer(&json!({ "done": job.items, "requests": wired.requests() }))
}
