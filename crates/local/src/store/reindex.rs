//! Comparing a bucket's index with its files, and repairing both.
//!
//! Place: `reconcile`, at start-up and on command; and the making of a bucket over a folder that holds files already, as
//! after the loss of `state.sqlite`. Everything goes in batches, each under the locks of its keys, so that it runs beside
//! reads and writes (I9, I11). A crash half-way leaves some of it repaired; the next run does the rest.
//!
//! In a destination the files are the truth: a file without row becomes an object, a row without file goes. In a source the
//! index is: a file that no row knows was never acknowledged, or is superseded and was to be deleted, and goes; but one newer
//! than everything the index knew when it was opened is only set aside, since it may also be that somebody put an older
//! `state.sqlite` back. A row without file stays, and reading it reports damage, since "deleted" would be a lie (V8). While a source is made anew
//! over its files, the version with the highest sequencer is current and the others go.

use super::bucket::Bucket;
use super::error::{StoreResult, io_error};
use super::index::{self, Row};
use super::limits::REINDEX_BATCH;
use super::path::{Layout, Sequencer, key_of};
use super::read::row_of_file;
use super::tree::{Tree, is_no_such};
use super::types::Role;
use super::upload_rows;
use crate::sqlite::error_map::Fault;
use engine::error::PortResult;
use lifecycle::ids::{ObjectKey, VersionId};
use rusqlite::Connection;
use std::io;
use std::sync::Arc;
use tokio::sync::mpsc;

/// What a reindex found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reindexed {
    /// Data files looked at.
    pub files: u64,
    /// Files that became objects.
    pub added: u64,
    /// Files of a source that nobody can ask for, deleted.
    pub garbage: u64,
    /// Files of a source that are newer than everything its index knew, moved to `.afterimage/aside/`.
    pub aside: u64,
    /// Rows of a destination whose files are gone, deleted.
    pub forgotten: u64,
    /// Rows of a source whose files are missing: damage that a person must look at.
    pub missing: u64,
    /// Files whose names are no key's path; left alone.
    pub foreign: u64,
}

/// What a source's files without rows are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Orphans {
    /// Never acknowledged, or to be deleted.
    Garbage,
    /// All that is left of the index.
    Truth,
}

impl Bucket {
    /// Compares and repairs both ways.
    pub(super) async fn reindex(&self) -> StoreResult<Reindexed> {
        let mut report = self.compare_files(Orphans::Garbage).await?;
        self.compare_rows(&mut report).await?;
        self.remove_ended_uploads().await?;
        Ok(report)
    }

    /// Takes in the files that a new bucket's folder holds already.
    pub(super) async fn reindex_files(&self) -> StoreResult<Reindexed> {
        self.compare_files(Orphans::Truth).await
    }

    fn layout(&self) -> Layout {
        match self.held.info.role {
            Role::Source => Layout::Versions,
            Role::Destination => Layout::Plain,
        }
    }

    async fn compare_files(&self, orphans: Orphans) -> StoreResult<Reindexed> {
        let (sender, mut batches) = mpsc::channel::<Vec<String>>(2);
        let tree = self.held.tree()?;
        if !tree.is_there() {
            return Err(self.held.folder_is_missing().into());
        }
        let walking = tokio::task::spawn_blocking(move || walk(&tree, &sender));
        let mut report = Reindexed::default();
        while let Some(batch) = batches.recv().await {
            report.files += batch.len() as u64;
            self.compare_batch(batch, orphans, &mut report).await?;
        }
        let root = self.held.info.root.display().to_string();
        let walked = walking.await.map_err(|_| super::panicked("list files", &root))?;
        walked.map_err(|error| io_error("list files", &root, error))?;
        Ok(report)
    }

    async fn compare_batch(&self, paths: Vec<String>, orphans: Orphans, report: &mut Reindexed) -> PortResult<()> {
        let layout = self.layout();
        let named = |path: String| {
            let names: Vec<&str> = path.split('/').collect();
            key_of(&names, layout).map(|(key, sequencer)| (path.clone(), key, sequencer))
        };
        let count = paths.len();
        let files: Vec<_> = paths.into_iter().filter_map(named).collect();
        report.foreign += (count - files.len()) as u64;

        let locks = self.held.lock_all(files.iter().map(|(_, key, _)| key)).await;
        let id = self.held.id;
        type Unknown = Vec<(String, ObjectKey, Option<Sequencer>)>;
        let unknown = move |db: &Connection| -> Result<Unknown, Fault> {
            let mut unknown = Vec::new();
            for (path, key, sequencer) in files {
                let known = match sequencer {
                    None => index::find(db, id, &key)?.is_some(),
                    Some(sequencer) => index::find_version(db, id, &key, &VersionId(sequencer.to_string()))?.is_some(),
                };
                if !known {
                    unknown.push((path, key, sequencer));
                }
            }
            Ok(unknown)
        };
        let unknown = self.store.db.read("compare object rows", self.held.info.name.as_str(), unknown).await?;
        if unknown.is_empty() {
            return Ok(());
        }
        match (self.held.info.role, orphans) {
            (Role::Source, Orphans::Garbage) => {
                let known = Some(self.store.known_at_open);
                let (newer, garbage): (Vec<_>, Vec<_>) =
                    unknown.into_iter().partition(|(_, _, sequencer)| *sequencer > known);
                report.garbage += garbage.len() as u64;
                report.aside += newer.len() as u64;
                self.remove_garbage(garbage.into_iter().map(|(path, ..)| path).collect()).await?;
                self.set_aside(newer.into_iter().map(|(path, ..)| path).collect()).await?;
            }
            _ => self.take_in(unknown.into_iter().map(|(path, key, _)| (path, key)).collect(), report).await?,
        }
        drop(locks);
        Ok(())
    }

    async fn remove_garbage(&self, paths: Vec<String>) -> PortResult<()> {
        self.store.remove_files(&self.held, paths).await?.into_iter().collect()
    }

    async fn set_aside(&self, paths: Vec<String>) -> PortResult<()> {
        let (tree, name) = (self.held.tree()?, self.held.info.name.clone());
        let move_away = move || {
            let mut moved = paths.iter();
            moved
                .try_for_each(|path| tree.set_aside(path).map_err(|error| io_error("set data file aside", path, error)))
        };
        self.store.blocking.run("set data files aside", name, move_away).await?
    }

    /// Makes rows of files. Of several versions of a key the one with the highest sequencer wins.
    async fn take_in(&self, files: Vec<(String, ObjectKey)>, report: &mut Reindexed) -> PortResult<()> {
        let (tree, layout) = (self.held.tree()?, self.layout());
        let read = move || -> PortResult<Vec<Row>> {
            let mut rows = Vec::with_capacity(files.len());
            for (path, key) in files {
                let row = row_of_file(&tree, &path, layout);
                rows.extend(row.map_err(|error| io_error("read object", &key, error))?);
            }
            Ok(rows)
        };
        let rows = self.store.blocking.run("read objects", &self.held.info.name, read).await??;
        let highest = rows.iter().filter_map(|row| row.sequencer).max();
        let id = self.held.id;
        let put = move |db: &Connection| -> Result<(u64, Vec<String>), Fault> {
            let (mut added, mut garbage) = (0, Vec::new());
            for row in rows {
                match index::find(db, id, &row.key)? {
                    Some(there) if there.sequencer >= row.sequencer => {
                        garbage.extend(row.sequencer.map(|_| row.data_path()));
                        continue;
                    }
                    Some(there) => garbage.push(there.data_path()),
                    None => added += 1,
                }
                index::put(db, id, &row)?;
            }
            if let Some(highest) = highest {
                index::note_sequencer(db, highest)?;
            }
            Ok((added, garbage))
        };
        let (added, garbage) = self.store.db.write("put object rows", self.held.info.name.as_str(), put).await?;
        if let Some(highest) = highest {
            self.store.raise_sequencer(highest);
        }
        report.added += added;
        report.garbage += garbage.len() as u64;
        self.remove_garbage(garbage).await
    }

    async fn compare_rows(&self, report: &mut Reindexed) -> StoreResult<()> {
        let mut after: Option<String> = None;
        loop {
            let (id, from) = (self.held.id, after.clone());
            let page = move |db: &Connection| index::page(db, id, from.as_deref(), REINDEX_BATCH);
            let rows = self.store.db.read("list object rows", self.held.info.name.as_str(), page).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = Some(last.key.to_string());
            for key in self.without_file(rows).await? {
                let lock = self.held.lock(&key).await;
                let (id, wanted) = (self.held.id, key.clone());
                let again = move |db: &Connection| index::find(db, id, &wanted);
                let row = self.store.db.read("read object row", key.as_str(), again).await?;
                // It may have been written or deleted since the page was read.
                if !self.without_file(row.into_iter().collect()).await?.is_empty() {
                    match self.held.info.role {
                        Role::Source => {
                            tracing::error!(%key, bucket = %self.held.info.name, "an object's data file is missing");
                            report.missing += 1;
                        }
                        Role::Destination => {
                            let gone = key.clone();
                            let delete = move |db: &Connection| index::delete(db, id, &gone);
                            self.store.db.write("delete object row", key.as_str(), delete).await?;
                            report.forgotten += 1;
                        }
                    }
                }
                drop(lock);
            }
        }
    }

    /// The keys of rows whose data files are not there.
    async fn without_file(&self, rows: Vec<Row>) -> PortResult<Vec<ObjectKey>> {
        let (tree, held) = (self.held.tree()?, Arc::clone(&self.held));
        let look = move || {
            let mut missing = Vec::new();
            for row in rows {
                match tree.open_file(&row.data_path()) {
                    Ok(_) => {}
                    Err(error) if is_no_such(&error) => missing.push(row.key),
                    Err(error) => return Err(io_error("look for data file", &row.key, error)),
                }
            }
            if missing.is_empty() || tree.is_there() { Ok(missing) } else { Err(held.folder_is_missing()) }
        };
        self.store.blocking.run("look for data files", &self.held.info.name, look).await?
    }

    /// Files of parts whose uploads ended while the process was killed.
    async fn remove_ended_uploads(&self) -> PortResult<()> {
        let tree = self.held.tree()?;
        let failed = |error| io_error("delete parts", &self.held.info.name, error);
        let list = Arc::clone(&tree);
        let folders = self.store.blocking.run("list uploads", &self.held.info.name, move || list.uploads()).await?;
        let folders = folders.map_err(failed)?;
        let ended = move |db: &Connection| -> Result<Vec<String>, Fault> {
            let mut ended = Vec::new();
            for folder in folders {
                if !upload_rows::is_known(db, &folder)? {
                    ended.push(format!("uploads/{folder}"));
                }
            }
            Ok(ended)
        };
        let ended = self.store.db.read("read uploads", self.held.info.name.as_str(), ended).await?;
        let remove = move || ended.iter().try_for_each(|folder| tree.remove_own_folder(folder));
        self.store.blocking.run("delete parts", &self.held.info.name, remove).await?.map_err(failed)
    }
}

fn walk(tree: &Tree, batches: &mpsc::Sender<Vec<String>>) -> io::Result<()> {
    let stopped = |_| io::Error::new(io::ErrorKind::Interrupted, "nobody waits for the files any more");
    let mut batch = Vec::with_capacity(REINDEX_BATCH);
    tree.walk(&mut |path| {
        batch.push(path.to_owned());
        if batch.len() == REINDEX_BATCH {
            batches.blocking_send(std::mem::take(&mut batch)).map_err(stopped)?;
        }
        Ok(())
    })?;
    if batch.is_empty() { Ok(()) } else { batches.blocking_send(batch).map_err(stopped) }
}
