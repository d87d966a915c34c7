//! Deleting from a destination, for the engine's purge step only: bytes, then index rows.
//!
//! Order of writes: the files of one batch are unlinked, then their index rows go in one transaction. A crash between leaves
//! rows without bytes: the catalog still has its disowned rows, so the next clean asks again, and deleting what is gone
//! succeeds. Unlinking is not fsynced: a copy that a power cut brings back has no index row any more; a reindex, which
//! `reconcile` runs, takes it in as what it is, bytes without a catalog row. Laws: I3 (called by `steps/purge.rs`), I1.

use super::bucket::Bucket;
use super::error::io_error;
use super::held::Held;
use super::index::{self, Row};
use super::limits::PURGE_STEP;
use super::meta::Label;
use super::path::{Layout, path_of};
use super::read::row_of_file;
use super::tree::Tree;
use super::{Store, to_the_end};
use crate::sqlite::error_map::Fault;
use engine::error::{PortError, PortResult};
use engine::ports::objects::{PurgeItem, Purged};
use rusqlite::Connection;
use std::sync::Arc;

impl Bucket {
    /// Deletes objects of a destination; one result each, in the order asked.
    pub(super) async fn purge_items(&self, items: &[PurgeItem]) -> Vec<PortResult<Purged>> {
        let mut results = Vec::with_capacity(items.len());
        for step in items.chunks(PURGE_STEP) {
            let (this, batch) = (self.clone(), step.to_vec());
            let purged = to_the_end("purge objects", &self.held.info.name, async move { this.purge_step(batch).await });
            match purged.await {
                Ok(step_results) => results.extend(step_results),
                Err(error) => {
                    let error = error.into_port("purge objects", &self.held.info.name);
                    results.extend(step.iter().map(|item| Err(of_item(&error, item))));
                }
            }
        }
        results
    }

    async fn purge_step(&self, items: Vec<PurgeItem>) -> super::StoreResult<Vec<PortResult<Purged>>> {
        let locks = self.held.lock_all(items.iter().map(|item| &item.key)).await;
        let (id, wanted) = (self.held.id, items.clone());
        let find = move |db: &Connection| -> Result<Vec<Option<Row>>, Fault> {
            wanted.iter().map(|item| index::find(db, id, &item.key)).collect()
        };
        let rows = self.store.db.read("read object rows", self.held.info.name.as_str(), find).await?;
        let (tree, held) = (self.held.tree()?, Arc::clone(&self.held));
        let work = move || {
            if !tree.is_there() {
                return Err(held.folder_is_missing());
            }
            Ok(remove_files(&tree, items.into_iter().zip(rows).collect()))
        };
        let removed = self.store.blocking.run("purge objects", &self.held.info.name, work).await??;

        let gone: Vec<_> = removed
            .iter()
            .filter(|(_, result)| matches!(result, Ok(Purged::Done)))
            .map(|(item, _)| item.key.clone())
            .collect();
        let forget = move |db: &Connection| -> Result<(), Fault> {
            gone.iter().try_for_each(|key| index::delete(db, id, key).map(drop))
        };
        self.store.db.write("delete object rows", self.held.info.name.as_str(), forget).await?;
        drop(locks);
        Ok(removed.into_iter().map(|(_, result)| result).collect())
    }
}

fn of_item(error: &PortError, item: &PurgeItem) -> PortError {
    PortError { attempted: "purge object", object: item.key.to_string(), ..error.clone() }
}

fn remove_files(tree: &Tree, items: Vec<(PurgeItem, Option<Row>)>) -> Vec<(PurgeItem, PortResult<Purged>)> {
    let judge = |(item, row): (PurgeItem, Option<Row>)| {
        let verdict = path_to_remove(tree, &item, row);
        (item, verdict)
    };
    let judged: Vec<_> = items.into_iter().map(judge).collect();
    let paths: Vec<String> =
        judged.iter().filter_map(|(_, verdict)| verdict.as_ref().ok().cloned().flatten()).collect();
    let mut removed = tree.remove(&paths).into_iter().zip(&paths);
    let results = judged.into_iter().map(|(item, verdict)| {
        let result = match verdict {
            Err(result) => result,
            Ok(None) => Ok(Purged::Done),
            Ok(Some(_)) => {
                let (removed, path) = removed.next().expect("one result for each path");
                let removed = removed.and_then(|()| Label::remove_beside(tree, path));
                removed.map(|()| Purged::Done).map_err(|error| io_error("purge object", &item.key, error))
            }
        };
        (item, result)
    });
    results.collect()
}

/// Which file has to go (`None`: there is none); or how it ended already.
fn path_to_remove(tree: &Tree, item: &PurgeItem, row: Option<Row>) -> Result<Option<String>, PortResult<Purged>> {
    let failed = |error| Err(io_error("purge object", &item.key, error));
    let row = match row {
        Some(row) => Some(row),
        None => match tree.find(&path_of(&item.key, None)) {
            Ok(None) => None,
            Ok(Some(path)) => row_of_file(tree, &path, Layout::Plain).map_err(failed)?,
            Err(error) => return Err(failed(error)),
        },
    };
    let Some(row) = row else { return Ok(None) };
    if item.if_match.as_ref().is_some_and(|etag| *etag != row.etag) {
        return Err(Ok(Purged::Changed));
    }
    Ok(Some(row.data_path()))
}

impl Store {
    /// Deletes data files of a bucket, and the labels beside them; one result each.
    pub(super) async fn remove_files(&self, held: &Arc<Held>, paths: Vec<String>) -> PortResult<Vec<PortResult<()>>> {
        let tree = held.tree()?;
        let remove = move || {
            let removed = tree.remove(&paths);
            let results = removed.into_iter().zip(&paths).map(|(result, path)| {
                let result = result.and_then(|()| Label::remove_beside(&tree, path));
                result.map_err(|error| io_error("delete data file", path, error))
            });
            results.collect()
        };
        self.blocking.run("delete data files", &held.info.name, remove).await
    }
}
