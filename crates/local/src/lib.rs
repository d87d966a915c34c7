//! Adapters for one machine: SQLite catalog, bucket store, event spool, journal, S3 endpoint.

pub mod store;
