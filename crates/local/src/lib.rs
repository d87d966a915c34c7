//! Adapters for one machine: SQLite catalog, bucket store, event spool, journal, S3 endpoint, tables, a feed's file.

pub mod credentials;
pub mod endpoint;
pub mod feed_file;
mod io_error;
pub mod journal;
pub mod limits;
mod places;
pub mod secret_file;
pub mod spool;
pub mod sqlite;
pub mod store;
#[cfg(feature = "dynamodb")]
pub mod tables;

/// The machine's clock and random numbers.
pub use engine::clock;
