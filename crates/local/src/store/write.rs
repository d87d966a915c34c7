//! Writing an object: from the body to the durable row and its event; and deleting one from a source.
//!
//! Order of writes (I1, I8): temporary file, with its label → fsync → rename → fsync of the folder → one transaction {object
//! row, superseded row of the version before, event}. Only then is the caller told. A crash before the rename leaves a
//! temporary file, which the next opening removes; after it, in a source, a version that no row knows (a reindex removes
//! it; nobody was told of it); in a destination, a complete copy without index row, which HEAD finds by its path and
//! which is taken in by a reindex, or by the next put that is refused because it is there. After the transaction everything is there and the event is delivered.
//!
//! A destination that replaces a file in place and crashes before its row is written has the new content and the old row:
//! reading reports damage until the mirror, whose event is delivered again, has written it once more.

use super::bucket::Bucket;
use super::error::{StoreError, StoreResult, io_error};
use super::held::KeyLock;
use super::index::{self, Row};
use super::intake::{Intake, Taken};
use super::meta::{Label, Stored, encode_hex};
use super::path::{Sequencer, path_of};
use super::reclaim::Freed;
use super::tree::{Temp, Tree};
use super::types::{DeleteItem, Deleted, ObjectInfo, PutRequest, Role};
use super::{Step, Store, to_the_end};
use crate::spool;
use crate::sqlite::error_map::Fault;
use engine::error::{ErrorKind, PortError, PortResult};
use engine::ports::objects::{Attributes, ByteStream, Onto};
use lifecycle::event::{Happened, ObjectEvent, Version};
use lifecycle::ids::{ETag, ObjectKey, VersionId};
use lifecycle::order::Order;
use lifecycle::time::UnixMs;
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Where and when a new version lands.
pub(super) struct Place {
    /// Its position, in a source.
    pub(super) sequencer: Option<Sequencer>,
    /// When.
    pub(super) now: UnixMs,
    /// The names from the root to its file.
    pub(super) names: Vec<String>,
}

impl Bucket {
    /// Writes an object, whoever asks. Condition not met: [`StoreError::PreconditionFailed`].
    pub(super) async fn write(&self, request: PutRequest, body: ByteStream) -> StoreResult<ObjectInfo> {
        let PutRequest { key, attributes, onto, check } = request;
        let intake = Intake::new(self.held.tree()?, self.store.nonces.nonce(), check);
        let intake = intake.receive(&self.store.blocking, "put object", &key, body).await?;
        let (this, object) = (self.clone(), key.clone());
        to_the_end("put object", object, async move { this.write_taken(key, attributes, onto, intake).await }).await
    }

    async fn write_taken(
        &self,
        key: ObjectKey,
        attributes: Attributes,
        onto: Onto,
        intake: Intake,
    ) -> StoreResult<ObjectInfo> {
        let lock = self.held.lock(&key).await;
        let old = self.meets(&key, &onto).await?;
        let place = self.place(&key, old.as_ref());
        let (store, tree) = (Arc::clone(&self.store), self.held.tree()?);
        let object = key.clone();
        let land = move || -> StoreResult<Row> {
            let Taken { temp, digest, sums } = intake.finish("put object", &key)?;
            let row = Row {
                path: None,
                sequencer: place.sequencer,
                event: None,
                etag: ETag(encode_hex(&digest.md5)),
                size: digest.size,
                last_modified: place.now,
                checksum: Some(digest.crc64),
                stored: Stored { attributes, sums, parts: None },
                key,
            };
            Ok(store.land("put object", &tree, temp, &place.names, row)?)
        };
        let row = self.store.blocking.run("put object", object, land).await??;
        let info = self.commit("put object", row, |_| Ok(Ok(()))).await?;
        drop(lock);
        Ok(info)
    }

    /// What is there already, if it meets the condition. A source that is to be written unconditionally is not looked at.
    pub(super) async fn meets(&self, key: &ObjectKey, onto: &Onto) -> StoreResult<Option<Row>> {
        if self.held.info.role == Role::Source && *onto == Onto::Anything {
            return Ok(None);
        }
        let old = self.locate(key, None).await?;
        let met = match (onto, &old) {
            (Onto::Anything, _) | (Onto::Nothing, None) => true,
            (Onto::This(etag), Some(old)) => old.etag == *etag,
            _ => false,
        };
        if met {
            return Ok(old);
        }
        if let Some(old) = old {
            self.take_in_what_a_crash_left(key, old).await?;
        }
        Err(StoreError::PreconditionFailed)
    }

    /// Whoever is told that an object is there, and so does not write it, leaves it to this to be listed: a kill after its file
    /// was durable kept its row from being written. The caller holds the key's lock.
    async fn take_in_what_a_crash_left(&self, key: &ObjectKey, found: Row) -> StoreResult<()> {
        let (id, wanted) = (self.held.id, key.clone());
        let find = move |db: &Connection| index::find(db, id, &wanted);
        let has_row = self.store.db.read("read object row", key.as_str(), find).await?.is_some();
        if !has_row && self.held.info.role == Role::Destination {
            self.commit("put object", found, |_| Ok(Ok(()))).await?;
        }
        Ok(())
    }

    /// Where a new version goes. The caller holds the key's lock.
    pub(super) fn place(&self, key: &ObjectKey, old: Option<&Row>) -> Place {
        let now = self.store.clock.now();
        match self.held.info.role {
            Role::Source => {
                let sequencer = Some(self.store.next_sequencer(now));
                Place { sequencer, now, names: path_of(key, sequencer) }
            }
            Role::Destination => {
                // A key keeps its path: whether names are in conflict may look different by now.
                let names = match old.and_then(|old| old.path.as_deref()) {
                    Some(path) => path.split('/').map(str::to_owned).collect(),
                    None => path_of(key, None),
                };
                Place { sequencer: None, now, names }
            }
        }
    }

    /// Makes a version that has landed the current one, and tells of it. `also` runs in the same transaction, and may refuse.
    /// Refused, there too because the bucket was deleted meanwhile ([`StoreError::NoSuchBucket`]): nothing is left, no file,
    /// no row, no event.
    pub(super) async fn commit(
        &self,
        attempted: &'static str,
        row: Row,
        also: impl FnOnce(&Connection) -> Result<StoreResult<()>, Fault> + Send + 'static,
    ) -> StoreResult<ObjectInfo> {
        let (info, path) = (row.info(), row.data_path());
        let (id, role, name) = (self.held.id, self.held.info.role, self.held.info.name.to_string());
        let commit = move |db: &Connection| -> Result<StoreResult<Vec<Freed>>, Fault> {
            if role == Role::Source && index::is_deleted(db, id)? {
                return Ok(Err(StoreError::NoSuchBucket(name)));
            }
            if let Err(refused) = also(db)? {
                return Ok(Err(refused));
            }
            match role {
                Role::Source => make_current(db, id, &name, row).map(Ok),
                Role::Destination => index::put(db, id, &row).map(|()| Ok(Vec::new())),
            }
        };
        let committed = self.store.db.write(attempted, info.key.as_str(), commit).await;
        let freed = match committed.map_err(StoreError::Port).flatten() {
            Ok(freed) => freed,
            Err(error) => {
                // Of other failures it is not certain that no row came to be: only of these the version's file has no use.
                let no_row = match &error {
                    StoreError::Port(error) => error.kind == ErrorKind::NoSpace,
                    _ => true,
                };
                if no_row && role == Role::Source {
                    self.store.remove_files(&self.held, vec![path]).await?.into_iter().collect::<PortResult<()>>()?;
                }
                return Err(error);
            }
        };
        self.store.at(Step::Committed, &info.key)?;
        if role == Role::Source {
            self.store.spool.committed(1);
        }
        self.store.reclaimer.hand_over(freed);
        Ok(info)
    }

    /// Puts the index row of a new copy with the next commit, and does not wait for it: the file is durable and found by
    /// its path, and the catalog's row is what counts. The key stays locked until the row is there.
    pub(super) async fn commit_soon(&self, row: Row, lock: KeyLock) {
        let on_its_way = self.held.index_soon().await;
        let this = self.clone();
        tokio::spawn(async move {
            if let Err(error) = this.commit("copy object", row, |_| Ok(Ok(()))).await {
                tracing::warn!(%error, "a copy's index row was not written: listings lack it until the next reindex");
            }
            drop((on_its_way, lock));
        });
    }

    /// Deletes objects in one transaction; one outcome each.
    pub(super) async fn remove(&self, items: Vec<DeleteItem>) -> StoreResult<Vec<StoreResult<Deleted>>> {
        let this = self.clone();
        let name = self.held.info.name.clone();
        to_the_end("delete objects", name, async move { this.remove_locked(items).await }).await
    }

    async fn remove_locked(&self, items: Vec<DeleteItem>) -> StoreResult<Vec<StoreResult<Deleted>>> {
        let locks = self.held.lock_all(items.iter().map(|item| &item.key)).await;
        let now = self.store.clock.now();
        let (id, name, store) = (self.held.id, self.held.info.name.to_string(), Arc::clone(&self.store));
        let remove = move |db: &Connection| -> Result<Removal, Fault> {
            let mut removal = Removal::default();
            for item in &items {
                let outcome = match index::find(db, id, &item.key)? {
                    None => Ok(Deleted::WasAbsent),
                    Some(old) if item.if_match.as_ref().is_some_and(|etag| *etag != old.etag) => {
                        Err(StoreError::PreconditionFailed)
                    }
                    Some(old) => {
                        let sequencer = store.next_sequencer(now);
                        let event = ObjectEvent {
                            key: item.key.clone(),
                            time: now,
                            order: Order::from_sequencer(&sequencer.to_string()),
                            what: Happened::Removed,
                        };
                        spool::insert(db, &name, &event)?;
                        supersede(db, id, &old, &mut removal.freed)?;
                        index::delete(db, id, &item.key)?;
                        index::note_sequencer(db, sequencer)?;
                        removal.events += 1;
                        Ok(Deleted::Done)
                    }
                };
                removal.outcomes.push(outcome);
            }
            Ok(removal)
        };
        let removal = self.store.db.write("delete objects", self.held.info.name.as_str(), remove).await?;
        drop(locks);
        self.store.spool.committed(removal.events);
        self.store.reclaimer.hand_over(removal.freed);
        Ok(removal.outcomes)
    }

    /// Replaces the tags of the current version, in the row and then on the file.
    pub(super) async fn retag(&self, key: ObjectKey, tags: BTreeMap<String, String>) -> StoreResult<()> {
        let this = self.clone();
        to_the_end("set tags", key.clone(), async move { this.retag_locked(key, tags).await }).await
    }

    async fn retag_locked(&self, key: ObjectKey, tags: BTreeMap<String, String>) -> StoreResult<()> {
        let lock = self.held.lock(&key).await;
        let Some(mut row) = self.locate(&key, None).await? else {
            return Err(StoreError::NoSuchKey(key.to_string()));
        };
        row.stored.attributes.tags = tags;
        let (id, changed) = (self.held.id, row.clone());
        self.store.db.write("set tags", key.as_str(), move |db| index::put(db, id, &changed)).await?;
        // The label is only for the day the index is lost: a crash here leaves it with the tags before.
        let (tree, name, object) = (self.held.tree()?, self.store.nonces.nonce(), key.clone());
        let label = move || -> io::Result<()> {
            let path = row.data_path();
            let label = Label { etag: row.etag, checksum: row.checksum, stored: row.stored };
            if !label.put_on(&tree.open_file(&path)?)? {
                label.put_beside(&tree, &path, name)?;
            }
            Ok(())
        };
        let labelled = self.store.blocking.run("set tags", &object, label).await?;
        drop(lock);
        Ok(labelled.map_err(|error| io_error("set tags", &object, error))?)
    }
}

#[derive(Default)]
struct Removal {
    outcomes: Vec<StoreResult<Deleted>>,
    freed: Vec<Freed>,
    events: usize,
}

impl Store {
    /// Labels a finished file, makes it durable and gives it its name. Blocks.
    pub(super) fn land(
        &self,
        attempted: &'static str,
        tree: &Arc<Tree>,
        mut temp: Temp,
        names: &[String],
        mut row: Row,
    ) -> PortResult<Row> {
        let key = row.key.clone();
        let failed = |error| io_error(attempted, &key, error);
        self.pass(Step::Written, &key, &mut temp)?;
        let label = Label { etag: row.etag.clone(), checksum: row.checksum, stored: row.stored.clone() };
        let labelled = label.put_on(&temp.file).map_err(failed)?;
        let expected = names.join("/");
        if !labelled {
            // Before the file has its name: a disk that is full must leave nothing.
            label.put_beside(tree, &expected, self.nonces.nonce()).map_err(failed)?;
        }
        temp.file.sync_all().map_err(failed)?;
        self.pass(Step::Synced, &key, &mut temp)?;
        let path = tree.publish(&mut temp, names).map_err(failed)?;
        if !labelled && path != expected {
            label.put_beside(tree, &path, self.nonces.nonce()).map_err(failed)?;
        }
        self.pass(Step::Published, &key, &mut temp)?;
        row.set_data_path(path);
        Ok(row)
    }

    fn pass(&self, step: Step, key: &ObjectKey, temp: &mut Temp) -> PortResult<()> {
        let passed = self.at(step, key);
        #[cfg(test)]
        if passed.as_ref().is_err_and(|error| error.kind == ErrorKind::Cancelled) {
            temp.leave();
        }
        #[cfg(not(test))]
        let _: &mut Temp = temp;
        passed
    }
}

/// Puts the row of a source's new current version, keeps the one before, and puts the event.
fn make_current(db: &Connection, bucket: i64, name: &str, mut row: Row) -> Result<Vec<Freed>, Fault> {
    let Some(sequencer) = row.sequencer else {
        let kind = ErrorKind::Internal("a version of a source without a sequencer".to_owned());
        return Err(PortError::new("put object", &row.key, kind).into());
    };
    let mut freed = Vec::new();
    if let Some(old) = index::find(db, bucket, &row.key)? {
        supersede(db, bucket, &old, &mut freed)?;
    }
    let text = sequencer.to_string();
    let event = ObjectEvent {
        key: row.key.clone(),
        time: row.last_modified,
        order: Order::from_sequencer(&text),
        what: Happened::Created(Version { version_id: Some(VersionId(text)), etag: row.etag.clone(), size: row.size }),
    };
    row.event = Some(spool::insert(db, name, &event)?);
    index::put(db, bucket, &row)?;
    index::note_sequencer(db, sequencer)?;
    Ok(freed)
}

/// Keeps a version that is current no more; hands it over at once when nobody waits for it.
fn supersede(db: &Connection, bucket: i64, old: &Row, freed: &mut Vec<Freed>) -> Result<(), Fault> {
    let Some(sequencer) = old.sequencer else { return Ok(()) };
    index::put_superseded(db, bucket, old)?;
    let awaited = match old.event {
        Some(event) => spool::pending(db, event)?,
        None => false,
    };
    if !awaited {
        freed.push(Freed { bucket, key: old.key.to_string(), sequencer, path: old.data_path() });
    }
    Ok(())
}
