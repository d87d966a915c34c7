//! Every limit of this crate's loops, batches, sizes and retries, by name (I10).

use lifecycle::time::SpanMs;
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
/// How long a copy, or the joining of an upload, may take to be answered.
pub const COPY_WAIT: Duration = Duration::from_secs(15 * 60);
/// The largest object that one CopyObject copies (S3 user guide, "Copying objects").
pub const SINGLE_COPY_BYTES_MAX: u64 = 5 * 1024 * 1024 * 1024;
/// The usual size of a copied part.
pub const COPY_PART_BYTES: u64 = 256 * 1024 * 1024;
/// The usual size of a part that goes through this process.
pub const PART_BYTES: u64 = 8 * 1024 * 1024;
/// How many parts of a body of unknown length have the same size, until it is doubled.
pub const PARTS_OF_ONE_SIZE: u64 = 1_000;
/// The largest part of a body of unknown length: two of them are in memory.
pub const WRITE_PART_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// The largest part of a body of known length, of which two are in memory: 10,000 of them are 2.4 TiB.
pub const SENT_PART_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Parts of an upload.
pub const PARTS_MAX: u64 = 10_000;
/// Parts that are copied at the same time.
pub const PARTS_IN_FLIGHT: usize = 16;
/// Objects of one page of a listing.
pub const LIST_MAX: usize = 1_000;
/// Objects of one request to delete.
pub const DELETE_MAX: usize = 1_000;
/// Objects that are deleted one by one at the same time.
pub const PURGES_IN_FLIGHT: usize = 16;
/// Pages of versions of one key.
pub const VERSION_PAGES_MAX: usize = 1_000;
/// Messages of one request to SQS.
pub const MESSAGES_PER_CALL: usize = 10;
/// How long one request to receive waits for messages, in seconds; 20 is the most that SQS allows.
pub const RECEIVE_WAIT_SECONDS: i32 = 20;
/// Requests to receive that follow a full one at the same time.
pub const RECEIVES_IN_FLIGHT: usize = 8;
/// Messages that are worked on at the same time; SQS itself allows 120,000.
pub const MESSAGES_HELD_MAX: usize = 1_000;
/// How long a message stays with who received it, in seconds, unless that is extended, where the queue does not say.
pub const VISIBILITY_SECONDS: i32 = 120;
/// The shortest such time: it is to be extended before it is over.
pub const VISIBILITY_SECONDS_MIN: i32 = 3;
/// The longest: after that long at most, what a process that died had is handled by another.
pub const VISIBILITY_SECONDS_MAX: i32 = 3_600;
/// How often that is extended before it would be over.
pub const EXTENSIONS: u64 = 3;
/// Requests to extend or delete at the same time.
pub const ANSWERS_IN_FLIGHT: usize = 8;
/// The longest wait before a message comes again, in seconds; SQS allows 12 hours since it was received.
pub const AGAIN_SECONDS_MAX: u64 = 6 * 3_600;
/// How long a message that nobody can handle waits in a queue that has no dead letters, in seconds.
pub const STUCK_SECONDS: i32 = 15 * 60;
/// How long dead letters that a person looks at are hidden from others, in seconds, unless they are let go before.
pub const LETTERS_HIDDEN_SECONDS: i32 = 60;
/// Bytes of a reason beside a dead letter.
pub const REASON_BYTES_MAX: usize = 1_024;
/// Keys of one BatchGetItem: the service's limit.
pub const BATCH_GET_MAX: usize = 100;
/// Statements of one BatchExecuteStatement: the service's limit.
pub const BATCH_STATEMENTS_MAX: usize = 25;
/// Calls of one kind (putting rows, changing rows, purging objects) at the same time, which what comes from many keys shares;
/// what comes meanwhile waits for the next.
pub const SHARED_CALLS_IN_FLIGHT: usize = 8;
/// Readings of a table's state at the same time: all who ask meanwhile share the next.
pub const STATE_READS_IN_FLIGHT: usize = 2;
/// Objects that are so small that copying them takes no longer than any other answer.
pub const QUICK_COPY_BYTES: u64 = 4 * 1024 * 1024;
/// Batches of one request of ours that are under way at the same time.
pub const BATCHES_IN_FLIGHT: usize = 8;
/// How often in a row what the service left out of a batch is asked for again.
pub const LEFT_OVER_ROUNDS: usize = 8;
/// Shortest wait before what was left out is asked for again.
pub const LEFT_OVER_WAIT_MIN: SpanMs = SpanMs(50);
/// Longest wait before what was left out is asked for again.
pub const LEFT_OVER_WAIT_MAX: SpanMs = SpanMs::seconds(5);
/// How often a tombstone is read and written again when others write it, too.
pub const BURY_ROUNDS: usize = 16;
/// How often an upsert starts over when the row comes and goes under it.
pub const UPSERT_ROUNDS: usize = 16;
/// Answers of 1 MB that the rows of one key may fill.
pub const PARTITION_PAGES_MAX: usize = 256;
/// Entries of one page of the index.
pub const INDEX_PAGE_MAX: usize = 1_000;
/// Queries of one shard for one page of the index: more only where a million entries have one and the same time.
pub const INDEX_QUERIES_MAX: usize = 1_024;
/// How much longer than it is needed a tombstone is kept, before the service deletes it by itself.
pub const TOMBSTONE_SPARE: SpanMs = SpanMs::days(1);
/// How old the service's own counts of items may be: it brings them up to date about every six hours.
pub const COUNTS_LAG: SpanMs = SpanMs::hours(12);
/// How often a new table is looked at until it is ready.
pub const TABLE_LOOKS_MAX: usize = 150;
/// The wait between two such looks.
pub const TABLE_LOOK_WAIT: SpanMs = SpanMs::seconds(2);
/// Records of one page of a shard: the service's limit.
pub const STREAM_PAGE: i32 = 1_000;
/// How often in a row an iterator that has just been given may be refused as too old.
pub const ITERATORS_IN_A_ROW: usize = 4;
/// Pages of a stream's shards: a hundred each, of a day.
pub const SHARD_PAGES_MAX: usize = 10_000;
/// How long a webhook may take to answer: shorter than the lease of who tells it.
pub const WEBHOOK_WAIT: SpanMs = SpanMs::seconds(20);
/// Bytes of a secret that signs messages.
pub const WEBHOOK_SECRET_BYTES_MIN: usize = 16;
/// Lines that a queue in FIFO order is told at once: a call for each.
pub const FEED_ORDERED_LINES: usize = 25;
/// Bytes of one message of a feed, and of a request with several: what every queue takes.
pub const FEED_MESSAGE_BYTES: usize = 256 << 10;
