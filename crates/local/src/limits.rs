//! Every limit of this crate's loops, queues, batches and caches, by name (I10).

use lifecycle::time::SpanMs;

/// Jobs that wait for a database's writer; more callers wait for a place.
pub const WRITER_QUEUE: usize = 2_048;
/// Jobs that one transaction takes at most: bounds how long the first of them waits for the others.
pub const WRITER_BATCH: usize = 512;
/// Rows changed from which a database's log is folded in, beside the work, so that it stays bounded.
pub const CHECKPOINT_ROWS: u64 = 2_000;
/// The net under that: pages in the WAL from which SQLite itself checkpoints while it commits.
pub const WAL_PAGES_MAX: u32 = 8_192;
/// Bytes that the WAL file keeps after a checkpoint.
pub const WAL_BYTES_KEPT: u32 = 64 * 1024 * 1024;
/// Bytes of a database's page.
pub const PAGE_BYTES: u32 = 8 * 1024;
/// KiB of pages that the writer's connection caches. The caches of all connections are one pool, as the bundled SQLite is
/// built: any of them may fill the room of all, in every database that is open. The system's own cache stands behind it.
pub const WRITER_CACHE_KIB: u32 = 8 * 1024;
/// KiB of pages that each reading connection caches.
pub const READER_CACHE_KIB: u32 = 2 * 1024;
/// The same of the connection that only folds the log in: it goes from file to file and caches nothing.
pub const FOLD_CACHE_KIB: u32 = 64;
/// Connections that read one database at the same time.
pub const READERS: usize = 4;
/// Prepared statements that one connection keeps.
pub const STATEMENTS: usize = 64;
/// How long a connection waits for a lock that another program holds (a person's `sqlite3`, a snapshot).
pub const BUSY_WAIT_MS: u32 = 10_000;
/// A database up to this size is checked whole at every opening; a larger one only after an unclean stop.
pub const CHECKED_ALWAYS_BYTES: u64 = 8 * 1024 * 1024;
/// Entries or keys that one page of the catalog has at most.
pub const INDEX_PAGE_MAX: usize = 10_000;
/// Events that are handed out, or whose answer could not be noted down, from which on no more are handed out.
pub const HAND_MAX: usize = 16_384;
/// Events that are looked at to tell whether any of one bucket wait: a bounded look, since there is no index by bucket, which
/// every put would pay for.
pub const BUCKET_LOOK_MAX: usize = 10_000;
/// How long an event waits whose answer could not be noted down (the disk is full), before it is delivered again.
pub const UNANSWERED_WAIT: SpanMs = SpanMs::seconds(5);
/// Bytes from which the journal begins a new segment.
pub const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes of the longest line that the journal can have: both keys at their longest, every byte of them escaped.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// Appends that wait for the journal's writer; more callers wait for a place.
pub const JOURNAL_QUEUE: usize = 1_024;
/// Lines that the journal's writer writes with one fsync, unless one caller brings more.
pub const JOURNAL_BATCH_LINES: usize = 4_096;
/// Faults of the journal that an audit names; the others are counted.
pub const AUDIT_FAULTS: usize = 1_000;
/// Rows of a batch that one transaction of the catalog changes: bounds how long a put waits behind a cleaner.
pub const CHANGES_AT_ONCE: usize = 64;
/// Bytes of a file with a secret.
pub const SECRET_FILE_BYTES_MAX: u64 = 64 << 10;
