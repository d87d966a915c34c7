//! Deleting the bytes of superseded versions, once nobody can ask for them any more.
//!
//! Place: behind writes that supersede and behind the spool's `done`. A version is kept while the event that created it
//! waits or lies among the dead letters; then its bytes go, and only then its row. A crash between leaves a row whose bytes
//! are gone, or both: the next opening sweeps. Nothing here is fsynced: a version whose bytes came back after a power cut
//! has no row, and a reindex removes it.

use super::index::delete_superseded;
use super::limits::{RECLAIM_BATCH, RECLAIM_QUEUE};
use super::path::Sequencer;
use super::{Store, path};
use crate::sqlite::error_map::Fault;
use lifecycle::ids::ObjectKey;
use rusqlite::{Connection, Row, params};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use tokio::sync::{mpsc, oneshot};

/// A superseded version that nobody waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Freed {
    pub(super) bucket: i64,
    pub(super) key: String,
    pub(super) sequencer: Sequencer,
    pub(super) path: String,
}

/// Hands versions over to the task that deletes them.
#[derive(Clone)]
pub(crate) struct Reclaimer {
    queue: mpsc::Sender<Message>,
    /// The queue was full once: everything must be looked through.
    overflowed: Arc<AtomicBool>,
}

/// The other end, until the store is there.
pub(super) struct Reclaims {
    queue: mpsc::Receiver<Message>,
    overflowed: Arc<AtomicBool>,
}

enum Message {
    Freed(Vec<Freed>),
    Flush(oneshot::Sender<()>),
}

/// The versions that wait for this event only.
pub(crate) fn freed_by_event(db: &Connection, event: i64, freed: &mut Vec<Freed>) -> Result<(), Fault> {
    const SQL: &str = "SELECT bucket, key, sequencer, path FROM superseded WHERE event = ?1";
    let mut statement = db.prepare_cached(SQL)?;
    let mut rows = statement.query([event])?;
    while let Some(row) = rows.next()? {
        freed.extend(read_freed(row)?);
    }
    Ok(())
}

/// Versions that nobody waits for: left by a crash, or by a full queue.
fn all_freed(db: &Connection) -> Result<Vec<Freed>, Fault> {
    const SQL: &str = "SELECT bucket, key, sequencer, path FROM superseded AS old \
                       WHERE NOT EXISTS (SELECT 1 FROM spool WHERE id = old.event) \
                       AND NOT EXISTS (SELECT 1 FROM dead WHERE id = old.event) LIMIT ?1";
    let mut statement = db.prepare_cached(SQL)?;
    let mut rows = statement.query(params![RECLAIM_BATCH as i64])?;
    let mut freed = Vec::new();
    while let Some(row) = rows.next()? {
        freed.extend(read_freed(row)?);
    }
    Ok(freed)
}

fn read_freed(row: &Row<'_>) -> Result<Option<Freed>, Fault> {
    let key: String = row.get(1)?;
    let sequencer: String = row.get(2)?;
    let path: Option<String> = row.get(3)?;
    // What cannot be read stays: an orphan is better than a wrong delete.
    let (Some(sequencer), Ok(object)) = (Sequencer::parse(&sequencer), ObjectKey::new(key.clone())) else {
        return Ok(None);
    };
    let path = path.unwrap_or_else(|| path::path_of(&object, Some(sequencer)).join("/"));
    Ok(Some(Freed { bucket: row.get(0)?, key, sequencer, path }))
}

impl Reclaimer {
    pub(super) fn new() -> (Reclaimer, Reclaims) {
        let (sender, receiver) = mpsc::channel(RECLAIM_QUEUE);
        let overflowed = Arc::new(AtomicBool::new(true));
        (Reclaimer { queue: sender, overflowed: Arc::clone(&overflowed) }, Reclaims { queue: receiver, overflowed })
    }

    /// Hands versions over; never waits.
    pub(crate) fn hand_over(&self, freed: Vec<Freed>) {
        if !freed.is_empty() && self.queue.try_send(Message::Freed(freed)).is_err() {
            self.overflowed.store(true, Ordering::Release);
        }
    }

    /// Waits until everything handed over before is deleted.
    pub(super) async fn flush(&self) {
        let (done, end) = oneshot::channel();
        if self.queue.send(Message::Flush(done)).await.is_ok() {
            // An error means that the task has ended: the next opening sweeps.
            drop(end.await);
        }
    }
}

impl Reclaims {
    /// Deletes what is handed over, in batches, until the store is gone.
    pub(super) async fn serve(mut self, store: Weak<Store>) {
        let mut messages = Vec::new();
        while self.queue.recv_many(&mut messages, RECLAIM_BATCH).await > 0 {
            let Some(store) = store.upgrade() else { return };
            let mut freed = Vec::new();
            let mut waiting = Vec::new();
            for message in messages.drain(..) {
                match message {
                    Message::Freed(more) => freed.extend(more),
                    Message::Flush(done) => waiting.push(done),
                }
            }
            for batch in freed.chunks(RECLAIM_BATCH) {
                self.reclaim(&store, batch.to_vec()).await;
            }
            if self.overflowed.swap(false, Ordering::Acquire) {
                self.sweep(&store).await;
            }
            for done in waiting {
                if done.send(()).is_err() {
                    tracing::debug!("nobody waits for the reclaimer any more");
                }
            }
        }
    }

    async fn sweep(&self, store: &Store) {
        loop {
            match store.db.read("find superseded versions", "state.sqlite", all_freed).await {
                Ok(batch) if batch.is_empty() => return,
                Ok(batch) => {
                    let full = batch.len() == RECLAIM_BATCH;
                    if !self.reclaim(store, batch).await || !full {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "superseded versions stay until the next start");
                    return;
                }
            }
        }
    }

    /// Bytes, then rows. Whether all of it went well; what did not stays until the next sweep.
    async fn reclaim(&self, store: &Store, batch: Vec<Freed>) -> bool {
        let mut by_bucket: BTreeMap<i64, Vec<Freed>> = BTreeMap::new();
        for freed in batch {
            by_bucket.entry(freed.bucket).or_default().push(freed);
        }
        let mut gone = Vec::new();
        let mut all = true;
        for (bucket, freed) in by_bucket {
            let removed = match store.held_by_id(bucket) {
                None => Ok(vec![Ok(()); freed.len()]),
                Some(held) => {
                    let paths: Vec<String> = freed.iter().map(|freed| freed.path.clone()).collect();
                    store.remove_files(&held, paths).await
                }
            };
            match removed {
                Ok(results) => {
                    for (freed, result) in freed.into_iter().zip(results) {
                        match result {
                            Ok(()) => gone.push(freed),
                            Err(error) => {
                                all = false;
                                tracing::warn!(%error, "a superseded version stays until the next start");
                            }
                        }
                    }
                }
                Err(error) => {
                    all = false;
                    tracing::warn!(%error, "superseded versions stay until the next start");
                }
            }
        }
        let forget = move |db: &Connection| -> Result<(), Fault> {
            gone.iter().try_for_each(|freed| delete_superseded(db, freed.bucket, &freed.key, freed.sequencer))
        };
        if let Err(error) = store.db.write("delete superseded versions", "state.sqlite", forget).await {
            tracing::warn!(%error, "rows of superseded versions stay until the next start");
            return false;
        }
        all
    }
}
