//! The binary's own limits, by name (I10). Those of the flows stand in the engine.

use lifecycle::time::SpanMs;

/// Command processes that may be connected to one daemon at the same time.
pub(crate) const CONTROL_CONNECTIONS: usize = 16;
/// How long the control socket pauses after a connection could not be accepted.
pub(crate) const CONTROL_ACCEPT_WAIT: SpanMs = SpanMs(200);
/// Longest line of the control protocol, in bytes: one listed item or answer with its failures by name.
pub(crate) const CONTROL_LINE_MAX: usize = 16 * 1024 * 1024;
/// Frames of one command on their way to its reader.
pub(crate) const FRAMES_IN_FLIGHT: usize = 256;
/// Longest address of a Unix socket, in bytes with its final zero (`unix(7)`).
pub(crate) const SOCKET_PATH_MAX: usize = 108;
/// How long a stopping daemon waits for what is under way before it leaves it to the next start.
pub(crate) const STOP_WAIT: SpanMs = SpanMs::seconds(20);
/// How often the daemon saves its catalogs into their destinations.
pub(crate) const SNAPSHOT_EVERY: SpanMs = SpanMs::hours(1);
/// How often the daemon compares catalogs and destinations.
pub(crate) const RECONCILE_EVERY: SpanMs = SpanMs::days(1);
/// How long after a comparison that failed the daemon tries it again; twice as long after each further one, up to
/// [`RECONCILE_EVERY`].
pub(crate) const RECONCILE_AGAIN: SpanMs = SpanMs::minutes(10);
/// How far a policy's last comparison may lie back before `status --check` complains.
pub(crate) const RECONCILE_AGE_MAX: SpanMs = SpanMs::days(3);
/// Dead letters that `dlq list` names.
pub(crate) const DEAD_LETTERS_LISTED: usize = 1_000;
/// Records that lie aside which one command knows by name; of more, it is given again.
pub(crate) const ASIDE_NAMED_MAX: usize = 100_000;
/// Services of an archive that are named to who asks for one that it has not.
pub(crate) const SERVICES_NAMED_MAX: usize = 100;
/// Rounds of a `dlq … --all`, of [`DEAD_LETTERS_LISTED`] letters each.
pub(crate) const DEAD_LETTER_ROUNDS: usize = 10_000;
/// How often a waiting schedule looks at the clock, which a person may set.
pub(crate) const CLOCK_LOOK_EVERY: SpanMs = SpanMs::seconds(30);
/// How long a queue of a service that cannot be read at all is left alone.
pub(crate) const INTAKE_AGAIN: SpanMs = SpanMs::minutes(1);
/// How long a start waits for services to answer: what does not is asked again when it is needed.
pub(crate) const REACH_WAIT: SpanMs = SpanMs::seconds(30);
/// How often a table is asked whether it has another stream.
pub(crate) const STREAMS_LOOK_EVERY: SpanMs = SpanMs::minutes(1);
/// How long a table whose stream cannot be opened is left alone.
pub(crate) const STREAMS_AGAIN: SpanMs = SpanMs::seconds(30);
/// How long a table whose stream is to end waits for its last records to be archived.
#[cfg(feature = "dynamodb")]
pub(crate) const STREAM_END_WAIT: SpanMs = SpanMs::seconds(15);
/// How often it is looked whether they are.
#[cfg(feature = "dynamodb")]
pub(crate) const STREAM_END_LOOK_EVERY: SpanMs = SpanMs(100);
/// How often the streams of this machine's tables forget what is old and archived.
#[cfg(feature = "dynamodb")]
pub(crate) const STREAM_FORGET_EVERY: SpanMs = SpanMs::hours(1);
/// How far the reading of a stream may lie behind before `status --check` complains.
pub(crate) const ARCHIVE_LAG_MAX: SpanMs = SpanMs::minutes(15);
/// Bytes of the condition of an `archive restore`.
pub(crate) const CONDITION_BYTES_MAX: usize = 64 << 10;
/// Steps of SQLite's machine that judging one deletion may take: some seconds.
pub(crate) const CONDITION_STEPS_MAX: u64 = 100_000_000;
/// KiB in memory of the records that a bulk `archive restore` has met; more lie in a temporary file.
pub(crate) const NOTED_CACHE_KIB: usize = 16 << 10;
/// Pages of what waits for a feed that `status` looks through.
pub(crate) const FEED_STATUS_PAGES: usize = 50;
/// How long a feed that cannot be opened is left alone.
pub(crate) const FEED_OPEN_AGAIN: SpanMs = SpanMs::seconds(30);
/// How long a deletion may wait to be told before `status --check` complains.
pub(crate) const FEED_LAG_MAX: SpanMs = SpanMs::minutes(15);
