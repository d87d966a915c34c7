//! The AWS side: the same engine over S3 and DynamoDB, beside what a decent engineer would write with boto3, on servers that
//! run on this machine. Clients and servers are processes of their own, so that each one's CPU can be told.

mod clean;
mod cold;
mod copy;
mod drain;
mod fed;
mod garage;
pub(crate) mod job;
mod list;
mod plain;
mod runtime_api;
pub(crate) mod servers;
pub(crate) mod setup;
pub(crate) mod table;
mod tls;
pub(crate) mod wiring;

use anyhow::Result;
use clap::Subcommand;
use job::Job;
use servers::Beside;
use std::path::{Path, PathBuf};

/// Objects that are listed before many are.
const LIST_FEW: usize = 10_000;
/// Objects that are listed.
const LIST_ALL: usize = 1_000_000;
/// Events, due rows, and objects of a round.
const ITEMS: usize = 10_000;
/// Size of the large object.
const GIB: usize = 5;
/// The function, where cargo puts it.
const REPLICATOR: &str = "target/lambda/replicator";

/// Benchmarks of the AWS side.
#[derive(Subcommand)]
pub(crate) enum Which {
    /// All of these, and back-filling: the benchmark table, from one command.
    Aws {
        #[command(flatten)]
        beside: Beside,
        /// The function, built as for Lambda.
        #[arg(long, default_value = REPLICATOR)]
        replicator: PathBuf,
        /// The folder with `s5cmd` and `rclone`.
        #[arg(long, default_value = "target/venv/bin")]
        clients: PathBuf,
    },
    /// Draining created events over S3 and DynamoDB, beside a boto3 handler and a bare load generator.
    AwsDrain {
        #[command(flatten)]
        beside: Beside,
        /// Events of one round, five of each key.
        #[arg(long, default_value_t = ITEMS)]
        events: usize,
    },
    /// Cleaning due rows and copies, beside a boto3 handler.
    AwsClean {
        #[command(flatten)]
        beside: Beside,
        /// Due rows of one round.
        #[arg(long, default_value_t = ITEMS)]
        due: usize,
    },
    /// Copying one large object in parts inside the S3 server, beside the same requests in a bare loop.
    AwsCopy {
        #[command(flatten)]
        beside: Beside,
        /// Size of the object.
        #[arg(long, default_value_t = GIB)]
        gib: usize,
    },
    /// Memory while many objects are listed.
    AwsList {
        /// Objects, of which ten thousand are listed before all of them.
        #[arg(long, default_value_t = LIST_ALL)]
        objects: usize,
    },
    /// From the start of a function's process to its first answer, beside a Python function with boto3.
    ColdStart {
        #[command(flatten)]
        beside: Beside,
        /// The function, built as for Lambda.
        #[arg(long, default_value = REPLICATOR)]
        replicator: PathBuf,
    },
}

/// Processes that benchmarks start.
#[derive(Subcommand)]
pub(crate) enum Helper {
    /// A worker of a benchmark.
    #[command(hide = true)]
    Worker {
        /// What it does.
        work: String,
        /// The job, as JSON.
        job: String,
    },
    /// The DynamoDB engine.
    #[command(hide = true)]
    Dynamodb {
        /// Its file.
        file: PathBuf,
    },
    /// A server that makes up listings.
    #[command(hide = true)]
    Listing {
        /// So many objects.
        objects: usize,
    },
}

impl Which {
    /// Runs it.
    pub(crate) async fn run(self, folder: &Path, rounds: usize) -> Result<()> {
        match self {
            Which::Aws { beside, replicator, clients } => all(&beside, &replicator, &clients, folder, rounds).await,
            Which::AwsDrain { beside, events } => drain::run(&beside, folder, rounds, events).await,
            Which::AwsClean { beside, due } => clean::run(&beside, folder, rounds, due).await,
            Which::AwsCopy { beside, gib } => copy::run(&beside, folder, rounds, gib).await,
            Which::AwsList { objects } => list::run(folder, LIST_FEW, objects),
            Which::ColdStart { beside, replicator } => cold::run(&beside, &replicator, folder, rounds).await,
        }
    }
}

impl Helper {
    /// Runs it, in the folder that its job names.
    pub(crate) async fn run(self) -> Result<()> {
        match self {
            Helper::Worker { work, job } => worker(&work, &serde_json::from_str(&job)?).await,
            Helper::Dynamodb { file } => servers::serve_dynamodb(&file).await,
            Helper::Listing { objects } => list::serve(objects).await,
        }
    }
}

/// One after the other, each on servers and in a folder of its own.
async fn all(beside: &Beside, replicator: &Path, clients: &Path, folder: &Path, rounds: usize) -> Result<()> {
    let part = |name: &str| -> Result<PathBuf> {
        let part = folder.join(name);
        std::fs::create_dir(&part)?;
        Ok(part)
    };
    drain::run(beside, &part("drain")?, rounds, ITEMS).await?;
    clean::run(beside, &part("clean")?, rounds, ITEMS).await?;
    copy::run(beside, &part("copy")?, rounds, GIB).await?;
    list::run(&part("list")?, LIST_FEW, LIST_ALL)?;
    cold::run(beside, replicator, &part("cold")?, rounds).await?;
    crate::backfill::run(&beside.program, clients, &part("backfill")?, rounds, ITEMS).await
}

async fn worker(work: &str, job: &Job) -> Result<()> {
    match work {
        "prepare" => setup::prepare(job).await,
        "tally" => setup::tally(job).await,
        "drain" => drain::ours(job).await,
        "drain-bare" => plain::drain(job).await,
        "disowned" => clean::disowned(job).await,
        "clean" => clean::ours(job).await,
        "copy" => copy::ours(job).await,
        "copy-bare" => copy::bare(job).await,
        "list" => list::ours(job).await,
        _ => crate::records::worker(work, job).await,
    }
}
