//! Copying inside the store, without moving bytes through the network: shared blocks where the file system has them, else
//! copied by the kernel; small objects are read, checked and written.
//!
//! Place: the engine's copies from a source to a destination, and the clients' copies inside a source. The copy inherits
//! the original's tag, checksum and attributes. Order of writes, and what a crash leaves: as in `write.rs`; but a new copy in
//! a destination is done when its file is durable, and its index row follows with the next commit: until then, and after a
//! crash before it, HEAD finds the copy by its path, and listings wait for it. Laws: I1, I11.

use super::bucket::Bucket;
use super::error::{StoreResult, io_error};
use super::index::{self, Row};
use super::limits::{CHECKED_COPY_BYTES, COPY_STEP_BYTES, READ_TRIES};
use super::meta::Stored;
use super::read::damaged;
use super::to_the_end;
use super::tree::is_no_such;
use super::types::{CopyAttributes, CopySpec, ObjectInfo, Role};
use engine::error::PortResult;
use engine::ports::objects::Onto;
use lifecycle::ids::{Checksum, ObjectKey};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How a copy ended.
pub(super) enum CopyEnd {
    /// Durable.
    Done(Box<ObjectInfo>),
    /// There is no such original.
    SourceGone,
    /// The original has another tag.
    SourceChanged,
    /// The destination does not meet the condition.
    DestinationChanged,
}

impl Bucket {
    /// Copies an object from `from` into this bucket, whoever asks.
    pub(super) async fn copy(&self, from: &Bucket, spec: CopySpec) -> StoreResult<CopyEnd> {
        let (this, from, object) = (self.clone(), from.clone(), spec.from.clone());
        to_the_end("copy object", object, async move { this.copy_locked(&from, spec).await }).await
    }

    async fn copy_locked(&self, from: &Bucket, spec: CopySpec) -> StoreResult<CopyEnd> {
        let lock = self.held.lock(&spec.to).await;
        for _ in 0..READ_TRIES {
            let (source, old) = self.both_rows(from, &spec).await?;
            let Some(source) = source else { return Ok(CopyEnd::SourceGone) };
            if spec.if_match.as_ref().is_some_and(|etag| *etag != source.etag) {
                return Ok(CopyEnd::SourceChanged);
            }
            let met = match (&spec.onto, &old) {
                (Onto::Anything, _) | (Onto::Nothing, None) => true,
                (Onto::This(etag), Some(old)) => old.etag == *etag,
                _ => false,
            };
            if !met {
                return Ok(CopyEnd::DestinationChanged);
            }
            let new = old.is_none() && self.held.info.role == Role::Destination;
            if let Some(row) = self.copy_file(from, &spec, source, old).await? {
                let info = row.info();
                if new {
                    self.commit_soon(row, lock).await;
                } else {
                    self.commit("copy object", row, |_| Ok(Ok(()))).await?;
                    drop(lock);
                }
                return Ok(CopyEnd::Done(Box::new(info)));
            }
            // Replaced and reclaimed since its row was read: look again.
        }
        if !from.held.tree()?.is_there() {
            return Err(from.held.folder_is_missing().into());
        }
        Err(damaged(&spec.from, "its data file is missing".to_owned()).into())
    }

    /// The original's row and the one that stands at the destination, in one read.
    async fn both_rows(&self, from: &Bucket, spec: &CopySpec) -> PortResult<(Option<Row>, Option<Row>)> {
        let (from_id, to_id, wanted) = (from.held.id, self.held.id, spec.clone());
        let read = move |db: &rusqlite::Connection| {
            let source = match &wanted.version {
                None => index::find(db, from_id, &wanted.from)?,
                Some(version) => index::find_version(db, from_id, &wanted.from, version)?,
            };
            Ok((source, index::find(db, to_id, &wanted.to)?))
        };
        let (mut source, mut old) = self.store.db.read("read object rows", spec.from.as_str(), read).await?;
        if source.is_none() && from.held.info.role == Role::Destination {
            source = from.probe(&spec.from).await?.filter(|_| spec.version.is_none());
        }
        // A file without row is replaced where it stands; only a condition asks whether there is one.
        if old.is_none() && self.held.info.role == Role::Destination && spec.onto != Onto::Anything {
            old = self.probe(&spec.to).await?;
        }
        Ok((source, old))
    }

    /// Copies the bytes, durably, to where the new version belongs; its row to be. `None`: the original's file is not there.
    async fn copy_file(
        &self,
        from: &Bucket,
        spec: &CopySpec,
        source: Row,
        old: Option<Row>,
    ) -> StoreResult<Option<Row>> {
        let place = self.place(&spec.to, old.as_ref());
        let stored = match spec.attributes.clone() {
            CopyAttributes::Replace(attributes) => Stored { attributes, ..source.stored.clone() },
            CopyAttributes::Keep { add_metadata } => {
                let mut stored = source.stored.clone();
                stored.attributes.metadata.extend(add_metadata);
                stored
            }
        };
        let row = Row {
            key: spec.to.clone(),
            path: None,
            sequencer: place.sequencer,
            event: None,
            etag: source.etag.clone(),
            size: source.size,
            last_modified: place.now,
            checksum: source.checksum,
            stored,
        };
        let (tree, from_tree) = (self.held.tree()?, from.held.tree()?);
        let (store, held) = (Arc::clone(&self.store), Arc::clone(&self.held));
        let copy = move || -> PortResult<Option<Row>> {
            let failed = |error| io_error("copy object", &source.key, error);
            let mut original = match from_tree.open_file(&source.data_path()) {
                Ok(file) => file,
                Err(error) if is_no_such(&error) => return Ok(None),
                Err(error) => return Err(failed(error)),
            };
            let mut temp = tree.temp(store.nonces.nonce()).map_err(failed)?;
            let what = Original { key: &source.key, size: source.size, checksum: source.checksum };
            copy_bytes(&mut original, &mut temp.file, &what, &held.no_reflink)?;
            store.land("copy object", &tree, temp, &place.names, row).map(Some)
        };
        Ok(self.store.blocking.run("copy object", &spec.from, copy).await??)
    }
}

/// What an original's file must hold.
struct Original<'a> {
    key: &'a ObjectKey,
    size: u64,
    checksum: Option<Checksum>,
}

fn copy_bytes(from: &mut File, to: &mut File, what: &Original<'_>, no_reflink: &AtomicBool) -> PortResult<()> {
    let failed = |error| io_error("copy object", what.key, error);
    let on_disk = from.metadata().map_err(failed)?.len();
    if on_disk != what.size {
        return Err(damaged(what.key, format!("its data file has {on_disk} bytes instead of {}", what.size)));
    }
    if what.size <= CHECKED_COPY_BYTES {
        let mut bytes = Vec::with_capacity(usize::try_from(what.size).expect("a small object"));
        from.read_to_end(&mut bytes).map_err(failed)?;
        let mut crc64 = crc64fast_nvme::Digest::new();
        crc64.write(&bytes);
        if what.checksum.is_some_and(|expected| expected.0 != crc64.sum64()) {
            return Err(damaged(what.key, "its checksum is not the one it was written with".to_owned()));
        }
        return to.write_all(&bytes).map_err(failed);
    }
    if !no_reflink.load(Ordering::Relaxed) {
        if rustix::fs::ioctl_ficlone(&*to, &*from).is_ok() {
            return Ok(());
        }
        // Not on this file system, or not from that one. A real fault of the disk shows again right below.
        no_reflink.store(true, Ordering::Relaxed);
    }
    append(from, to, what.size).map_err(failed)
}

/// Copies so many bytes from the start of one file to the position of the other.
pub(super) fn append(from: &mut File, to: &mut File, bytes: u64) -> io::Result<()> {
    let mut left = bytes;
    while left > 0 {
        let step = usize::try_from(left.min(COPY_STEP_BYTES as u64)).expect("at most a step");
        match rustix::fs::copy_file_range(&*from, None, &*to, None, step) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(copied) => left -= copied as u64,
            Err(Errno::INTR) => {}
            // Between two file systems that cannot: through this process, in small pieces.
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                let copied = io::copy(&mut from.take(left), to)?;
                return if copied == left { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
