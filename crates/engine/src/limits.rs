//! Every limit of loops, queues, batches and retries, by name (I10).

use lifecycle::time::SpanMs;
use std::time::Duration;

/// How often settling one key may start over before the event is put back.
pub const SETTLE_ROUNDS: usize = 16;
/// How long a mark that was read says whose a destination is.
pub const OWNER_GOOD_FOR: Duration = Duration::from_secs(60);
/// Bytes that are read of the object that says whose a bucket is.
pub const OWNER_BYTES_MAX: usize = 64 << 10;
/// Objects of a destination that are looked at for one that is none of the program's own.
pub const OWNER_SAMPLE: usize = 1_000;
/// How often a mirrored key is made equal in one handling.
pub const MIRROR_ROUNDS: usize = 16;
/// Events older than this only trigger a look: their tombstone may be forgotten (guard 7).
pub const EVENT_AGE_MAX: SpanMs = SpanMs::days(13);
/// How long a tombstone is kept: longer than any redelivery.
pub const TOMBSTONE_TTL: SpanMs = SpanMs::days(14);
/// Bytes without a row are adopted from this age on: younger ones are most likely a handler's that is about to put their
/// row. It saves work and guards nothing. No handler is stopped at it, since copying a large object may rightly take longer;
/// one that is slower finds its row put already, under the same name, or settles its key once
/// more where bytes and row are gone again: at worst a disowned row without bytes, until the next grace.
pub const ORPHAN_AGE: SpanMs = SpanMs::minutes(15);
/// Slices of a comparison in a row that one key may outlast before it is passed over.
pub const SLICES_OF_ONE_KEY: u32 = 2;
/// Buckets whose events nobody looks after, of which it is told.
pub const BUCKETS_TOLD_MAX: usize = 1_000;
/// Days for which what was retrieved from an archive tier can be read, unless somebody says otherwise.
pub const RETRIEVED_DAYS: u32 = 7;
/// The most days that somebody may say.
pub const RETRIEVED_DAYS_MAX: u32 = 365;
/// Objects in archive tiers that one command remembers by name: of more it knows how many there are, and looks again.
pub const AWAY_NAMES_MAX: usize = 10_000;
/// How often a command that waits looks again for what it needs of archive tiers: once the packs of a day can be read, it may
/// need what no pack has.
pub const RETRIEVAL_ROUNDS: usize = 16;
/// How soon it is looked whether what an archive tier was asked for has come; then after twice as long, up to
/// [`RETRIEVAL_LOOK_EVERY`].
pub const RETRIEVAL_LOOK_FIRST: SpanMs = SpanMs::seconds(2);
/// How long a restore waits for archived copies: the slowest tier takes two days.
pub const RETRIEVAL_WAIT_MAX: SpanMs = SpanMs::days(4);
/// How often a restore that waits for archived copies looks whether they have come.
pub const RETRIEVAL_LOOK_EVERY: SpanMs = SpanMs::minutes(5);
/// Deliveries of one event before it goes to the dead letters.
pub const DELIVERY_ATTEMPTS: u32 = 12;
/// The same for failures that trying again can mend (a full or unmounted disk, a missing right): about a day of outage.
pub const OUTAGE_ATTEMPTS: u32 = 400;
/// Shortest wait before an event is delivered again.
pub const REDELIVERY_WAIT_MIN: SpanMs = SpanMs(200);
/// Longest wait before an event is delivered again.
pub const REDELIVERY_WAIT_MAX: SpanMs = SpanMs::minutes(5);
/// Tries of one port call inside one handling.
pub const CALL_ATTEMPTS: u32 = 4;
/// Shortest wait between two tries of one call.
pub const CALL_WAIT_MIN: SpanMs = SpanMs(20);
/// Longest wait between two tries of one call.
pub const CALL_WAIT_MAX: SpanMs = SpanMs::seconds(5);
/// Events taken from the queue at once.
pub const EVENT_BATCH: usize = 256;
/// Keys handled at the same time.
pub const KEYS_IN_FLIGHT: usize = 64;
/// Keys that are back-filled at the same time: each waits for the stores, and hardly works itself.
pub const BACKFILL_KEYS_IN_FLIGHT: usize = 128;
/// Rows of one page of due copies; also the largest batch of purges.
pub const CLEAN_PAGE: usize = 1_000;
/// How long a cleaner may hold its lease without renewing it.
pub const LEASE_FOR: SpanMs = SpanMs::minutes(5);
/// Objects of one listing page.
pub const LIST_PAGE: usize = 1_000;
/// Pages of the destination's listing that a comparison in slices has in memory at once.
pub const WINDOW_PAGES: usize = 10;
/// Bytes that a sort on disk collects in memory before it writes them out as a run.
pub const SORT_BYTES: usize = 4 * 1024 * 1024;
/// Runs of a sort on disk that are read at once; of more, some are merged first.
pub const SORT_RUNS: usize = 128;
/// Bytes of each run that are in memory while it is read.
pub const SORT_RUN_BUFFER: usize = 32 * 1024;
/// Failures of single items that a report names; the others are counted.
pub const REPORT_ITEMS: usize = 1_000;
/// Bytes of one piece of a streamed body.
pub const STREAM_CHUNK: usize = 256 * 1024;
/// Keys that one bulk command works on at the same time.
pub const COMMAND_KEYS_IN_FLIGHT: usize = 16;
/// Lines of the journal that `history` shows for one key.
pub const HISTORY_JOURNAL_LINES: usize = 200;
/// How far a policy's last clean may lie back before `status --check` complains, in schedule periods.
pub const LATE_CLEANS: u64 = 3;
/// How long an event may wait before `status --check` complains.
pub const EVENT_WAIT_MAX: SpanMs = SpanMs::minutes(15);
/// Shards of the index of a catalog in DynamoDB: a thousand writes a second each.
pub const INDEX_SHARDS_MAX: u32 = 64;
/// Bytes of the prefix of a policy that shares its table.
pub const TABLE_PREFIX_BYTES_MAX: usize = 64;
/// Archived records that are written at the same time.
pub const ARCHIVE_PUTS_IN_FLIGHT: usize = 64;
/// Shards that one process reads at the same time, of one stream.
pub const SHARDS_IN_FLIGHT: usize = 128;
/// How long a shard belongs to who reads it, without renewing that.
pub const SHARD_LEASE_FOR: SpanMs = SpanMs::minutes(1);
/// How often that is renewed.
pub const SHARD_LEASE_RENEW_EVERY: SpanMs = SpanMs::seconds(15);
/// How often a stream is asked for its shards.
pub const SHARDS_LOOK_EVERY: SpanMs = SpanMs::seconds(10);
/// How long a shard that had nothing new is left alone: it answers five readings a second at most.
pub const SHARD_IDLE: SpanMs = SpanMs::seconds(1);
/// How old a shard's checkpoint may grow while nothing of it needs to be archived.
pub const SHARD_CHECKPOINT_EVERY: SpanMs = SpanMs::seconds(30);
/// Shortest wait after a reading or archiving that failed.
pub const STREAM_WAIT_MIN: SpanMs = SpanMs(500);
/// Longest wait after a reading or archiving that failed; shorter than the lease.
pub const STREAM_WAIT_MAX: SpanMs = SpanMs::seconds(30);
/// Bytes that are read of a shard's checkpoint.
pub const SHARD_CHECKPOINT_BYTES_MAX: usize = 64 << 10;
/// Bytes of an archived record: a record has at most 400 KB, and both of its images in JSON several times that.
pub const RECORD_BYTES_MAX: usize = 16 << 20;
/// How often a stream's shards are compared with those of which something was read.
pub const PLACES_LOOK_EVERY: SpanMs = SpanMs::hours(1);
/// Pages in a row without a record, of a stretch of a shard that is known to have some.
pub const STRETCH_EMPTY_PAGES_MAX: usize = 64;
/// How often marking a record is tried when somebody else changes it meanwhile.
pub const MARK_ROUNDS: usize = 8;
/// How often a self-test looks whether its record has gone, or is archived.
pub const SELF_TEST_LOOK_EVERY: SpanMs = SpanMs::seconds(1);
/// Records of one pack: of more, a day has several.
pub const PACK_RECORDS_MAX: u64 = 1_000_000;
/// Bytes of the bodies of one pack.
pub const PACK_BYTES_MAX: u64 = 4 << 30;
/// How often somebody else may have taken a pack's number, one after the other.
pub const PACK_NUMBERS_TAKEN_MAX: u32 = 16;
/// Archived records that are read together to be packed, and bytes after which there are no more of them.
pub const PACK_BATCH_RECORDS: usize = 256;
/// See [`PACK_BATCH_RECORDS`].
pub const PACK_BATCH_BYTES: u64 = 1 << 20;
/// Such batches at the same time; each reads up to [`SMALL_READS_IN_FLIGHT`] of its objects at once.
pub const PACK_BATCHES_IN_FLIGHT: usize = 4;
/// Small objects of one batch that are read at the same time where the store has no way of its own to read many.
pub const SMALL_READS_IN_FLIGHT: usize = 16;
/// Archived records that are read at the same time to be looked through.
pub const SCAN_READS_IN_FLIGHT: usize = 64;
/// Pieces of a pack that are fetched at the same time.
pub const PACK_FETCHES_IN_FLIGHT: usize = 8;
/// Bytes of a pack's footer.
pub const PACK_FOOTER_BYTES_MAX: usize = 64 << 20;
/// How long originals stay after their pack was read back: a deletion that is told once more finds its record under its name
/// until then. A queue keeps what it is told for 14 days, and so does that of its dead letters, which the function fills anew.
pub const ORIGINALS_STAY_FOR: SpanMs = SpanMs::days(30);
/// Days whose packs' ends are kept in memory while an archive is read.
pub const PACKS_KEPT: usize = 8;
/// Row groups whose names are kept in memory meanwhile: one for each of a day's hourly packs.
pub const PACK_NAMES_KEPT: usize = 24;
/// Row groups that are kept in memory while an archive is read: each has up to 16 MiB of records.
pub const PACK_GROUPS_KEPT: usize = 4;
/// Days that are looked through at the same time for a record.
pub const FIND_DAYS_IN_FLIGHT: usize = 4;
/// Bytes of archived records that are looked through at once.
pub const SCAN_BYTES: u64 = 32 << 20;
/// Bytes after which an object of a feed's outbox ends, with the line that crosses them.
pub const OUTBOX_BYTES: usize = 1 << 20;
/// Lines that a feed is told at once.
pub const FEED_LINES: usize = 500;
/// Bytes that a feed is told at once; a longer line goes alone.
pub const FEED_BYTES: usize = 256 << 10;
/// How long one telling may take: shorter than what is left of a lease that need not be renewed yet.
pub const FEED_TELL_MAX: SpanMs = SpanMs::seconds(40);
/// Lines in a row that may be refused for good before that counts as the other side's fault and not as theirs.
pub const FEED_REFUSED_MAX: usize = 32;
/// How often a feed looks for what other processes put into its outbox.
pub const FEED_LOOK_EVERY: SpanMs = SpanMs::seconds(15);
