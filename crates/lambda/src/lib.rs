//! Entry points for AWS Lambda. Three functions, one code: `replicator` takes object events, `cleaner` a schedule, `records` the
//! stream of a table.
//!
//! Place: around the engine's flows, which are the same as the daemon's. What is made once is kept for the next invocation of
//! a warm function: configuration, clients, catalogs. A function ends before its time limit, always (`time_limit.rs`): what is
//! not done is answered as not done, or goes on from a checkpoint. Being killed at any point leaves what a crash leaves.
//! `docs/lambda.md` has the use of it.

mod batch;
mod checkpoints;
mod cleaner;
mod environment;
mod failure;
mod failures;
mod journal;
mod limits;
mod messages;
mod metrics;
mod parameter;
mod records;
mod replicator;
mod runtime;
mod settings;
mod time_limit;
mod warm;

pub use runtime::{Function, start};
