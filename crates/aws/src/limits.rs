//! Every limit of this crate's loops, batches, sizes and retries, by name (I10).

use std::time::Duration;

/// Bytes of a message; SQS carries at most 1 MiB, EventBridge and SNS less.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Envelopes around a message: SQS around SNS around the event, and one to spare.
pub const ENVELOPES_MAX: usize = 3;
/// Tries of one call before its error is told.
pub const CALL_ATTEMPTS: u32 = 4;
/// How long a connection may take.
pub const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// How long the first byte of an answer may take.
pub const READ_WAIT: Duration = Duration::from_secs(60);
