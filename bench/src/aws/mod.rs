//! The AWS side: the same engine over S3 and DynamoDB, beside what a decent engineer would write with boto3, on servers that
//! run on this machine. Clients and servers are processes of their own, so that each one's CPU can be told.

mod clean;
mod drain;
mod fed;
mod garage;
mod job;
mod plain;
mod servers;
mod setup;
mod table;
mod wiring;

use anyhow::{Result, bail};
use clap::Subcommand;
use job::Job;
use servers::Beside;
use std::path::{Path, PathBuf};

/// Benchmarks of the AWS side.
#[derive(Subcommand)]
pub(crate) enum Which {
    /// Draining created events over S3 and DynamoDB, beside a boto3 handler and a bare load generator.
    AwsDrain {
        #[command(flatten)]
        beside: Beside,
        /// Events of one round, five of each key.
        #[arg(long, default_value_t = 10_000)]
        events: usize,
    },
    /// Cleaning due rows and copies, beside a boto3 handler.
    AwsClean {
        #[command(flatten)]
        beside: Beside,
        /// Due rows of one round.
        #[arg(long, default_value_t = 10_000)]
        due: usize,
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
}

impl Which {
    /// Runs it.
    pub(crate) async fn run(self, folder: &Path, rounds: usize) -> Result<()> {
        match self {
            Which::AwsDrain { beside, events } => drain::run(&beside, folder, rounds, events).await,
            Which::AwsClean { beside, due } => clean::run(&beside, folder, rounds, due).await,
        }
    }
}

impl Helper {
    /// Runs it, in the folder that its job names.
    pub(crate) async fn run(self) -> Result<()> {
        match self {
            Helper::Worker { work, job } => worker(&work, &serde_json::from_str(&job)?).await,
            Helper::Dynamodb { file } => servers::serve_dynamodb(&file).await,
        }
    }
}

async fn worker(work: &str, job: &Job) -> Result<()> {
    match work {
        "prepare" => setup::prepare(job).await,
        "tally" => setup::tally(job).await,
        "drain" => drain::ours(job).await,
        "drain-bare" => plain::drain(job).await,
        "disowned" => clean::disowned(job).await,
        "clean" => clean::ours(job).await,
        _ => bail!("there is no worker called {work}"),
    }
}
