//! Records of tables: archiving, packing, asking and putting back, each beside what it has to stand comparison with.

mod archive;
mod made;
mod pack;
mod program;
mod restore;
mod table;
mod year;

use crate::aws::job::Job;
use crate::aws::servers::Beside;
use anyhow::{Result, bail};
use clap::Subcommand;
use std::path::{Path, PathBuf};

const ARCHIVED: usize = 10_000;
const PACKED: usize = 1_000_000;
const OF_A_YEAR: usize = 10_000_000;
const RESTORED: usize = 5_000;
const RATES: [u32; 2] = [200, 500];

/// Benchmarks of records.
#[derive(Subcommand)]
pub(crate) enum Which {
    /// All of these, one after the other.
    Records {
        #[command(flatten)]
        beside: Beside,
    },
    /// Archiving deletions, beside a boto3 handler and a bare load generator.
    RecordsArchive {
        #[command(flatten)]
        beside: Beside,
        /// Deletions of one round.
        #[arg(long, default_value_t = ARCHIVED)]
        records: usize,
    },
    /// Packing a day that lies in a local folder, beside Python with pyarrow (`bench/baseline/requirements.txt`).
    RecordsPack {
        #[command(flatten)]
        beside: Beside,
        /// Records of the day.
        #[arg(long, default_value_t = PACKED)]
        records: usize,
    },
    /// A day's query and one record's look-up in a packed year, beside the same with that day alone.
    RecordsYear {
        #[command(flatten)]
        beside: Beside,
        /// Records of the year.
        #[arg(long, default_value_t = OF_A_YEAR)]
        records: usize,
    },
    /// Putting records back at a given rate.
    RecordsRestore {
        #[command(flatten)]
        beside: Beside,
        /// Records.
        #[arg(long, default_value_t = RESTORED)]
        records: usize,
        /// Records a second, as given to the command.
        #[arg(long, value_delimiter = ',', default_values_t = RATES)]
        rates: Vec<u32>,
    },
}

impl Which {
    /// Runs it.
    pub(crate) async fn run(self, folder: &Path, rounds: usize) -> Result<()> {
        match self {
            Which::Records { beside } => all(&beside, folder, rounds).await,
            Which::RecordsArchive { beside, records } => archive::run(&beside, folder, rounds, records).await,
            Which::RecordsPack { beside, records } => pack::run(&beside, folder, rounds, records).await,
            Which::RecordsYear { beside, records } => year::run(&beside, folder, rounds, records).await,
            Which::RecordsRestore { beside, records, rates } => {
                restore::run(&beside, folder, rounds, records, &rates).await
            }
        }
    }
}

/// Each on servers and in a folder of its own.
async fn all(beside: &Beside, folder: &Path, rounds: usize) -> Result<()> {
    let part = |name: &str| -> Result<PathBuf> {
        let part = folder.join(name);
        std::fs::create_dir(&part)?;
        Ok(part)
    };
    archive::run(beside, &part("archive")?, rounds, ARCHIVED).await?;
    restore::run(beside, &part("restore")?, rounds, RESTORED, &RATES).await?;
    year::run(beside, &part("year")?, rounds, OF_A_YEAR).await?;
    pack::run(beside, &part("pack")?, rounds, PACKED).await
}

/// A worker's work, by its name.
pub(crate) async fn worker(work: &str, job: &Job) -> Result<()> {
    match work {
        "archive" => archive::ours(job).await,
        "archive-bare" => archive::bare(job).await,
        "count" => table::count(job).await,
        "pack" => pack::ours(job).await,
        "orders-table" => table::make(job).await,
        _ => bail!("there is no worker called {work}"),
    }
}
