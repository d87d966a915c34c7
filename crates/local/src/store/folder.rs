//! A plain folder as the target of a restore: files under their (escaped) keys, nothing else.
//!
//! Each file is written as everywhere (temporary file, fsync, rename, fsync of the folder), so a crash leaves whole files
//! only. No index and no attributes: what is there is told by reading it. Law: a restore never leaves half a file.

use super::blocking::Blocking;
use super::error::{StoreError, StoreResult, io_error};
use super::intake::{Intake, Taken};
use super::limits::BLOCKING_AT_ONCE;
use super::marker;
use super::meta::encode_hex;
use super::path::{Layout, path_of};
use super::read::{row_of_file, stream_file};
use super::tree::Tree;
use async_trait::async_trait;
use engine::error::{ErrorKind, PortError, PortResult};
use engine::ports::clock::{Clock, Nonces};
use engine::ports::objects::{
    Attributes, ByteStream, Head, Listed, Object, ObjectRead, ObjectWrite, Onto, Page, Reach, Retrieval, Written,
};
use lifecycle::event::Version;
use lifecycle::ids::{ETag, ObjectKey, VersionId};
use std::fmt::Display;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::Mutex;

/// A folder that people asked for.
pub struct FolderTarget {
    tree: Arc<Tree>,
    blocking: Blocking,
    clock: Arc<dyn Clock>,
    nonces: Arc<dyn Nonces>,
    /// Between looking at what is there and replacing it.
    writing: Mutex<()>,
}

impl FolderTarget {
    /// Opens the folder, made if need be. Refused (`Invalid`) when it is, or lies in, a bucket's folder or a data folder of
    /// whatever Afterimage: files restored there would be taken for copies. Blocks.
    pub fn open(path: &Path, clock: Arc<dyn Clock>, nonces: Arc<dyn Nonces>) -> PortResult<FolderTarget> {
        let enclosing = marker::enclosing(path).map_err(|error| io_error("open folder", path.display(), error))?;
        if let Some(enclosing) = enclosing {
            return Err(kept(path.display(), &enclosing.display().to_string()));
        }
        let tree = Tree::folder(path).map_err(|error| io_error("open folder", path.display(), error))?;
        let blocking = Blocking::new(BLOCKING_AT_ONCE);
        Ok(FolderTarget { tree: Arc::new(tree), blocking, clock, nonces, writing: Mutex::default() })
    }

    async fn look(&self, key: &ObjectKey) -> PortResult<Option<super::index::Row>> {
        let (tree, wanted) = (Arc::clone(&self.tree), key.clone());
        let look = move || {
            let path = tree.find(&path_of(&wanted, None))?;
            path.map_or(Ok(None), |path| row_of_file(&tree, &path, Layout::Plain))
        };
        let looked = self.blocking.run("look for file", key, look).await?;
        looked.map_err(|error| io_error("look for file", key, error))
    }

    async fn write(
        &self,
        key: &ObjectKey,
        body: ByteStream,
        metadata: &Attributes,
        onto: Onto,
    ) -> StoreResult<Written> {
        let intake = Intake::new(Arc::clone(&self.tree), self.nonces.nonce(), None);
        let intake = intake.receive(&self.blocking, "write file", key, body).await?;
        let _writing = self.writing.lock().await;
        let old = self.look(key).await?;
        let met = match (&onto, &old) {
            (Onto::Anything, _) | (Onto::Nothing, None) => true,
            (Onto::This(etag), Some(old)) => old.etag == *etag,
            _ => false,
        };
        if !met {
            return Ok(Written::DestinationChanged);
        }
        let names = match old {
            Some(old) => old.data_path().split('/').map(str::to_owned).collect(),
            None => path_of(key, None),
        };
        let (tree, object) = (Arc::clone(&self.tree), key.clone());
        let land = move || -> StoreResult<_> {
            let enclosing = tree.kept_on_the_way(&names).map_err(|error| io_error("write file", &object, error))?;
            if let Some(enclosing) = enclosing {
                return Err(kept(&object, &enclosing).into());
            }
            let Taken { mut temp, digest, .. } = intake.finish("write file", &object)?;
            let failed = |error| io_error("write file", &object, error);
            temp.file.sync_all().map_err(failed)?;
            tree.publish(&mut temp, &names).map_err(failed)?;
            Ok(digest)
        };
        let digest = self.blocking.run("write file", key, land).await??;
        let version = Version { version_id: None, etag: ETag(encode_hex(&digest.md5)), size: digest.size };
        Ok(Written::Done(Head {
            version,
            last_modified: self.clock.now(),
            checksum: Some(digest.crc64),
            storage_class: None,
            reach: Reach::Readable,
            metadata: metadata.metadata.clone(),
        }))
    }
}

fn kept(object: impl Display, folder: &str) -> PortError {
    let why = format!("{folder} is a folder that Afterimage keeps for itself: name another one, outside of it");
    PortError::new("restore to", object, ErrorKind::Invalid(why))
}

impl Drop for FolderTarget {
    fn drop(&mut self) {
        self.tree.remove_empty_own();
    }
}

#[async_trait]
impl ObjectRead for FolderTarget {
    async fn head(&self, key: &ObjectKey, _version: Option<&VersionId>) -> PortResult<Option<Head>> {
        Ok(self.look(key).await?.map(|row| row.info().head()))
    }

    async fn get(
        &self,
        key: &ObjectKey,
        _version: Option<&VersionId>,
        range: Option<Range<u64>>,
    ) -> PortResult<Option<Object>> {
        let Some(row) = self.look(key).await? else { return Ok(None) };
        let range = match range {
            None => 0..row.size,
            Some(range) if range.start < row.size.min(range.end) => range.start..range.end.min(row.size),
            Some(_) => {
                let why = "the range lies beyond the end".to_owned();
                return Err(PortError::new("read file", key, ErrorKind::Invalid(why)));
            }
        };
        let body = stream_file(&self.blocking, Arc::clone(&self.tree), &row, range).await?;
        Ok(body.map(|body| Object { head: row.info().head(), attributes: row.stored.attributes.clone(), body }))
    }

    async fn retrieve(&self, key: &ObjectKey, _terms: &Retrieval) -> PortResult<()> {
        Err(PortError::new("retrieve file", key, ErrorKind::Unsupported)) // there are no tiers here
    }

    async fn list(&self, prefix: &str, _after: Option<&ObjectKey>, _limit: usize) -> PortResult<Page<Listed>> {
        // A folder has no key order; nothing that restores asks for one.
        Err(PortError::new("list folder", prefix, ErrorKind::Unsupported))
    }
}

#[async_trait]
impl ObjectWrite for FolderTarget {
    async fn put(&self, key: &ObjectKey, body: ByteStream, attributes: &Attributes, onto: Onto) -> PortResult<Written> {
        let written = self.write(key, body, attributes, onto).await;
        written.map_err(|error: StoreError| error.into_port("write file", key))
    }
}
