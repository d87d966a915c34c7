//! Every limit of this crate, by name (I10).

use lifecycle::time::SpanMs;

/// The share of an invocation's time that is kept free at its end, as a divisor: nothing new is begun in it.
pub(crate) const STOP_SHARE: u64 = 4;
/// The least of that time.
pub(crate) const STOP_MIN: SpanMs = SpanMs::seconds(1);
/// The most of that time: one large copy shall have the rest of a quarter of an hour.
pub(crate) const STOP_MAX: SpanMs = SpanMs::seconds(20);
/// Of that time, the part in which nothing runs any more, as a divisor: the answer is sent in it.
pub(crate) const END_SHARE: u64 = 2;
/// Policies that are cleaned or compared side by side.
pub(crate) const POLICIES_IN_FLIGHT: usize = 16;
/// Bytes of a checkpoint that is read: a key takes up to 1,024, escaped six times as many.
pub(crate) const CHECKPOINT_BYTES_MAX: usize = 32 * 1024;
/// How long a start may take: Lambda gives it ten seconds.
pub(crate) const START_WAIT: SpanMs = SpanMs::seconds(8);
/// How long a policy's services may take to answer while it is opened; what does not is asked when it is needed.
pub(crate) const OPENING_WAIT: SpanMs = SpanMs::seconds(5);
/// Dead letters that are sent side by side.
pub(crate) const BURIALS_IN_FLIGHT: usize = 8;
/// Records that are archived before it is looked at the time again.
pub(crate) const RECORDS_AT_ONCE: usize = 200;
