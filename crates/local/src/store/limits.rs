//! The bucket store's limits, by name (I10).

use lifecycle::time::SpanMs;

/// Bytes of a body that are gathered in memory before they are written; a smaller body is written in one go.
pub(super) const STAGE_BYTES: usize = 1024 * 1024;
/// From this size on a body is fsynced before the key is locked, so that a long fsync holds up nobody.
pub(super) const SYNC_EARLY_BYTES: u64 = 8 * 1024 * 1024;
/// An object up to this size is read, checked and written when it is copied; a larger one is left to the kernel.
pub(super) const CHECKED_COPY_BYTES: u64 = 1024 * 1024;
/// Bytes that the kernel is asked to copy at once.
pub(super) const COPY_STEP_BYTES: usize = 64 * 1024 * 1024;
/// File operations that block at the same time.
pub(super) const BLOCKING_AT_ONCE: usize = 96;
/// Locks that the keys of one bucket share.
pub(super) const KEY_LOCKS: usize = 1_024;
/// Entries of one listing page.
pub(super) const LIST_MAX: usize = 1_000;
/// Rows read first after a common prefix was passed over; doubled while no prefix is met.
pub(super) const LIST_STEP: usize = 8;
/// Keys of one batch delete.
pub(super) const DELETE_MAX: usize = 1_000;
/// Copies purged under one lock and in one transaction.
pub(super) const PURGE_STEP: usize = 100;
/// Folders remembered as durable; then the memory is emptied and each costs one fsync more.
pub(super) const DURABLE_FOLDERS_KNOWN: usize = 16_384;
/// Paths tried for a key whose names may carry marks of conflict.
pub(super) const PROBES_MAX: usize = 256;
/// How often publishing starts over when its folder is removed under it.
pub(super) const PUBLISH_TRIES: usize = 16;
/// How often a read starts over when the version that it found is reclaimed under it.
pub(super) const READ_TRIES: usize = 3;
/// Numbers of parts.
pub(super) const PART_NUMBERS: std::ops::RangeInclusive<u32> = 1..=10_000;
/// Smallest part but the last.
pub(super) const PART_BYTES_MIN: u64 = 5 * 1024 * 1024;
/// Completed uploads that are remembered, the newest, so that a client that asks again gets the same answer.
pub(super) const COMPLETED_MAX: i64 = 10_000;
/// For so long.
pub(super) const COMPLETED_KEPT: SpanMs = SpanMs::seconds(24 * 60 * 60);
/// Messages that wait for the reclaimer; beyond them it sweeps.
pub(super) const RECLAIM_QUEUE: usize = 1_024;
/// Versions reclaimed in one transaction.
pub(super) const RECLAIM_BATCH: usize = 512;
/// Largest attribute text that is tried as an extended attribute; a larger one goes to a file beside.
pub(super) const XATTR_BYTES_MAX: usize = 3_500;
/// Files or rows compared at once by a reindex.
pub(super) const REINDEX_BATCH: usize = 500;
