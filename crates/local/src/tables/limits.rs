//! Limits of the tables and of their endpoint, by name (I10).

use lifecycle::time::SpanMs;

/// Tables that there may be: the stream of each is followed.
pub const TABLES_MAX: usize = 256;
/// Calls that use the engine's threads at the same time; it carries them out one after the other.
pub const TABLE_CALLS: usize = 16;
/// Connections that the endpoint serves at the same time; further ones wait in the listener's backlog.
pub const TABLE_CONNECTIONS: usize = 256;
/// Bytes of a request's body: DynamoDB's own limit.
pub const TABLE_BODY_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of all bodies that are in memory at the same time: one is read whole before its signature is known to be right.
pub const TABLE_BODIES_BYTES: usize = 4 * TABLE_BODY_BYTES;
/// How far the time of a signature may lie from now, in either direction: AWS's own limit.
pub const SIGNATURE_AGE_MAX: SpanMs = SpanMs::minutes(15);
/// How long after one sweep for records whose time to live is over the next one begins.
pub const TTL_SWEEP_EVERY: SpanMs = SpanMs::seconds(10);
/// A sweep reads every record of tables with a time to live: it may take one part in so many of the time.
pub const TTL_SWEEP_SHARE: u64 = 20;
/// How long a stream keeps records that are read: DynamoDB's own limit.
pub const STREAM_KEPT: SpanMs = SpanMs::hours(24);
/// Records of streams that one transaction forgets.
pub const STREAM_FORGET_PAGE: usize = 1_000;
