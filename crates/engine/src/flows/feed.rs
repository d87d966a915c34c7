//! Feed: tells what was archived, line by line, from a table's outbox to a file, a webhook or a queue.
//!
//! Whoever follows a shard puts what it archived into the outbox and thinks no more of it: a feed that is down, or slow,
//! holds up nothing, and what waits for it waits beside the archive. Of several processes one tells a table's deletions, by a
//! lease. Each shard's are told in its order; what fails is tried again for as long as it takes, and seen meanwhile.
//!
//! A line that is refused for good (`Invalid`) is found by telling fewer at once, and laid aside, so that it holds up no other
//! one: but only beside lines that are taken, since else it is the other side that is wrong, and all of them wait. Each
//! process tells what lies aside once more at its beginning. An object of the outbox that does not read back is passed over,
//! and seen.
//!
//! A line may be told twice (a crash before what was told is gone from the outbox, or an answer that was lost) and is never
//! left out. Memory holds one object of the outbox, a few refused lines and a page of names. Laws: I8, I10, I11.

use crate::error::{ErrorKind, PortError, PortResult};
use crate::limits::{FEED_BYTES, FEED_LOOK_EVERY, FEED_REFUSED_MAX, FEED_TELL_MAX};
use crate::ports::catalog::Catalog;
use crate::ports::clock::{Clock, Nonces};
use crate::ports::feed::{FeedLine, FeedSink};
use crate::ports::metrics::{Counter, Metrics};
use crate::report::chain;
use crate::steps::hold::{Hold, pause_after};
use crate::steps::outbox::{Outbox, OutboxPurger, Waiting};
use lifecycle::ids::ObjectKey;
use lifecycle::time::UnixMs;
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
    /// An object of the outbox that does not read back, and why.
    pub damaged: Option<String>,
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

    /// Notes what does not read back; whether that is new.
    fn note_damaged(&self, damaged: Option<String>) -> bool {
        let before = std::mem::replace(&mut self.lock().damaged, damaged.clone());
        before != damaged
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
struct Known<'a> {
    /// The right to tell.
    hold: Hold<'a>,
    /// An object of which so many lines are told.
    partly: Option<(ObjectKey, usize)>,
    /// What was refused before was told once more.
    retold: bool,
}

/// What became of the lines in one round.
#[derive(Default)]
struct Pass {
    /// Some were taken.
    took: bool,
    /// Those that were refused for good since the last one that was taken, and why.
    refused: Vec<(Waiting, FeedLine, PortError)>,
    /// Objects of which every line was taken or refused.
    ended: Vec<ObjectKey>,
    /// An object that does not read back.
    damaged: Option<String>,
}

impl Feeder {
    /// Tells until cancelled.
    pub async fn run(&self, cancel: &CancellationToken) {
        let hold = Hold::new(self.leases.as_ref(), self.clock.as_ref(), &self.holder, self.lease.clone());
        let (mut known, mut tries) = (Known { hold, partly: None, retold: false }, 0);
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
                    pause_after(tries, self.nonces.as_ref())
                }
            };
            tokio::select! {
                () = cancel.cancelled() => {}
                () = self.outbox.put.notified(), if tries == 0 => {}
                () = self.clock.sleep(wait) => {}
            }
        }
        known.hold.give_back().await;
    }

    async fn round(&self, known: &mut Known<'_>, cancel: &CancellationToken) -> PortResult<Round> {
        // From the beginning each time: what was told is gone from there.
        let (mut pass, mut after) = (Pass::default(), None);
        if !known.hold.keep().await? || !self.retell(known, cancel).await? {
            return Ok(Round::Others);
        }
        loop {
            let page = self.outbox.waiting(after.as_ref()).await?;
            for waiting in &page.items {
                if cancel.is_cancelled() {
                    return Ok(Round::More);
                }
                if !self.tell(waiting, known, &mut pass, cancel).await? {
                    return Ok(Round::Others);
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if let (true, Some(why)) = (self.seen.note_damaged(pass.damaged.clone()), &pass.damaged) {
            tracing::error!(feed = self.lease, "deletions that are archived are not told: {why}");
        }
        if pass.took {
            self.settle(&mut pass).await?;
        }
        match pass.refused.pop() {
            // Nothing was taken: that may be the other side's fault.
            Some((_, _, error)) => Err(error),
            None => Ok(if pass.took { Round::More } else { Round::Empty }),
        }
    }

    /// Tells one object's lines, then removes it; `false`: another process tells by now.
    async fn tell(
        &self,
        waiting: &Waiting,
        known: &mut Known<'_>,
        pass: &mut Pass,
        cancel: &CancellationToken,
    ) -> PortResult<bool> {
        let lines = match self.outbox.read(&waiting.name).await {
            Ok(Some(lines)) => lines,
            Ok(None) => {
                self.purger.remove(&waiting.name).await?;
                return Ok(true);
            }
            Err(error) if matches!(error.kind, ErrorKind::Damaged(_)) => {
                pass.damaged.get_or_insert_with(|| chain(&error));
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        let mut told = match &known.partly {
            Some((name, told)) if *name == waiting.name => *told,
            _ => 0,
        };
        let mut most = self.sink.at_once();
        while let Some(left) = lines.get(told..).filter(|left| !left.is_empty()) {
            if !known.hold.keep().await? {
                return Ok(false);
            }
            let next = &left[..together(left, most)];
            match self.tell_some(&waiting.shard, next, cancel).await {
                None => return Ok(true),
                Some(Ok(())) => {
                    pass.took = true;
                    most = (most * 2).min(self.sink.at_once());
                    // What was refused before it was refused for its own sake.
                    self.settle(pass).await?;
                }
                Some(Err(error)) if !matches!(error.kind, ErrorKind::Invalid(_)) => return Err(error),
                // One of them is refused: which?
                Some(Err(_)) if next.len() > 1 => {
                    most = next.len() / 2;
                    continue;
                }
                Some(Err(error)) if pass.refused.len() + 1 >= FEED_REFUSED_MAX => return Err(error),
                Some(Err(error)) => pass.refused.push((waiting.clone(), next[0].clone(), error)),
            }
            told += next.len();
            if pass.refused.is_empty() {
                known.partly = Some((waiting.name.clone(), told));
            }
        }
        pass.ended.push(waiting.name.clone());
        if pass.refused.is_empty() {
            self.settle(pass).await?;
            known.partly = None;
        }
        Ok(true)
    }

    /// Tells some lines; `None`: it was cancelled.
    async fn tell_some(&self, shard: &str, lines: &[FeedLine], cancel: &CancellationToken) -> Option<PortResult<()>> {
        tokio::select! {
            // What is under way may be taken, and is told again at the next start.
            () = cancel.cancelled() => return None,
            ended = self.sink.tell(shard, lines) => {
                if let Err(error) = ended {
                    return Some(Err(error));
                }
            }
            // Another process may tell once the lease is over.
            () = self.clock.sleep(FEED_TELL_MAX) => {
                return Some(Err(PortError::new("tell", &self.lease, ErrorKind::Unavailable)));
            }
        }
        self.metrics.add(Counter::Told, lines.len() as u64);
        let mut seen = self.seen.lock();
        (seen.told_at, seen.trouble) = (Some(self.clock.now()), None);
        Some(Ok(()))
    }

    /// Lays aside what is refused, and then removes what is told or lies aside.
    async fn settle(&self, pass: &mut Pass) -> PortResult<()> {
        while let Some((waiting, line, error)) = pass.refused.first() {
            let name = self.outbox.lay_aside(waiting, line).await?;
            tracing::error!(
                feed = self.lease,
                object = %name,
                "a deletion is archived, and not told, since that is refused for good; it lies aside: {}",
                chain(error)
            );
            pass.refused.remove(0);
        }
        while let Some(name) = pass.ended.last() {
            self.purger.remove(name).await?;
            pass.ended.pop();
        }
        Ok(())
    }

    /// Tells what lies aside once more: the other side may take it by now. `false`: another process tells by now.
    async fn retell(&self, known: &mut Known<'_>, cancel: &CancellationToken) -> PortResult<bool> {
        let mut after = None;
        while !known.retold {
            let page = self.outbox.refused(after.as_ref()).await?;
            for Waiting { name, shard, .. } in &page.items {
                let lines = match self.outbox.read(name).await {
                    // It stays, is counted by `status`, and holds up nothing: the deletion itself is archived.
                    Err(error) if matches!(error.kind, ErrorKind::Damaged(_)) => {
                        tracing::warn!(feed = self.lease, "what it refused does not read back: {}", chain(&error));
                        continue;
                    }
                    lines => lines?.unwrap_or_default(),
                };
                if lines.is_empty() {
                    self.purger.remove(name).await?;
                    continue;
                }
                if !known.hold.keep().await? {
                    return Ok(false);
                }
                match self.tell_some(shard, &lines, cancel).await {
                    None => return Ok(true),
                    Some(Ok(())) => self.purger.remove(name).await?,
                    // It lies where it lay, and `status` tells it.
                    Some(Err(error)) if matches!(error.kind, ErrorKind::Invalid(_)) => {}
                    Some(Err(error)) => return Err(error),
                }
            }
            after = page.next;
            known.retold = after.is_none();
        }
        Ok(true)
    }
}

/// How many of some lines are told at once: at least one, and `most` at most.
fn together(lines: &[FeedLine], most: usize) -> usize {
    let mut bytes = 0;
    let fit = lines.iter().take(most).take_while(|line| {
        bytes += line.text.len() + 1;
        bytes <= FEED_BYTES
    });
    fit.count().max(1)
}
