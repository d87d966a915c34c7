//! Adapters for one machine: SQLite catalog, bucket store, event spool, journal, S3 endpoint.

pub mod clock;
pub mod credentials;
pub mod endpoint;
pub mod limits;
pub mod sqlite;
pub mod store;
