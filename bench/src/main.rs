//! Side-by-side benchmarks: `cargo run --release -p afterimage-bench -- <which>`.
//!
//! Machines are noisy: what is compared runs in one command, in interleaved pairs, and ratios are medians over pairs.
//! Both sides of a pair have the same durability. The figures of a run stand in `docs/benchmarks.md`.

mod aws;
mod backfill;
mod bare;
mod client;
mod drain;
mod latency;
mod load;
mod memory;
mod process;
mod records;
mod rig;
mod scale;
mod serving;
mod stats;
mod throughput;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use tokio::runtime::Builder;

/// Benchmarks of Afterimage on one machine.
#[derive(Parser)]
struct Args {
    /// Where the files go (a folder on the disk to measure); removed at the end.
    #[arg(long, default_value = "target/bench", global = true)]
    folder: PathBuf,
    /// Pairs of rounds.
    #[arg(long, default_value_t = 9, global = true)]
    rounds: usize,
    #[command(subcommand)]
    which: Which,
}

#[derive(Subcommand)]
enum Which {
    /// From PUT received to copy and row durable, beside the bare durable steps.
    Latency {
        /// Puts of one round.
        #[arg(long, default_value_t = 1_000)]
        puts: u32,
    },
    /// Draining a spool of events, beside a plain Python loop.
    Drain {
        /// Events of one round.
        #[arg(long, default_value_t = 20_000)]
        events: usize,
    },
    /// Puts until all copies are durable, beside the same puts without a policy.
    Throughput {
        /// Puts of one round.
        #[arg(long, default_value_t = 3_000)]
        puts: usize,
    },
    /// Settling and cleaning one item with 10,000 and with 1,000,000 rows.
    Scale {
        /// Rows in the catalog, smallest first.
        #[arg(long, value_delimiter = ',', default_values_t = [10_000, 1_000_000])]
        rows: Vec<usize>,
    },
    /// Cleaning 100,000 due copies in one go while puts arrive.
    Clean {
        /// Due copies.
        #[arg(long, default_value_t = 100_000)]
        due: usize,
        /// Puts before, and puts meanwhile.
        #[arg(long, default_value_t = 2_000)]
        puts: u32,
    },
    /// Back-filling a bucket with catalog rows, beside s5cmd and rclone copying it without.
    Backfill {
        /// The program.
        #[arg(long, default_value = "target/release/afterimage")]
        program: PathBuf,
        /// The folder with `s5cmd` and `rclone`.
        #[arg(long, default_value = "target/venv/bin")]
        clients: PathBuf,
        /// Objects of 4 KiB.
        #[arg(long, default_value_t = 10_000)]
        objects: usize,
    },
    /// Resident memory of the real process with many objects, and while one large object goes in, is copied, and comes out.
    Memory {
        /// The program.
        #[arg(long, default_value = "target/release/afterimage")]
        program: PathBuf,
        /// Objects of 100 bytes.
        #[arg(long, default_value_t = 1_000_000)]
        objects: usize,
        /// Size of the large object.
        #[arg(long, default_value_t = 5)]
        gib: usize,
    },
    #[command(flatten)]
    Aws(aws::Which),
    #[command(flatten)]
    Records(records::Which),
    #[command(flatten)]
    Helper(aws::Helper),
}

fn main() -> Result<()> {
    let args = Args::parse();
    match args.which {
        // Workers have one thread, as functions and commands that wait for stores have.
        Which::Helper(helper) => Builder::new_current_thread().enable_all().build()?.block_on(helper.run()),
        _ => Builder::new_multi_thread().enable_all().build()?.block_on(benchmark(args)),
    }
}

async fn benchmark(args: Args) -> Result<()> {
    std::fs::create_dir_all(&args.folder).with_context(|| format!("create {}", args.folder.display()))?;
    let folder = tempfile::tempdir_in(&args.folder)?;
    let path = folder.path();
    match args.which {
        Which::Latency { puts } => latency::run(path, args.rounds, puts).await,
        Which::Drain { events } => drain::run(path, args.rounds, events).await,
        Which::Throughput { puts } => throughput::run(path, args.rounds, puts).await,
        Which::Scale { rows } => scale::per_item(path, &rows).await,
        Which::Memory { program, objects, gib } => memory::run(&program, path, objects, gib).await,
        Which::Backfill { program, clients, objects } => {
            backfill::run(&program, &clients, path, args.rounds, objects).await
        }
        Which::Aws(which) => which.run(path, args.rounds).await,
        Which::Records(which) => which.run(path, args.rounds).await,
        // Ran above, without a folder of its own.
        Which::Helper(helper) => helper.run().await,
        Which::Clean { due, puts } => scale::clean_under_load(path, due, puts).await,
    }
}
