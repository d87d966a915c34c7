//! The event spool: events of local sources, and those that nobody could handle, in `state.sqlite`.
//!
//! Place: a write to a source puts its event in the transaction of its object row (`insert`); the driver takes events
//! through [`EventQueue`]. Laws: I8 (in the spool until done), I10, V7.
//!
//! What waits for its time stands in the table alone, found by an index over the times, so that memory does not grow with
//! what waits (I10). What was handed out is remembered in memory only, and so, for a while, is what failed while the answer
//! could not be noted; both together are limited. A crash hands everything out again that was not done. `done` is one
//! transaction for a whole batch; bytes of superseded versions that only waited for it are deleted after it. A crash between
//! leaves versions that nobody waits for, which the next opening deletes.

mod rows;

#[cfg(test)]
mod tests;

pub(crate) use rows::{insert, pending};

use crate::limits::{BUCKET_LOOK_MAX, HAND_MAX, UNANSWERED_WAIT};
use crate::sqlite::error_map::Fault;
use crate::sqlite::open::Database;
use crate::store::reclaim::{Freed, Reclaimer};
use async_trait::async_trait;
use engine::error::{ErrorKind, PortError, PortResult};
use engine::ports::clock::Clock;
use engine::ports::events::{Backlog, DeadLetter, DeadLetters, Delivery, EventQueue, Receipt};
use lifecycle::event::ObjectEvent;
use lifecycle::time::UnixMs;
use rows::{Look, Looked, Waiting};
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The queue and its dead letters.
pub struct Spool {
    db: Arc<Database>,
    clock: Arc<dyn Clock>,
    reclaimer: Reclaimer,
    hand: Mutex<Hand>,
    /// Events in the spool. Changed after the transaction that changes them: exact when nothing is under way.
    waiting: AtomicI64,
    news: Notify,
    receiving: tokio::sync::Mutex<()>,
}

/// What the table does not know, by number of the event.
#[derive(Default)]
struct Hand {
    /// New events up to this number were handed out.
    seen: i64,
    /// Attempts of the events that were handed out.
    out: HashMap<i64, u32>,
    /// Events whose answer could not be noted down: not before then, whatever the table says.
    unnoted: HashMap<i64, i64>,
    /// It was too full to hand out more: whoever makes room says so.
    full: bool,
    /// Whose turn it is to have the odd place of a batch: those that waited, or new ones.
    waited_first: bool,
}

impl Hand {
    fn holds(&self, id: i64) -> bool {
        self.out.contains_key(&id) || self.unnoted.contains_key(&id)
    }

    fn len(&self) -> usize {
        self.out.len() + self.unnoted.len()
    }
}

impl Spool {
    /// Takes up the spool of an open database.
    pub(crate) async fn open(db: Arc<Database>, clock: Arc<dyn Clock>, reclaimer: Reclaimer) -> PortResult<Spool> {
        let waiting = db.read("count events", "spool", rows::count_waiting).await?;
        Ok(Spool {
            db,
            clock,
            reclaimer,
            hand: Mutex::default(),
            waiting: AtomicI64::new(waiting),
            news: Notify::new(),
            receiving: tokio::sync::Mutex::new(()),
        })
    }

    /// Events were committed together with what they tell of.
    pub(crate) fn committed(&self, events: usize) {
        self.waiting.fetch_add(i64::try_from(events).unwrap_or(i64::MAX), Ordering::Relaxed);
        self.news.notify_one();
    }

    /// Puts events of another source into the spool, durably.
    pub async fn push(&self, bucket: &str, events: Vec<ObjectEvent>) -> PortResult<()> {
        let (count, bucket) = (events.len(), bucket.to_owned());
        let put = move |db: &rusqlite::Connection| -> Result<(), Fault> {
            events.iter().try_for_each(|event| insert(db, &bucket, event).map(drop))
        };
        self.db.write("put events", "spool", put).await?;
        self.committed(count);
        Ok(())
    }

    fn hand(&self) -> MutexGuard<'_, Hand> {
        self.hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One look at what may be delivered now. `Err`: nothing; the time of the next that waits.
    ///
    /// Half of a batch is for those that have waited and half for new ones, as far as there are any: neither an outage's
    /// many retries nor a flood of puts keeps the others from their turn.
    async fn take(&self, limit: usize) -> PortResult<Result<Vec<Delivery>, Option<i64>>> {
        let now = self.clock.now().0;
        let look = {
            let mut hand = self.hand();
            hand.full = hand.len() >= HAND_MAX;
            let room = if hand.full { 0 } else { limit };
            // Those that are out, or not noted, stand in the table too, and are passed over.
            Look { now, seen: hand.seen, new: room, due: if hand.full { 0 } else { room + hand.len() } }
        };
        let looked = self.db.read("read events", "spool", move |db| rows::look(db, look)).await?;
        let Looked { due, next, new, all_seen } = looked;
        let due = self.choose(due, now, limit, new.len());
        let waited = match due.is_empty() {
            true => Vec::new(),
            // Only now: one that was answered between the two looks has no row any more, or another time.
            false => {
                let wanted = due.clone();
                self.db.read("read events", "spool", move |db| rows::read(db, &wanted)).await?
            }
        };
        // No await from here on: what is noted as handed out is handed out.
        let mut hand = self.hand();
        self.drop_gone(&mut hand, &due, &waited);
        let mut deliveries = Vec::with_capacity(limit.min(waited.len() + new.len()));
        for waiting in waited {
            if hand.unnoted.remove(&waiting.id).is_some() || waiting.not_before <= now {
                deliveries.push(hand_out(&mut hand, waiting));
            }
        }
        let room = limit - deliveries.len();
        hand.seen = all_seen.filter(|_| new.len() <= room).unwrap_or(hand.seen).max(hand.seen);
        for waiting in new.into_iter().take(room) {
            hand.seen = hand.seen.max(waiting.id);
            deliveries.push(hand_out(&mut hand, waiting));
        }
        if deliveries.is_empty() {
            let unnoted = hand.unnoted.values().min().copied();
            return Ok(Err(next.filter(|_| !hand.full).into_iter().chain(unnoted).min()));
        }
        Ok(Ok(deliveries))
    }

    /// Which of those whose time has come are delivered: of the table's, as they stand there, and of those that could not
    /// be noted down.
    fn choose(&self, due: Vec<i64>, now: i64, limit: usize, new: usize) -> Vec<i64> {
        let mut hand = self.hand();
        hand.waited_first = !hand.waited_first;
        let half = if hand.waited_first { limit.div_ceil(2) } else { limit / 2 };
        let places = half.max(limit.saturating_sub(new));
        let unnoted = hand.unnoted.iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id);
        let noted = due.into_iter().filter(|id| !hand.holds(*id));
        unnoted.chain(noted).take(places).collect()
    }

    /// One that was out and whose answer could not be noted down: it is handed out again a little later.
    fn not_noted(&self, id: i64) {
        let at = self.clock.now().plus(UNANSWERED_WAIT).0;
        let mut hand = self.hand();
        if hand.out.remove(&id).is_some() {
            hand.unnoted.insert(id, at);
        }
        drop(hand);
        self.news.notify_one();
    }

    /// Forgets those whose answer was noted after all, by a transaction that reported failure. `read`: what is there of the
    /// chosen ones, in order of their numbers.
    fn drop_gone(&self, hand: &mut Hand, chosen: &[i64], read: &[Waiting]) {
        let gone = chosen.iter().filter(|id| read.binary_search_by_key(*id, |waiting| waiting.id).is_err());
        let dropped = gone.filter(|id| hand.unnoted.remove(id).is_some()).count();
        if dropped > 0 {
            self.waiting.fetch_sub(i64::try_from(dropped).unwrap_or(i64::MAX), Ordering::Relaxed);
            // There is room again, which this look did not use.
            hand.full = false;
            self.news.notify_one();
        }
    }

    /// These are out no more; wakes up who waits for the room.
    fn taken_back(&self, ids: &[i64]) {
        let mut hand = self.hand();
        for id in ids {
            hand.out.remove(id);
        }
        if std::mem::take(&mut hand.full) {
            self.news.notify_one();
        }
    }

    /// The numbers behind receipts that are still out.
    fn returned(&self, receipts: &[Receipt]) -> PortResult<Vec<(i64, u32)>> {
        let hand = self.hand();
        let mut ids = Vec::with_capacity(receipts.len());
        for receipt in receipts {
            let id: i64 = receipt.0.parse().map_err(|_| {
                PortError::new("answer event", &receipt.0, ErrorKind::Invalid("no receipt of this spool".to_owned()))
            })?;
            ids.extend(hand.out.get(&id).map(|attempts| (id, *attempts)));
        }
        Ok(ids)
    }

    async fn forget(&self, ids: Vec<i64>, from: rows::From) -> PortResult<u64> {
        let work = move |db: &rusqlite::Connection| rows::forget(db, &ids, from);
        let (gone, freed): (u64, Vec<Freed>) = self.db.write("delete events", "spool", work).await?;
        self.reclaimer.hand_over(freed);
        Ok(gone)
    }
}

/// Notes one as handed out, and makes its delivery.
fn hand_out(hand: &mut Hand, waiting: Waiting) -> Delivery {
    let Waiting { id, attempts, bucket, event, .. } = waiting;
    hand.out.insert(id, attempts + 1);
    Delivery { receipt: Receipt(id.to_string()), attempts: attempts + 1, bucket, event }
}

impl Spool {
    /// Whether events of that bucket are not handled yet. `None`: not among the oldest [`BUCKET_LOOK_MAX`], and there are more.
    pub async fn waits_for(&self, bucket: &str) -> PortResult<Option<bool>> {
        let name = bucket.to_owned();
        self.db.read("look for events", bucket, move |db| rows::waits_for(db, &name, BUCKET_LOOK_MAX)).await
    }
}

#[async_trait]
impl EventQueue for Spool {
    async fn receive(&self, limit: usize) -> PortResult<Vec<Delivery>> {
        let _one_at_a_time = self.receiving.lock().await;
        loop {
            let next = match self.take(limit.max(1)).await? {
                Ok(deliveries) => return Ok(deliveries),
                Err(next) => next,
            };
            match next {
                None => self.news.notified().await,
                Some(at) => {
                    let wait = UnixMs(at).since(self.clock.now());
                    tokio::select! {
                        () = self.news.notified() => {}
                        () = self.clock.sleep(wait) => {}
                    }
                }
            }
        }
    }

    async fn done(&self, receipts: &[Receipt]) -> PortResult<()> {
        let ids: Vec<i64> = self.returned(receipts)?.into_iter().map(|(id, _)| id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let gone = match self.forget(ids.clone(), rows::From::Spool).await {
            Ok(gone) => gone,
            Err(error) => {
                ids.into_iter().for_each(|id| self.not_noted(id));
                return Err(error);
            }
        };
        self.waiting.fetch_sub(i64::try_from(gone).unwrap_or(i64::MAX), Ordering::Relaxed);
        self.taken_back(&ids);
        Ok(())
    }

    async fn again(&self, receipt: &Receipt, not_before: UnixMs, why: &str) -> PortResult<()> {
        for (id, attempts) in self.returned(std::slice::from_ref(receipt))? {
            let why = why.to_owned();
            let put_back = move |db: &rusqlite::Connection| rows::again(db, id, attempts, not_before, &why);
            if let Err(error) = self.db.write("put event back", &receipt.0, put_back).await {
                self.not_noted(id); // the disk may be full
                return Err(error);
            }
            self.taken_back(&[id]);
        }
        // Its time may come before all others'.
        self.news.notify_one();
        Ok(())
    }

    async fn give_up(&self, receipt: &Receipt, why: &str) -> PortResult<()> {
        for (id, attempts) in self.returned(std::slice::from_ref(receipt))? {
            let (why, died_at) = (why.to_owned(), self.clock.now());
            let bury = move |db: &rusqlite::Connection| rows::bury(db, id, attempts, &why, died_at);
            if let Err(error) = self.db.write("give event up", &receipt.0, bury).await {
                self.not_noted(id);
                return Err(error);
            }
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.taken_back(&[id]);
        }
        Ok(())
    }

    async fn backlog(&self) -> PortResult<Backlog> {
        let (oldest, dead) = self.db.read("count events", "spool", rows::oldest_and_dead).await?;
        let waiting = u64::try_from(self.waiting.load(Ordering::Relaxed)).unwrap_or(0);
        Ok(Backlog { waiting, oldest: oldest.map(UnixMs), dead })
    }
}

#[async_trait]
impl DeadLetters for Spool {
    async fn list(&self, after: Option<u64>, limit: usize) -> PortResult<Vec<DeadLetter>> {
        self.db.read("list dead letters", "spool", move |db| rows::dead(db, after.unwrap_or(0), limit)).await
    }

    async fn redrive(&self, ids: &[u64]) -> PortResult<u64> {
        let ids: Vec<i64> = ids.iter().filter_map(|id| i64::try_from(*id).ok()).collect();
        let back = self.db.write("redrive dead letters", "spool", move |db| rows::redrive(db, &ids)).await?;
        self.waiting.fetch_add(i64::try_from(back.len()).unwrap_or(i64::MAX), Ordering::Relaxed);
        self.news.notify_one();
        Ok(back.len() as u64)
    }

    async fn drop_letters(&self, ids: &[u64]) -> PortResult<u64> {
        let ids = ids.iter().filter_map(|id| i64::try_from(*id).ok()).collect();
        self.forget(ids, rows::From::Dead).await
    }
}
