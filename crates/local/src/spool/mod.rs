//! The event spool: events of local sources, and those that nobody could handle, in `state.sqlite`.
//!
//! Place: a write to a source puts its event in the transaction of its object row (`insert`); the driver takes events
//! through [`EventQueue`]. Laws: I8 (in the spool until done), I10, V7.
//!
//! What was handed out is remembered in memory only: a crash hands everything out again that was not done. `done` is one
//! transaction for a whole batch; bytes of superseded versions that only waited for it are deleted after it. A crash between
//! leaves versions that nobody waits for, which the next opening deletes.

mod rows;

pub(crate) use rows::{insert, pending};

use crate::limits::UNANSWERED_WAIT;
use crate::sqlite::error_map::Fault;
use crate::sqlite::open::Database;
use crate::store::reclaim::{Freed, Reclaimer};
use async_trait::async_trait;
use engine::error::{ErrorKind, PortError, PortResult};
use engine::ports::clock::Clock;
use engine::ports::events::{Backlog, DeadLetter, DeadLetters, Delivery, EventQueue, Receipt};
use lifecycle::event::ObjectEvent;
use lifecycle::time::UnixMs;
use rows::Waiting;
use std::collections::{BTreeSet, HashMap};
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

/// What was handed out and what waits, by number of the event.
#[derive(Default)]
struct Hand {
    /// Events up to this number were seen.
    seen: i64,
    /// Attempts of the events that were handed out.
    out: HashMap<i64, u32>,
    /// Events seen that wait: not before then.
    later: BTreeSet<(i64, i64)>,
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
    async fn take(&self, limit: usize) -> PortResult<Result<Vec<Delivery>, Option<i64>>> {
        let now = self.clock.now().0;
        let (seen, due): (i64, HashMap<i64, i64>) = {
            let hand = self.hand();
            let due = hand.later.iter().take_while(|(at, _)| *at <= now).take(limit).map(|(at, id)| (*id, *at));
            (hand.seen, due.collect())
        };
        let ids: Vec<i64> = due.keys().copied().collect();
        let found = self.db.read("read events", "spool", move |db| rows::read(db, &ids, seen, limit)).await?;
        // No await from here on: what is noted as handed out is handed out.
        let mut hand = self.hand();
        let mut deliveries = Vec::with_capacity(found.len());
        for Waiting { id, attempts, not_before, bucket, event } in found {
            if id > hand.seen {
                hand.seen = id;
                if not_before > now {
                    hand.later.insert((not_before, id));
                    continue;
                }
            } else if !due.get(&id).is_some_and(|at| hand.later.contains(&(*at, id))) {
                continue; // Another look was faster.
            }
            hand.out.insert(id, attempts + 1);
            deliveries.push(Delivery { receipt: Receipt(id.to_string()), attempts: attempts + 1, bucket, event });
        }
        // One that was due and has no row any more must not be asked for again and again.
        for (id, at) in due {
            hand.later.remove(&(at, id));
        }
        if deliveries.is_empty() {
            return Ok(Err(hand.later.first().map(|(at, _)| *at)));
        }
        Ok(Ok(deliveries))
    }

    /// One that was out is handed out again, not before then, whether or not the database could note it down.
    fn deliver_later(&self, id: i64, not_before: UnixMs) {
        let mut hand = self.hand();
        if hand.out.remove(&id).is_some() {
            hand.later.insert((not_before.0, id));
        }
        drop(hand);
        self.news.notify_one();
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
                let not_before = self.clock.now().plus(UNANSWERED_WAIT);
                ids.into_iter().for_each(|id| self.deliver_later(id, not_before));
                return Err(error);
            }
        };
        self.waiting.fetch_sub(i64::try_from(gone).unwrap_or(i64::MAX), Ordering::Relaxed);
        let mut hand = self.hand();
        for id in ids {
            hand.out.remove(&id);
        }
        Ok(())
    }

    async fn again(&self, receipt: &Receipt, not_before: UnixMs, why: &str) -> PortResult<()> {
        for (id, attempts) in self.returned(std::slice::from_ref(receipt))? {
            let why = why.to_owned();
            let put_back = move |db: &rusqlite::Connection| rows::again(db, id, attempts, not_before, &why);
            let noted = self.db.write("put event back", &receipt.0, put_back).await;
            self.deliver_later(id, not_before); // also when it could not be noted: the disk may be full
            noted?;
        }
        self.news.notify_one();
        Ok(())
    }

    async fn give_up(&self, receipt: &Receipt, why: &str) -> PortResult<()> {
        for (id, attempts) in self.returned(std::slice::from_ref(receipt))? {
            let (why, died_at) = (why.to_owned(), self.clock.now());
            let bury = move |db: &rusqlite::Connection| rows::bury(db, id, attempts, &why, died_at);
            if let Err(error) = self.db.write("give event up", &receipt.0, bury).await {
                self.deliver_later(id, self.clock.now().plus(UNANSWERED_WAIT));
                return Err(error);
            }
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.hand().out.remove(&id);
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
        {
            let mut hand = self.hand();
            for id in &back {
                // One not seen yet since the start is found by its number.
                if *id <= hand.seen {
                    hand.later.insert((0, *id));
                }
            }
        }
        self.news.notify_one();
        Ok(back.len() as u64)
    }

    async fn drop_letters(&self, ids: &[u64]) -> PortResult<u64> {
        let ids = ids.iter().filter_map(|id| i64::try_from(*id).ok()).collect();
        self.forget(ids, rows::From::Dead).await
    }
}
