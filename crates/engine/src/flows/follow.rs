//! Follow: reads a table's stream, shard by shard, and archives what was deleted.
//!
//! Any number of processes may follow one stream. Each shard belongs to who has its lease; who dies is followed by another
//! when that is over. A parent is read to its end before its children begin, so that the deletions of one key are archived in
//! their order. The place up to which a shard is read is written after everything before it is durable in the archive, so a
//! crash reads some records again, which makes no second object (I8). Where somebody is to be told, what was archived is put
//! into the outbox in between, and told from there (`flows/feed.rs`).
//!
//! An outage of the archive holds the shard at its place, for as long as the outage lasts; what the stream drops meanwhile
//! (after a day) is told as a gap, with its exact edges, and kept as an object. Laws: I8, I10, I11.

use crate::error::{ErrorKind, PortResult};
use crate::flows::archive::{Archive, Batch};
use crate::limits::{
    PLACES_LOOK_EVERY, SHARD_CHECKPOINT_EVERY, SHARD_IDLE, SHARD_LEASE_RENEW_EVERY, SHARDS_IN_FLIGHT, SHARDS_LOOK_EVERY,
};
use crate::ports::catalog::Catalog;
use crate::ports::clock::{Clock, Nonces};
use crate::ports::metrics::Counter;
use crate::ports::streams::{Change, Position, Read, RecordStream, Shard, ShardId, StreamRecord};
use crate::report::chain;
use crate::steps::hold::{Hold, pause_after};
use crate::steps::outbox::Outbox;
use crate::steps::shard_places::{Place, ShardPlaces};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use lifecycle::archive::Sequence;
use lifecycle::time::{SpanMs, UnixMs};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Follows one stream.
pub struct Follower {
    /// The stream.
    pub stream: Arc<dyn RecordStream>,
    /// Where deleted records go.
    pub archive: Archive,
    /// What is to be told of what is archived, where somebody is.
    pub outbox: Option<Arc<Outbox>>,
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
pub struct Seen {
    shards: Mutex<BTreeMap<ShardId, ShardSeen>>,
    trouble: Mutex<Option<String>>,
}

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
        lock(&self.shards).clone()
    }

    /// What keeps the stream from being read.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }

    fn note(&self, shard: &ShardId, note: impl FnOnce(&mut ShardSeen)) {
        note(lock(&self.shards).entry(shard.clone()).or_default());
    }

    fn forget(&self, shard: &ShardId) {
        lock(&self.shards).remove(shard);
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
    /// The stream does not know it any more.
    Gone,
    /// Somebody else has it.
    Others,
    /// On request.
    Stopped,
}

/// What is known of a stream's shards, from one look to the next.
#[derive(Default)]
struct Known {
    /// Read to the end.
    ended: BTreeSet<ShardId>,
    /// Being read here.
    here: BTreeSet<ShardId>,
    /// Others have it, as of then: left alone for a while.
    others: BTreeMap<ShardId, UnixMs>,
    /// When it was last looked for shards that the stream has forgotten.
    compared_at: Option<UnixMs>,
}

impl Follower {
    /// Follows until cancelled. What fails is tried again, and seen meanwhile.
    pub async fn run(&self, cancel: &CancellationToken) {
        let known = Mutex::new(Known::default());
        let again = Notify::new();
        let mut reading: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
        let mut looking = Box::pin(self.look(&known, &again, SpanMs::ZERO));
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                Some(()) = reading.next(), if !reading.is_empty() => {}
                begun = &mut looking => {
                    let wait = if begun.is_empty() { SHARDS_LOOK_EVERY } else { SHARD_IDLE };
                    for shard in begun {
                        let (known, again) = (&known, &again);
                        reading.push(Box::pin(async move {
                            let how = self.read_shard(&shard, cancel).await;
                            self.note_end(shard, how, known, again);
                        }));
                    }
                    looking = Box::pin(self.look(&known, &again, wait));
                }
            }
        }
        drop(looking);
        while reading.next().await.is_some() {}
    }

    fn note_end(&self, shard: ShardId, how: Ended, known: &Mutex<Known>, again: &Notify) {
        let mut known = lock(known);
        known.here.remove(&shard);
        match how {
            Ended::AtItsEnd => {
                known.ended.insert(shard);
                // Its children can be read now.
                again.notify_one();
            }
            Ended::Others => drop(known.others.insert(shard, self.clock.now())),
            Ended::Gone | Ended::Stopped => {}
        }
    }

    /// After a while, or when asked to, looks which shards can be read, and takes a part of them.
    async fn look(&self, known: &Mutex<Known>, again: &Notify, after: SpanMs) -> Vec<ShardId> {
        tokio::select! {
            () = again.notified() => {}
            () = self.clock.sleep(after) => {}
        }
        let (trouble, ready) = match self.ready(known).await {
            Ok(ready) => (None, ready),
            Err(error) => (Some(chain(&error)), Vec::new()),
        };
        let before = std::mem::replace(&mut *lock(&self.seen.trouble), trouble.clone());
        if let Some(why) = trouble.as_ref().filter(|_| before != trouble) {
            tracing::error!(table = self.archive.table, "the stream cannot be read: {why}");
        }
        let mut known = lock(known);
        let room = SHARDS_IN_FLIGHT.saturating_sub(known.here.len());
        // Half of them, so that others who look at the same time have their share, in an order of their own.
        let share = ready.len().div_ceil(2).min(room);
        let mut ready = ready;
        let turn = usize::try_from(self.nonces.jitter(ready.len().max(1) as u64)).unwrap_or(0);
        ready.rotate_left(turn);
        ready.truncate(share);
        known.here.extend(ready.iter().cloned());
        ready
    }

    /// The shards that can be read, and are not: their parents are read to the end.
    async fn ready(&self, known: &Mutex<Known>) -> PortResult<Vec<ShardId>> {
        let now = self.clock.now();
        let is_late = lock(known).compared_at.is_none_or(|at| now.since(at) >= PLACES_LOOK_EVERY);
        // Before the stream is asked: a shard that begins between the two is not taken for a forgotten one.
        let places = if is_late { self.places.known().await? } else { Vec::new() };
        let shards = match self.stream.shards().await {
            Err(error) if error.kind != ErrorKind::Missing => return Err(error),
            shards => shards,
        };
        let listed: BTreeSet<ShardId> = shards.iter().flatten().map(|shard| shard.id.clone()).collect();
        let here = lock(known).here.clone();
        for shard in places.iter().filter(|shard| !listed.contains(shard) && !here.contains(shard)) {
            self.note_forgotten(shard).await?;
        }
        if is_late {
            lock(known).compared_at = Some(now);
        }
        let mut ready = Vec::new();
        for Shard { id, parent } in shards? {
            let is_left_alone = {
                let known = lock(known);
                let by_others = known.others.get(&id).is_some_and(|at| now.since(*at) < SHARD_LEASE_RENEW_EVERY);
                by_others || known.here.contains(&id) || known.ended.contains(&id)
            };
            if is_left_alone {
                continue;
            }
            // A parent that the stream has forgotten has nothing left to be read.
            match parent.filter(|parent| listed.contains(parent)) {
                Some(parent) if !self.is_ended(&parent, known).await? => {}
                _ => ready.push(id),
            }
        }
        Ok(ready)
    }

    async fn is_ended(&self, shard: &ShardId, known: &Mutex<Known>) -> PortResult<bool> {
        let (is_here, is_known) = {
            let known = lock(known);
            (known.here.contains(shard), known.ended.contains(shard))
        };
        if is_here || is_known {
            return Ok(is_known);
        }
        let ended = self.places.read(shard).await?.ended;
        if ended {
            lock(known).ended.insert(shard.clone());
        }
        Ok(ended)
    }

    /// A shard that was being read, and that the stream does not know any more: the rest of it is lost. Should the stream tell
    /// of it again, it is read on.
    async fn note_forgotten(&self, shard: &ShardId) -> PortResult<()> {
        if self.places.note_forgotten(shard, self.clock.now()).await? {
            self.archive.metrics.add(Counter::Gaps, 1);
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
        let lease = format!("shard-{}-{}-{shard}", self.archive.table, self.stream.name());
        let mut hold = Hold::new(self.leases.as_ref(), self.clock.as_ref(), &self.holder, lease);
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
        let wait = pause_after(tries, self.nonces.as_ref());
        tokio::select! {
            () = cancel.cancelled() => true,
            () = self.clock.sleep(wait) => cancel.is_cancelled(),
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
        let Follower { stream, places, clock, seen, .. } = self.follower;
        if !hold.keep().await? {
            return Ok(Ended::Others);
        }
        self.place = places.read(self.shard).await?;
        if self.place.ended {
            return Ok(Ended::AtItsEnd);
        }
        if self.place == Place::default() {
            // From now on it is missed, should the stream forget it.
            self.write_place().await?;
        }
        seen.note(self.shard, |seen| seen.last = self.place.after.as_ref().map(|(_, at)| *at));
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
                    self.caught_up();
                    *tries = 0;
                    tokio::select! {
                        () = cancel.cancelled() => {}
                        () = clock.sleep(SHARD_IDLE) => {}
                    }
                }
                Read::Records(records) => {
                    if !self.archive(&records, hold, cancel).await? {
                        return Ok(Ended::Others);
                    }
                    *tries = 0;
                }
                Read::End => {
                    self.tell_lost(None).await?;
                    self.place.ended = true;
                    self.write_place().await?;
                    return Ok(Ended::AtItsEnd);
                }
                Read::Gone => {
                    self.follower.note_forgotten(self.shard).await?;
                    return Ok(Ended::Gone);
                }
                Read::Trimmed => {
                    let table = &self.follower.archive.table;
                    tracing::error!(table, shard = %self.shard, "the stream has forgotten records that were not read yet");
                    self.lost = true;
                    reader = stream.open(self.shard, Position::Oldest).await?;
                }
            }
        }
    }

    /// Archives what was deleted, then moves the place behind it; `false`: the shard is another's by now.
    async fn archive(
        &mut self,
        records: &[StreamRecord],
        hold: &mut Hold<'_>,
        cancel: &CancellationToken,
    ) -> PortResult<bool> {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return Ok(true) };
        self.tell_lost(Some(&(first.sequence.clone(), first.at))).await?;
        let (mut batch, mut tries) = (Batch::of(records.to_vec()), 0);
        while let Some(error) = batch.archive(&self.follower.archive).await {
            let (trouble, table) = (chain(&error), &self.follower.archive.table);
            tracing::warn!(table, shard = %self.shard, "archiving is tried again: {trouble}");
            self.follower.seen.note(self.shard, |seen| seen.trouble = Some(trouble));
            tries += 1;
            if self.follower.pause(tries, cancel).await {
                return Err(error);
            }
            if !hold.keep().await? {
                return Ok(false);
            }
        }
        // It may have taken longer than the lease: another's place is not to be taken back.
        if !hold.keep().await? {
            return Ok(false);
        }
        let archived = batch.archived();
        if let Some(outbox) = self.follower.outbox.as_ref().filter(|_| !archived.is_empty()) {
            outbox.put(self.follower.stream.name(), &self.shard.0, &archived).await?;
        }
        self.place = Place { after: Some((last.sequence.clone(), last.at)), ..Place::default() };
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
        Ok(true)
    }

    fn caught_up(&self) {
        let now = self.follower.clock.now();
        self.follower.seen.note(self.shard, |seen| {
            seen.caught_up_at = Some(now);
            seen.trouble = None;
        });
    }

    /// Notes what was lost, once it is known what comes next: a page without records says nothing of that.
    async fn tell_lost(&mut self, before: Option<&(Sequence, UnixMs)>) -> PortResult<()> {
        if self.lost {
            self.follower.note_gap(self.shard, &self.place, before).await?;
            self.lost = false;
        }
        Ok(())
    }

    async fn write_place(&mut self) -> PortResult<()> {
        self.follower.places.write(self.shard, &self.place).await?;
        self.written_at = Some(self.follower.clock.now());
        Ok(())
    }
}
