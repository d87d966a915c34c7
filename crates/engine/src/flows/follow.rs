//! Follow: reads a table's stream, shard by shard, and archives what was deleted.
//!
//! Any number of processes may follow one stream. Each shard belongs to who has its lease; who dies is followed by another
//! when that is over. A parent is read to its end before its children begin, so that the deletions of one key are archived in
//! their order. The place up to which a shard is read is written after everything before it is durable in the archive, so a
//! crash reads some records again, which makes no second object (I8).
//!
//! An outage of the archive holds the shard at its place, for as long as the outage lasts; what the stream drops meanwhile
//! (after a day) is told as a gap, with its exact edges, and kept as an object. Laws: I8, I10, I11.

use crate::error::{PortError, PortResult};
use crate::flows::archive::Archive;
use crate::limits::{
    SHARD_CHECKPOINT_EVERY, SHARD_IDLE, SHARD_LEASE_FOR, SHARD_LEASE_RENEW_EVERY, SHARDS_IN_FLIGHT, SHARDS_LOOK_EVERY,
    STREAM_WAIT_MAX, STREAM_WAIT_MIN,
};
use crate::ports::catalog::Catalog;
use crate::ports::clock::{Clock, Nonces};
use crate::ports::metrics::Counter;
use crate::ports::streams::{Change, Position, Read, RecordStream, Shard, ShardId, StreamRecord};
use crate::report::chain;
use crate::steps::shard_places::{Place, ShardPlaces};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use lifecycle::archive::Sequence;
use lifecycle::time::{SpanMs, UnixMs};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// Follows one stream.
pub struct Follower {
    /// The stream.
    pub stream: Arc<dyn RecordStream>,
    /// Where deleted records go.
    pub archive: Archive,
    /// How far each shard is read.
    pub places: ShardPlaces,
    /// Whose each shard is.
    pub leases: Arc<dyn Catalog>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Who this is towards the others, the same after a restart: what a killed process held is its own again at once. No two
    /// that run have the same.
    pub holder: String,
    /// Jitter.
    pub nonces: Arc<dyn Nonces>,
    /// What is seen of it.
    pub seen: Arc<Seen>,
}

/// What people see of a follower.
#[derive(Debug, Default)]
pub struct Seen(Mutex<BTreeMap<ShardId, ShardSeen>>, Mutex<Option<String>>);

/// What people see of one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardSeen {
    /// When the last record that was archived, or needed no archiving, happened.
    pub last: Option<UnixMs>,
    /// When there was last nothing left to read.
    pub caught_up_at: Option<UnixMs>,
    /// What holds it up.
    pub trouble: Option<String>,
}

impl Seen {
    /// The shards that are being read here.
    pub fn shards(&self) -> BTreeMap<ShardId, ShardSeen> {
        lock(&self.0).clone()
    }

    /// What keeps the stream from being read.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.1).clone()
    }

    fn note(&self, shard: &ShardId, note: impl FnOnce(&mut ShardSeen)) {
        note(lock(&self.0).entry(shard.clone()).or_default());
    }

    fn forget(&self, shard: &ShardId) {
        lock(&self.0).remove(shard);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How the reading of a shard ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// All of it is archived.
    AtItsEnd,
    /// Somebody else has it.
    Others,
    /// On request.
    Stopped,
}

/// What was found of a stream's shards.
struct Found {
    /// Those that can be read now: their parents are read to the end.
    ready: Vec<ShardId>,
    /// How many of them may be begun before the next look, so that others have their share.
    share: usize,
}

impl Follower {
    /// Follows until cancelled. What fails is tried again, and seen meanwhile.
    pub async fn run(&self, cancel: &CancellationToken) {
        // Read to the end, as far as is known here.
        let mut ended = BTreeSet::new();
        let mut here = BTreeSet::new();
        let mut reading: FuturesUnordered<BoxFuture<'_, (ShardId, Ended)>> = FuturesUnordered::new();
        let mut looking: BoxFuture<'_, (BTreeSet<ShardId>, Option<Found>)> =
            Box::pin(self.look(ended.clone(), SpanMs::ZERO));
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                Some((shard, how)) = reading.next(), if !reading.is_empty() => {
                    here.remove(&shard);
                    if how == Ended::AtItsEnd {
                        ended.insert(shard);
                        looking = Box::pin(self.look(ended.clone(), SpanMs::ZERO));
                    }
                }
                (known, found) = &mut looking => {
                    ended.extend(known);
                    let found = found.unwrap_or(Found { ready: Vec::new(), share: 0 });
                    let new = found.ready.into_iter().filter(|shard| !here.contains(shard));
                    let new: Vec<ShardId> = new.take(found.share.min(SHARDS_IN_FLIGHT - here.len())).collect();
                    let wait = if new.is_empty() { SHARDS_LOOK_EVERY } else { SHARD_IDLE };
                    for shard in new {
                        here.insert(shard.clone());
                        reading.push(Box::pin(async move {
                            let how = self.read_shard(&shard, cancel).await;
                            (shard, how)
                        }));
                    }
                    looking = Box::pin(self.look(ended.clone(), wait));
                }
            }
        }
        drop(looking);
        while reading.next().await.is_some() {}
    }

    /// Looks which shards can be read; and which are known to be read to their end.
    async fn look(&self, ended: BTreeSet<ShardId>, after: SpanMs) -> (BTreeSet<ShardId>, Option<Found>) {
        self.clock.sleep(after).await;
        let mut ended = ended;
        match self.try_look(&mut ended).await {
            Ok(found) => {
                *lock(&self.seen.1) = None;
                (ended, Some(found))
            }
            Err(error) => {
                let trouble = Some(chain(&error));
                let before = std::mem::replace(&mut *lock(&self.seen.1), trouble.clone());
                if before != trouble {
                    tracing::error!(table = self.archive.table, "the stream cannot be read: {}", chain(&error));
                }
                (ended, None)
            }
        }
    }

    async fn try_look(&self, ended: &mut BTreeSet<ShardId>) -> PortResult<Found> {
        let shards = self.stream.shards().await?;
        let listed: BTreeSet<&ShardId> = shards.iter().map(|shard| &shard.id).collect();
        self.note_forgotten(&listed, ended).await?;
        let mut ready = Vec::new();
        for Shard { id, parent } in
            shards.iter().filter(|shard| !ended.contains(&shard.id)).cloned().collect::<Vec<_>>()
        {
            // A parent that the stream has forgotten has nothing left to be read.
            match parent.as_ref().filter(|parent| listed.contains(parent)) {
                Some(parent) if !self.is_ended(parent, ended).await? => {}
                _ => ready.push(id),
            }
        }
        // Several processes that begin together each take some, in an order of their own.
        let turn = usize::try_from(self.nonces.jitter(ready.len().max(1) as u64)).unwrap_or(0);
        ready.rotate_left(turn);
        let share = ready.len().div_ceil(2);
        Ok(Found { ready, share })
    }

    async fn is_ended(&self, shard: &ShardId, ended: &mut BTreeSet<ShardId>) -> PortResult<bool> {
        if !ended.contains(shard) && self.places.read(shard).await?.ended {
            ended.insert(shard.clone());
        }
        Ok(ended.contains(shard))
    }

    /// Shards that were being read, and that the stream does not know any more: the rest of them is lost.
    async fn note_forgotten(&self, listed: &BTreeSet<&ShardId>, ended: &mut BTreeSet<ShardId>) -> PortResult<()> {
        for shard in self.places.known().await? {
            if listed.contains(&shard) || self.is_ended(&shard, ended).await? {
                continue;
            }
            // Its place stays as it is: should the stream tell of it again, it is read on.
            let place = self.places.read(&shard).await?;
            self.note_gap(&shard, &place, None).await?;
            ended.insert(shard);
        }
        Ok(())
    }

    async fn note_gap(&self, shard: &ShardId, place: &Place, before: Option<&(Sequence, UnixMs)>) -> PortResult<()> {
        if self.places.note_gap(shard, place.after.as_ref(), before, self.clock.now()).await? {
            self.archive.metrics.add(Counter::Gaps, 1);
        }
        Ok(())
    }

    async fn read_shard(&self, shard: &ShardId, cancel: &CancellationToken) -> Ended {
        let lease = format!("shard-{}-{shard}", self.archive.table);
        let mut hold = Hold { follower: self, lease, held: None };
        let mut tries = 0;
        let ended = loop {
            let mut reading = Reading { follower: self, shard, place: Place::default(), written_at: None, lost: false };
            match reading.run(&mut hold, &mut tries, cancel).await {
                Ok(ended) => break ended,
                Err(error) => {
                    tracing::warn!(table = self.archive.table, %shard, "reading is tried again: {}", chain(&error));
                    self.seen.note(shard, |seen| seen.trouble = Some(chain(&error)));
                    tries += 1;
                    if self.pause(tries, cancel).await {
                        break Ended::Stopped;
                    }
                }
            }
        };
        hold.give_back().await;
        self.seen.forget(shard);
        ended
    }

    /// Waits longer with each try; whether it was cancelled.
    async fn pause(&self, tries: u32, cancel: &CancellationToken) -> bool {
        let whole = STREAM_WAIT_MIN.0.saturating_mul(1 << tries.min(16)).min(STREAM_WAIT_MAX.0);
        let wait = SpanMs(whole / 2 + self.nonces.jitter(whole / 2 + 1));
        tokio::select! {
            () = cancel.cancelled() => true,
            () = self.clock.sleep(wait) => cancel.is_cancelled(),
        }
    }
}

/// The right to read a shard.
struct Hold<'a> {
    follower: &'a Follower,
    lease: String,
    /// When it was last renewed.
    held: Option<UnixMs>,
}

impl Hold<'_> {
    /// Takes or renews it when that is due; `false`: another one has it.
    async fn keep(&mut self) -> PortResult<bool> {
        let now = self.follower.clock.now();
        if self.held.is_some_and(|held| now.since(held) < SHARD_LEASE_RENEW_EVERY) {
            return Ok(true);
        }
        let until = now.plus(SHARD_LEASE_FOR);
        let Follower { leases, holder, .. } = self.follower;
        let has = leases.lease(&self.lease, holder, now, until).await?;
        self.held = has.then_some(now);
        Ok(has)
    }

    async fn give_back(self) {
        if self.held.is_none() {
            return;
        }
        let Follower { leases, holder, .. } = self.follower;
        if let Err(error) = leases.unlease(&self.lease, holder).await {
            tracing::warn!(lease = self.lease, "not given back, it ends by itself: {}", chain(&error));
        }
    }
}

/// A shard under way.
struct Reading<'a> {
    follower: &'a Follower,
    shard: &'a ShardId,
    place: Place,
    /// When the place was last written.
    written_at: Option<UnixMs>,
    /// Records behind the place are lost; it is not told yet which.
    lost: bool,
}

impl Reading<'_> {
    async fn run(&mut self, hold: &mut Hold<'_>, tries: &mut u32, cancel: &CancellationToken) -> PortResult<Ended> {
        let Follower { stream, places, clock, .. } = self.follower;
        if !hold.keep().await? {
            return Ok(Ended::Others);
        }
        self.place = places.read(self.shard).await?;
        if self.place.ended {
            return Ok(Ended::AtItsEnd);
        }
        let from = self.place.after.clone().map_or(Position::Oldest, |(sequence, _)| Position::After(sequence));
        let mut reader = stream.open(self.shard, from).await?;
        loop {
            if cancel.is_cancelled() {
                self.write_place().await?;
                return Ok(Ended::Stopped);
            }
            if !hold.keep().await? {
                return Ok(Ended::Others);
            }
            match reader.next().await? {
                Read::Records(records) if records.is_empty() => {
                    self.caught_up().await?;
                    *tries = 0;
                    tokio::select! {
                        () = cancel.cancelled() => {}
                        () = clock.sleep(SHARD_IDLE) => {}
                    }
                }
                Read::Records(records) => {
                    self.archive(&records, hold, cancel).await?;
                    *tries = 0;
                }
                Read::End => {
                    self.tell_lost(None).await?;
                    self.place.ended = true;
                    self.write_place().await?;
                    return Ok(Ended::AtItsEnd);
                }
                Read::Trimmed => {
                    self.lost = true;
                    reader = stream.open(self.shard, Position::Oldest).await?;
                }
            }
        }
    }

    /// Archives what was deleted, then moves the place behind it.
    async fn archive(
        &mut self,
        records: &[StreamRecord],
        hold: &mut Hold<'_>,
        cancel: &CancellationToken,
    ) -> PortResult<()> {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return Ok(()) };
        self.tell_lost(Some(&(first.sequence.clone(), first.at))).await?;
        let mut left: Vec<StreamRecord> = records.to_vec();
        let mut tries = 0;
        while let Some(error) = self.archive_left(&mut left).await {
            let trouble = chain(&error);
            tracing::warn!(table = self.follower.archive.table, shard = %self.shard, "archiving is tried again: {trouble}");
            self.follower.seen.note(self.shard, |seen| seen.trouble = Some(trouble));
            tries += 1;
            if self.follower.pause(tries, cancel).await || !hold.keep().await? {
                return Err(error);
            }
        }
        self.place.after = Some((last.sequence.clone(), last.at));
        self.follower.seen.note(self.shard, |seen| {
            seen.last = Some(last.at);
            seen.trouble = None;
        });
        let deleted = records.iter().any(|record| record.change != Change::Written);
        let now = self.follower.clock.now();
        let is_old = self.written_at.is_none_or(|at| now.since(at) >= SHARD_CHECKPOINT_EVERY);
        if deleted || is_old {
            self.write_place().await?;
        }
        Ok(())
    }

    /// Leaves those that could not be archived; why, of the first.
    async fn archive_left(&self, left: &mut Vec<StreamRecord>) -> Option<PortError> {
        let ended = self.follower.archive.archive(left).await;
        let mut failed = ended.iter();
        left.retain(|_| failed.next().is_some_and(Result::is_err));
        ended.into_iter().find_map(Result::err)
    }

    async fn caught_up(&mut self) -> PortResult<()> {
        self.tell_lost(None).await?;
        let now = self.follower.clock.now();
        self.follower.seen.note(self.shard, |seen| {
            seen.caught_up_at = Some(now);
            seen.trouble = None;
        });
        Ok(())
    }

    /// Notes what was lost, now that it is known what comes next.
    async fn tell_lost(&mut self, before: Option<&(Sequence, UnixMs)>) -> PortResult<()> {
        if self.lost {
            self.follower.note_gap(self.shard, &self.place, before).await?;
            self.lost = false;
        }
        Ok(())
    }

    async fn write_place(&mut self) -> PortResult<()> {
        if self.place != Place::default() {
            self.follower.places.write(self.shard, &self.place).await?;
        }
        self.written_at = Some(self.follower.clock.now());
        Ok(())
    }
}
