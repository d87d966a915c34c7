//! Multipart uploads: parts as files of their own, joined when the upload completes.
//!
//! Order of writes: a part is a durable file below `.afterimage/uploads/<id>/`, then a row. Completing takes the first part's
//! file under a second name, appends the others to it (sharing no blocks, copied by the kernel), labels and publishes it, and
//! commits {object row, event, upload gone} in one transaction; then the parts' files go. A crash before the transaction
//! leaves the upload as it was: the first part's row still says how long it is, and completing again cuts the file back to
//! that. A crash after it leaves files of parts that no row knows; the next reindex deletes them. Laws: I1, I8, I11.

use super::bucket::Bucket;
use super::copy::append;
use super::crc;
use super::error::{StoreError, StoreResult, io_error};
use super::index::{self, Row};
use super::intake::{Intake, Taken};
use super::limits::{COMPLETED_KEPT, LIST_MAX, PART_BYTES_MIN, PART_NUMBERS};
use super::meta::{Stored, decode_hex, encode_hex};
use super::to_the_end;
use super::tree::{Temp, Tree};
use super::types::{
    BodyCheck, CompleteExpectation, CompletePart, Mismatch, ObjectInfo, PartInfo, PartPage, UploadId, UploadPage,
};
use super::upload_rows::{self, PartRow};
use crate::sqlite::error_map::Fault;
use engine::error::PortResult;
use engine::ports::objects::{Attributes, ByteStream, Onto};
use lifecycle::ids::{Checksum, ETag, ObjectKey};
use md5::{Digest, Md5};
use rusqlite::Connection;
use std::io::{self, Seek, SeekFrom};
use std::sync::Arc;

impl Bucket {
    pub(super) async fn begin_upload(&self, key: &ObjectKey, attributes: Attributes) -> StoreResult<UploadId> {
        let upload = UploadId(format!("{}{}", self.store.nonces.nonce(), self.store.nonces.nonce()));
        let (id, name, key_text, now) = (self.held.id, upload.0.clone(), key.to_string(), self.store.clock.now());
        let stored = Stored { attributes, ..Stored::default() };
        let insert = move |db: &Connection| -> Result<bool, Fault> {
            if index::is_deleted(db, id)? {
                return Ok(false);
            }
            upload_rows::insert(db, id, &key_text, &name, now, &stored).map(|()| true)
        };
        match self.store.db.write("begin upload", key.as_str(), insert).await? {
            true => Ok(upload),
            false => Err(StoreError::NoSuchBucket(self.held.info.name.to_string())),
        }
    }

    pub(super) async fn take_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        check: Option<Box<dyn BodyCheck>>,
        body: ByteStream,
    ) -> StoreResult<PartInfo> {
        if !PART_NUMBERS.contains(&number) {
            return Err(StoreError::Invalid(format!("part number {number} is not between 1 and 10,000")));
        }
        self.stored_of(key, upload).await?;
        let intake = Intake::new(self.held.tree()?, self.store.nonces.nonce(), check);
        let intake = intake.receive(&self.store.blocking, "put part", key, body).await?;
        let (this, key, upload) = (self.clone(), key.clone(), upload.clone());
        to_the_end("put part", key.clone(), async move { this.land_part(key, upload, number, intake).await }).await
    }

    async fn land_part(&self, key: ObjectKey, upload: UploadId, number: u32, intake: Intake) -> StoreResult<PartInfo> {
        let file = format!("uploads/{}/{number}.{}", upload.0, self.store.nonces.nonce());
        let (tree, object, path) = (self.held.tree()?, key.clone(), file.clone());
        let land = move || -> StoreResult<_> {
            let Taken { mut temp, digest, sums } = intake.finish("put part", &object)?;
            let failed = |error| io_error("put part", &object, error);
            temp.file.sync_all().map_err(failed)?;
            tree.publish_own(&mut temp, &path).map_err(failed)?;
            Ok((digest, sums))
        };
        let (digest, checksums) = self.store.blocking.run("put part", &key, land).await??;
        let info = PartInfo {
            number,
            etag: ETag(encode_hex(&digest.md5)),
            size: digest.size,
            last_modified: self.store.clock.now(),
            checksum: digest.crc64,
            checksums,
        };
        let (id, wanted, name) = (self.held.id, key.clone(), upload.0.clone());
        let row = PartRow { info: info.clone(), file: file.clone() };
        let put = move |db: &Connection| {
            // The upload may have been completed or aborted while the part was on its way.
            match upload_rows::find(db, id, wanted.as_str(), &name)? {
                None => Ok(None),
                Some(_) => upload_rows::put_part(db, &name, &row).map(Some),
            }
        };
        match self.store.db.write("put part", key.as_str(), put).await? {
            None => {
                self.remove_own("put part", &key, vec![file]).await?;
                Err(StoreError::NoSuchUpload(upload.0))
            }
            Some(replaced) => {
                self.remove_own("put part", &key, replaced.into_iter().collect()).await?;
                Ok(info)
            }
        }
    }

    async fn remove_own(&self, attempted: &'static str, key: &ObjectKey, files: Vec<String>) -> PortResult<()> {
        if files.is_empty() {
            return Ok(());
        }
        let tree = self.held.tree()?;
        let remove = move || files.iter().try_for_each(|file| tree.remove_own(file));
        let removed = self.store.blocking.run(attempted, key, remove).await?;
        removed.map_err(|error| io_error(attempted, key, error))
    }

    /// What the upload's object will carry; [`StoreError::NoSuchUpload`].
    async fn stored_of(&self, key: &ObjectKey, upload: &UploadId) -> StoreResult<Stored> {
        let (id, wanted, name) = (self.held.id, key.to_string(), upload.0.clone());
        let find = move |db: &Connection| upload_rows::find(db, id, &wanted, &name);
        let found = self.store.db.read("read upload", key.as_str(), find).await?;
        found.ok_or_else(|| StoreError::NoSuchUpload(upload.0.clone()))
    }

    pub(super) async fn parts_page(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        after: u32,
        limit: usize,
    ) -> StoreResult<PartPage> {
        self.stored_of(key, upload).await?;
        let (name, limit) = (upload.0.clone(), limit.min(LIST_MAX));
        let read = move |db: &Connection| upload_rows::parts(db, &name, after, limit + 1);
        let rows = self.store.db.read("list parts", key.as_str(), read).await?;
        let truncated = rows.len() > limit;
        Ok(PartPage { parts: rows.into_iter().take(limit).map(|row| row.info).collect(), truncated })
    }

    pub(super) async fn uploads_page(
        &self,
        prefix: &str,
        after: Option<(&str, Option<&UploadId>)>,
        limit: usize,
    ) -> StoreResult<UploadPage> {
        let (id, prefix, limit) = (self.held.id, prefix.to_owned(), limit.min(LIST_MAX));
        let after = after.map(|(key, upload)| (key.to_owned(), upload.map(|upload| upload.0.clone())));
        let read = move |db: &Connection| upload_rows::list(db, id, &prefix, after, limit + 1);
        let mut uploads = self.store.db.read("list uploads", self.held.info.name.as_str(), read).await?;
        let truncated = uploads.len() > limit;
        uploads.truncate(limit);
        Ok(UploadPage { uploads, truncated })
    }

    pub(super) async fn forget_upload(&self, key: &ObjectKey, upload: &UploadId) -> StoreResult<()> {
        let (id, wanted, name) = (self.held.id, key.to_string(), upload.0.clone());
        let delete = move |db: &Connection| upload_rows::delete(db, id, &wanted, &name);
        if !self.store.db.write("abort upload", key.as_str(), delete).await? {
            return Err(StoreError::NoSuchUpload(upload.0.clone()));
        }
        self.remove_parts(key, upload).await;
        Ok(())
    }

    /// Files of parts that no row knows: the next reindex deletes what stays.
    async fn remove_parts(&self, key: &ObjectKey, upload: &UploadId) {
        let folder = format!("uploads/{}", upload.0);
        let removed = match self.held.tree() {
            Err(error) => Err(error),
            Ok(tree) => {
                let remove = move || tree.remove_own_folder(&folder);
                match self.store.blocking.run("delete parts", key, remove).await {
                    Ok(removed) => removed.map_err(|error| io_error("delete parts", key, error)),
                    Err(error) => Err(error),
                }
            }
        };
        if let Err(error) = removed {
            tracing::warn!(%error, "the files of an ended upload stay until the next reindex");
        }
    }

    pub(super) async fn complete(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[CompletePart],
        onto: Onto,
        expected: CompleteExpectation,
    ) -> StoreResult<ObjectInfo> {
        let (this, key, upload, parts) = (self.clone(), key.clone(), upload.clone(), parts.to_vec());
        let work = async move { this.complete_locked(key, upload, parts, onto, expected).await };
        to_the_end("complete upload", &self.held.info.name, work).await
    }

    async fn complete_locked(
        &self,
        key: ObjectKey,
        upload: UploadId,
        wanted: Vec<CompletePart>,
        onto: Onto,
        expected: CompleteExpectation,
    ) -> StoreResult<ObjectInfo> {
        let lock = self.held.lock(&key).await;
        let mut stored = match self.stored_of(&key, &upload).await {
            // Whoever held the lock may have done it, for the same client.
            Err(error @ StoreError::NoSuchUpload(_)) => {
                return self.find_completed(&key, &upload, &wanted).await?.ok_or(error);
            }
            stored => stored?,
        };
        let name = upload.0.clone();
        let read = move |db: &Connection| upload_rows::parts(db, &name, 0, *PART_NUMBERS.end() as usize);
        let rows = self.store.db.read("read parts", key.as_str(), read).await?;
        let parts = chosen(&wanted, rows)?;
        let whole = Whole::of(&parts, &expected)?;
        let old = self.meets(&key, &onto).await?;

        let place = self.place(&key, old.as_ref());
        stored.parts = Some(u32::try_from(parts.len()).expect("at most 10,000 parts"));
        stored.sums = expected.checksums;
        let row = Row {
            key: key.clone(),
            path: None,
            sequencer: place.sequencer,
            event: None,
            etag: whole.etag,
            size: whole.size,
            last_modified: place.now,
            checksum: Some(whole.crc64),
            stored,
        };
        let (store, tree, temp_name) = (Arc::clone(&self.store), self.held.tree()?, self.store.nonces.nonce());
        let join = move || -> PortResult<Row> {
            let temp = join(&tree, &parts, temp_name);
            let temp = temp.map_err(|error| io_error("complete upload", &row.key, error))?;
            store.land("complete upload", &tree, temp, &place.names, row)
        };
        let row = self.store.blocking.run("complete upload", &key, join).await??;
        let (id, key_text, name, made) = (self.held.id, key.to_string(), upload.0.clone(), row.clone());
        let end_upload = move |db: &Connection| -> Result<StoreResult<()>, Fault> {
            // Aborted while its parts were being joined: that was answered, so no object may come of it.
            if !upload_rows::delete(db, id, &key_text, &name)? {
                return Ok(Err(StoreError::NoSuchUpload(name)));
            }
            upload_rows::remember(db, id, &name, &made).map(Ok)
        };
        let info = self.commit("complete upload", row, end_upload).await?;
        self.remove_parts(&key, &upload).await;
        drop(lock);
        Ok(info)
    }
}

impl Bucket {
    pub(super) async fn find_completed(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[CompletePart],
    ) -> StoreResult<Option<ObjectInfo>> {
        let since = self.store.clock.now().minus(COMPLETED_KEPT);
        let (id, wanted, name) = (self.held.id, key.clone(), upload.0.clone());
        let find = move |db: &Connection| upload_rows::completed(db, id, &wanted, &name, since);
        let found = self.store.db.read("read upload", key.as_str(), find).await?;
        let etag = etag_of(parts.iter().map(|part| (part.number, &part.etag)))?;
        Ok(found.filter(|info| info.version.etag == etag))
    }
}

/// The tag of an object of these parts: `<md5 of the parts' md5s>-<number of parts>`.
fn etag_of<'a>(parts: impl ExactSizeIterator<Item = (u32, &'a ETag)>) -> StoreResult<ETag> {
    let (mut md5s, count) = (Md5::new(), parts.len());
    for (number, etag) in parts {
        md5s.update(decode_hex(etag.as_str()).ok_or(StoreError::InvalidPart(number))?);
    }
    Ok(ETag(format!("{}-{count}", encode_hex(&md5s.finalize()))))
}

/// The rows of the parts that the client lists, in order.
fn chosen(wanted: &[CompletePart], rows: Vec<PartRow>) -> StoreResult<Vec<PartRow>> {
    if wanted.is_empty() {
        return Err(StoreError::Invalid("an upload is completed with at least one part".to_owned()));
    }
    if !wanted.is_sorted_by(|a, b| a.number < b.number) {
        return Err(StoreError::InvalidPartOrder);
    }
    let mut rows = rows.into_iter();
    let mut parts = Vec::with_capacity(wanted.len());
    for part in wanted {
        let row = rows.find(|row| row.info.number >= part.number);
        match row {
            Some(row) if row.info.number == part.number && row.info.etag == part.etag => parts.push(row),
            _ => return Err(StoreError::InvalidPart(part.number)),
        }
    }
    let (_, all_but_last) = parts.split_last().expect("at least one");
    match all_but_last.iter().find(|part| part.info.size < PART_BYTES_MIN) {
        Some(small) => Err(StoreError::PartTooSmall(small.info.number)),
        None => Ok(parts),
    }
}

/// What the parts come to together, without reading them again.
struct Whole {
    etag: ETag,
    size: u64,
    crc64: Checksum,
}

impl Whole {
    fn of(parts: &[PartRow], expected: &CompleteExpectation) -> StoreResult<Whole> {
        let (mut size, mut crc64) = (0, None);
        for PartRow { info, .. } in parts {
            size += info.size;
            crc64 = Some(crc64.map_or(info.checksum.0, |before| crc::join(before, info.checksum.0, info.size)));
        }
        let etag = etag_of(parts.iter().map(|part| (part.info.number, &part.info.etag)))?;
        let whole = Whole { etag, size, crc64: Checksum(crc64.unwrap_or_default()) };
        let differs = |what: &str, expected: String, actual: String| {
            StoreError::Mismatch(Mismatch { what: what.to_owned(), expected, actual })
        };
        if expected.size.is_some_and(|size| size != whole.size) {
            let said = expected.size.unwrap_or_default().to_string();
            return Err(differs("x-amz-mp-object-size", said, whole.size.to_string()));
        }
        if let Some(said) = expected.crc64.filter(|said| *said != whole.crc64) {
            let text = super::meta::checksum_text;
            return Err(differs("x-amz-checksum-crc64nvme", text(said), text(whole.crc64)));
        }
        Ok(whole)
    }
}

/// The parts in one temporary file, which is the first part's own. Blocks.
fn join(tree: &Arc<Tree>, parts: &[PartRow], name: String) -> io::Result<Temp> {
    let (first, others) = parts.split_first().expect("at least one");
    let mut temp = tree.temp_from_own(&first.file, name)?;
    if temp.file.metadata()?.len() < first.info.size {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file of the first part is too short"));
    }
    // What an earlier, killed completion appended goes first.
    temp.file.set_len(first.info.size)?;
    temp.file.seek(SeekFrom::End(0))?;
    for part in others {
        append(&mut tree.open_own(&part.file, false)?, &mut temp.file, part.info.size)?;
    }
    Ok(temp)
}
