//! Adapters for one machine: SQLite catalog, bucket store, event spool, journal, S3 endpoint, tables.

pub mod credentials;
pub mod endpoint;
mod io_error;
pub mod journal;
pub mod limits;
pub mod spool;
pub mod sqlite;
pub mod store;
#[cfg(feature = "dynamodb")]
pub mod tables;

/// The machine's clock and random numbers.
pub use engine::clock;
