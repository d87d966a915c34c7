//! Feed: tells what was archived, line by line, from a table's outbox to a file, a webhook or a queue.
//!
//! Whoever follows a shard puts what it archived into the outbox and thinks no more of it: a feed that is down, or slow,
//! holds up nothing, and what waits for it waits beside the archive. Of several processes one tells a table's deletions, by a
//! lease. Each shard's are told in its order; what fails is tried again for as long as it takes, and seen meanwhile.
//!
//! A line may be told twice (a crash before what was told is gone from the outbox, or an answer that was lost) and is never
//! left out. Memory holds one object of the outbox and a page of names. Laws: I8, I10, I11.

use crate::error::PortResult;
use crate::limits::{
    FEED_BYTES, FEED_LINES, FEED_LOOK_EVERY, SHARD_LEASE_FOR, SHARD_LEASE_RENEW_EVERY, STREAM_WAIT_MAX, STREAM_WAIT_MIN,
};
use crate::ports::catalog::Catalog;
use crate::ports::clock::{Clock, Nonces};
use crate::ports::feed::{FeedLine, FeedSink};
use crate::ports::metrics::{Counter, Metrics};
use crate::report::chain;
use crate::steps::outbox::{Outbox, OutboxPurger, Waiting};
use lifecycle::ids::ObjectKey;
use lifecycle::time::{SpanMs, UnixMs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// Tells one table's deletions.
pub struct Feeder {
    /// What is to be told.
    pub outbox: Arc<Outbox>,
    /// The right to remove what was told.
    pub purger: OutboxPurger,
    /// Who is told.
    pub sink: Arc<dyn FeedSink>,
    /// Where processes agree who tells.
    pub leases: Arc<dyn Catalog>,
    /// The name of this feed's lease.
    pub lease: String,
    /// Who this is towards the others, the same after a restart.
    pub holder: String,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Jitter.
    pub nonces: Arc<dyn Nonces>,
    /// Counters.
    pub metrics: Arc<dyn Metrics>,
    /// What is seen of it.
    pub seen: Arc<FeedSeen>,
}

/// What people see of a feed.
#[derive(Debug, Default)]
pub struct FeedSeen(Mutex<SeenNow>);

/// What people see of a feed at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenNow {
    /// What keeps it from telling.
    pub trouble: Option<String>,
    /// When it last told something.
    pub told_at: Option<UnixMs>,
}

impl FeedSeen {
    /// As it is now.
    pub fn now(&self) -> SeenNow {
        self.lock().clone()
    }

    /// Notes what keeps it from telling; whether that is new.
    pub fn note_trouble(&self, trouble: Option<String>) -> bool {
        let mut seen = self.lock();
        let is_new = seen.trouble != trouble;
        seen.trouble = trouble;
        is_new
    }

    fn lock(&self) -> MutexGuard<'_, SeenNow> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a round ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// Nothing is left.
    Empty,
    /// There may be more.
    More,
    /// Another process tells.
    Others,
}

/// What a feeder knows from one round to the next.
#[derive(Default)]
struct Known {
    /// When the lease was last renewed; `None`: it is not held.
    held: Option<UnixMs>,
    /// An object of which so many lines are told.
    partly: Option<(ObjectKey, usize)>,
}

impl Feeder {
    /// Tells until cancelled.
    pub async fn run(&self, cancel: &CancellationToken) {
        let (mut known, mut tries) = (Known::default(), 0);
        while !cancel.is_cancelled() {
            let wait = match self.round(&mut known, cancel).await {
                Ok(round) => {
                    tries = 0;
                    self.seen.note_trouble(None);
                    if round == Round::More {
                        continue;
                    }
                    FEED_LOOK_EVERY
                }
                Err(error) => {
                    tries += 1;
                    let trouble = chain(&error);
                    if self.seen.note_trouble(Some(trouble.clone())) {
                        tracing::warn!(feed = self.lease, "telling is tried again: {trouble}");
                    }
                    self.pause(tries)
                }
            };
            tokio::select! {
                () = cancel.cancelled() => {}
                () = self.outbox.put.notified(), if tries == 0 => {}
                () = self.clock.sleep(wait) => {}
            }
        }
        if known.held.is_some()
            && let Err(error) = self.leases.unlease(&self.lease, &self.holder).await
        {
            tracing::warn!(lease = self.lease, "not given back, it ends by itself: {}", chain(&error));
        }
    }

    /// Longer with each try.
    fn pause(&self, tries: u32) -> SpanMs {
        let whole = STREAM_WAIT_MIN.0.saturating_mul(1 << tries.min(16)).min(STREAM_WAIT_MAX.0);
        SpanMs(whole / 2 + self.nonces.jitter(whole / 2 + 1))
    }

    async fn round(&self, known: &mut Known, cancel: &CancellationToken) -> PortResult<Round> {
        if !self.keep(known).await? {
            return Ok(Round::Others);
        }
        // From the beginning each time: what was told is gone from there.
        let page = self.outbox.waiting(None).await?;
        for waiting in &page.items {
            if cancel.is_cancelled() {
                return Ok(Round::More);
            }
            if !self.tell(waiting, known, cancel).await? {
                return Ok(Round::Others);
            }
        }
        Ok(if page.items.is_empty() && page.next.is_none() { Round::Empty } else { Round::More })
    }

    /// Takes or renews the lease when that is due; `false`: another one has it.
    async fn keep(&self, known: &mut Known) -> PortResult<bool> {
        let now = self.clock.now();
        if known.held.is_some_and(|held| now.since(held) < SHARD_LEASE_RENEW_EVERY) {
            return Ok(true);
        }
        let has = self.leases.lease(&self.lease, &self.holder, now, now.plus(SHARD_LEASE_FOR)).await?;
        known.held = has.then_some(now);
        Ok(has)
    }

    /// Tells one object's lines, then removes it; `false`: another process tells by now.
    async fn tell(&self, waiting: &Waiting, known: &mut Known, cancel: &CancellationToken) -> PortResult<bool> {
        let Some(lines) = self.outbox.read(&waiting.name).await? else { return Ok(true) };
        let mut told = match &known.partly {
            Some((name, told)) if *name == waiting.name => *told,
            _ => 0,
        };
        while let Some(left) = lines.get(told..).filter(|left| !left.is_empty()) {
            if !self.keep(known).await? {
                return Ok(false);
            }
            let next = &left[..together(left)];
            tokio::select! {
                // What is under way may be taken, and is told again at the next start.
                () = cancel.cancelled() => return Ok(true),
                ended = self.sink.tell(&waiting.shard, next) => ended?,
            }
            told += next.len();
            known.partly = Some((waiting.name.clone(), told));
            self.metrics.add(Counter::Told, next.len() as u64);
            let mut seen = self.seen.lock();
            (seen.told_at, seen.trouble) = (Some(self.clock.now()), None);
        }
        self.purger.remove(&waiting.name).await?;
        known.partly = None;
        Ok(true)
    }
}

/// How many of some lines are told at once: at least one.
fn together(lines: &[FeedLine]) -> usize {
    let mut bytes = 0;
    let fit = lines.iter().take(FEED_LINES).take_while(|line| {
        bytes += line.text.len() + 1;
        bytes <= FEED_BYTES
    });
    fit.count().max(1)
}
