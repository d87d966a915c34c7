//! Reading: one object's row, its bytes as a stream, a page of a listing. Writes nothing, but takes a copy into a
//! destination's index that is found by its path only.
//!
//! Laws: I11 (bytes are streamed in pieces of one size), V8 (a missing file, or folder, is an error and never "absent"). A
//! body that is read whole is checked against its checksum before its last piece is given out.

use super::blocking::Blocking;
use super::bucket::Bucket;
use super::error::{StoreError, StoreResult, io_error};
use super::index::{self, Row};
use super::limits::{LIST_MAX, READ_TRIES};
use super::meta::{Label, Stored, encode_hex};
use super::path::{Layout, key_of, path_of};
use super::tree::{Tree, is_no_such};
use super::types::{Found, ListPage, ListRequest, ReadRange, Role};
use bytes::{Bytes, BytesMut};
use engine::error::{ErrorKind, PortError, PortResult};
use engine::limits::{RECORD_BYTES_MAX, STREAM_CHUNK};
use engine::ports::objects::{ByteStream, Small};
use futures_util::StreamExt;
use futures_util::stream;
use lifecycle::ids::{Checksum, ETag, ObjectKey, VersionId};
use lifecycle::time::UnixMs;
use md5::{Digest, Md5};
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

impl Bucket {
    /// The row of a version (`None`: the current one). In a destination, a file without row counts too.
    pub(super) async fn locate(&self, key: &ObjectKey, version: Option<&VersionId>) -> PortResult<Option<Row>> {
        let (id, wanted, version) = (self.held.id, key.clone(), version.cloned());
        let no_versions = self.held.info.role == Role::Destination;
        if no_versions && version.is_some() {
            return Ok(None);
        }
        let find = move |db: &rusqlite::Connection| match &version {
            None => index::find(db, id, &wanted),
            Some(version) => index::find_version(db, id, &wanted, version),
        };
        let row = self.store.db.read("read object row", key.as_str(), find).await?;
        match row {
            None if no_versions => self.probe(key).await,
            row => Ok(row),
        }
    }

    /// A destination's file by its path: a crash may have kept its row from being written.
    pub(super) async fn probe(&self, key: &ObjectKey) -> PortResult<Option<Row>> {
        let (tree, wanted, held) = (self.held.tree()?, key.clone(), Arc::clone(&self.held));
        let probe = move || -> PortResult<Option<Row>> {
            let failed = |error| io_error("look for object", &wanted, error);
            match tree.find(&path_of(&wanted, None)).map_err(failed)? {
                Some(path) => row_of_file(&tree, &path, Layout::Plain).map_err(failed),
                None if tree.is_there() => Ok(None),
                None => Err(held.folder_is_missing()),
            }
        };
        self.store.blocking.run("look for object", key, probe).await?
    }

    /// The object with its bytes.
    pub(super) async fn read(
        &self,
        key: &ObjectKey,
        version: Option<&VersionId>,
        range: ReadRange,
    ) -> StoreResult<Option<Found>> {
        for _ in 0..READ_TRIES {
            let Some(row) = self.locate(key, version).await? else { return Ok(None) };
            let bytes = bytes_of(&range, row.size)?;
            // Where the file is missing, the version may have been replaced and reclaimed since its row was read.
            if let Some(body) = stream_file(&self.store.blocking, self.held.tree()?, &row, bytes.clone()).await? {
                return Ok(Some(Found { info: row.info(), range: bytes, body }));
            }
        }
        let held = &self.held;
        if !held.tree()?.is_there() {
            return Err(held.folder_is_missing().into());
        }
        let gone = damaged(key, "its data file is missing".to_owned());
        Err(gone.because(io::Error::from(io::ErrorKind::NotFound)).into())
    }

    /// Small objects, whole: one look into the index and one thread for all of them. `None`: one that the index does not have,
    /// or whose file is not there, must be read the usual way.
    pub(super) async fn read_small(&self, keys: &[ObjectKey]) -> PortResult<Vec<Option<PortResult<Small>>>> {
        let (id, wanted, tree) = (self.held.id, keys.to_vec(), self.held.tree()?);
        let find = move |db: &rusqlite::Connection| wanted.iter().map(|key| index::find(db, id, key)).collect();
        let bucket = self.held.info.name.as_str();
        let rows: Vec<Option<Row>> = self.store.db.read("read object rows", bucket, find).await?;
        let read = move || {
            let one = |row: Row| {
                let content = content_of(&tree, &row).transpose()?;
                Some(content.map(|content| Small { head: row.into_head(), content }))
            };
            rows.into_iter().map(|row| row.and_then(one)).collect()
        };
        self.store.blocking.run("read objects", bucket, read).await
    }

    /// One page of a listing.
    pub(super) async fn list_page(&self, request: &ListRequest) -> StoreResult<ListPage> {
        if request.limit == 0 {
            return Ok(ListPage::default());
        }
        let request = ListRequest { limit: request.limit.min(LIST_MAX), ..request.clone() };
        self.held.all_indexed().await;
        let id = self.held.id;
        let list = move |db: &rusqlite::Connection| index::list(db, id, &request);
        Ok(self.store.db.read("list objects", self.held.info.name.as_str(), list).await?)
    }
}

/// All bytes of a row; `None`: there is no such file. Blocks.
fn content_of(tree: &Tree, row: &Row) -> PortResult<Option<Bytes>> {
    if row.size > RECORD_BYTES_MAX as u64 {
        return Err(damaged(&row.key, format!("it has more than {RECORD_BYTES_MAX} bytes")));
    }
    let Some(mut body) = open(tree, row, 0..row.size)? else { return Ok(None) };
    let first = body.next()?;
    if body.at == body.end {
        return Ok(Some(first));
    }
    let mut content = BytesMut::from(first);
    while body.at < body.end {
        content.extend_from_slice(&body.next()?);
    }
    Ok(Some(content.freeze()))
}

/// A row's data file, of the length that the row says; `None` when there is no such file. Blocks.
fn open(tree: &Tree, row: &Row, bytes: Range<u64>) -> PortResult<Option<Body>> {
    let failed = |error| io_error("read object", &row.key, error);
    let file = match tree.open_file(&row.data_path()) {
        Ok(file) => file,
        Err(error) if is_no_such(&error) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let on_disk = file.metadata().map_err(failed)?.len();
    if on_disk != row.size {
        return Err(damaged(&row.key, format!("its data file has {on_disk} bytes instead of {}", row.size)));
    }
    let whole = bytes == (0..row.size);
    Ok(Some(Body {
        key: row.key.clone(),
        file,
        at: bytes.start,
        end: bytes.end,
        expected: row.checksum.filter(|_| whole),
        crc64: crc64fast_nvme::Digest::new(),
    }))
}

/// The bytes of a row's data file; `None` when there is no such file. The first piece is read at once.
pub(super) async fn stream_file(
    blocking: &Blocking,
    tree: Arc<Tree>,
    row: &Row,
    bytes: Range<u64>,
) -> PortResult<Option<ByteStream>> {
    let of = row.clone();
    let first = move || -> PortResult<Option<(Body, Bytes)>> {
        let Some(mut body) = open(&tree, &of, bytes)? else { return Ok(None) };
        let piece = body.next()?;
        Ok(Some((body, piece)))
    };
    let Some((body, piece)) = blocking.run("read object", &row.key, first).await?? else { return Ok(None) };
    let rest = stream::try_unfold((blocking.clone(), body), |(blocking, mut body)| async move {
        if body.at == body.end {
            return Ok(None);
        }
        let key = body.key.clone();
        let read = move || body.next().map(|piece| (body, piece));
        let (body, piece) = blocking.run("read object", key, read).await??;
        Ok(Some((piece, (blocking, body))))
    });
    Ok(Some(stream::iter([Ok(piece)]).chain(rest).boxed()))
}

/// A data file being read.
struct Body {
    key: ObjectKey,
    file: File,
    at: u64,
    end: u64,
    /// What the whole must come to; `None` when only a part is read, or nobody knows.
    expected: Option<Checksum>,
    crc64: crc64fast_nvme::Digest,
}

impl Body {
    /// The next piece. The last one only once everything has proved right. Blocks.
    fn next(&mut self) -> PortResult<Bytes> {
        let wanted = (self.end - self.at).min(STREAM_CHUNK as u64);
        let mut piece = vec![0; usize::try_from(wanted).expect("at most a chunk")];
        let read = self.file.read_exact_at(&mut piece, self.at);
        read.map_err(|error| io_error("read object", &self.key, error))?;
        self.at += wanted;
        if let Some(expected) = self.expected {
            self.crc64.write(&piece);
            if self.at == self.end && Checksum(self.crc64.sum64()) != expected {
                return Err(damaged(&self.key, "its checksum is not the one it was written with".to_owned()));
            }
        }
        Ok(Bytes::from(piece))
    }
}

/// The error of an object whose bytes are not those that were written.
pub(super) fn damaged(key: &ObjectKey, what: String) -> PortError {
    PortError::new("read object", key, ErrorKind::Damaged(what))
}

fn bytes_of(range: &ReadRange, size: u64) -> StoreResult<Range<u64>> {
    let (start, end) = match range {
        ReadRange::Whole => return Ok(0..size),
        ReadRange::Between(range) => (range.start, range.end.min(size)),
        ReadRange::From(start) => (*start, size),
        ReadRange::Last(count) => (size.saturating_sub(*count), size),
    };
    if start < end { Ok(start..end) } else { Err(StoreError::RangeNotSatisfiable { size }) }
}

/// The row that a data file makes by itself: from its label, or, for a file put there by hand, from its bytes. `None`: no
/// file of ours, or it has gone. Blocks.
pub(super) fn row_of_file(tree: &Tree, path: &str, layout: Layout) -> io::Result<Option<Row>> {
    let names: Vec<&str> = path.split('/').collect();
    let Some((key, sequencer)) = key_of(&names, layout) else { return Ok(None) };
    let file = match tree.open_file(path) {
        Ok(file) => file,
        Err(error) if is_no_such(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    let Label { etag, checksum, stored } = match Label::of(tree, &file, path)? {
        Some(label) => label,
        None => label_of_bytes(file)?,
    };
    let last_modified = UnixMs(metadata.mtime() * 1_000 + metadata.mtime_nsec() / 1_000_000);
    let size = metadata.len();
    let mut row = Row { key, path: None, sequencer, event: None, etag, size, last_modified, checksum, stored };
    row.set_data_path(path.to_owned());
    Ok(Some(row))
}

fn label_of_bytes(mut file: File) -> io::Result<Label> {
    let (mut md5, mut crc64) = (Md5::new(), crc64fast_nvme::Digest::new());
    let mut piece = vec![0; STREAM_CHUNK];
    loop {
        match file.read(&mut piece)? {
            0 => break,
            read => {
                md5.update(&piece[..read]);
                crc64.write(&piece[..read]);
            }
        }
    }
    let etag = ETag(encode_hex(&md5.finalize()));
    Ok(Label { etag, checksum: Some(Checksum(crc64.sum64())), stored: Stored::default() })
}
