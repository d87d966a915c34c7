//! The packs of an archive: where they lie, and reading of them no more than is asked for.
//!
//! `packed/service=<service>/day=<yyyy-mm-dd>/<number>.parquet`: partitions as query engines know them, and numbers from 1 on,
//! so that two who pack one day at the same time meet at one name, which only the first of them gets. A pack is written whole
//! and never again. Beside it, under `.afterimage/packs/`, stands a note once it was read back and found to be what was
//! packed; only such packs let their originals go.

use crate::error::{ErrorKind, PortError, PortResult};
use crate::format::packed::{Column, Columns, Footer, Pieces, decode, footer, footer_length};
use crate::limits::{LIST_PAGE, PACK_FETCHES_IN_FLIGHT, PACK_FOOTER_BYTES_MAX};
use crate::ports::objects::{Listed, ObjectRead, Page};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use lifecycle::archive::ServiceName;
use lifecycle::ids::{ETag, ObjectKey};
use parquet::errors::ParquetError;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;

/// Under which all packs lie.
pub const PACKED: &str = "packed/";
const ENDING: &str = ".parquet";
/// What is fetched of a pack's end at first: the footer of most.
const END: u64 = 64 << 10;

/// Where a pack is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PackPlace {
    /// Whose records it has.
    pub service: ServiceName,
    /// Deleted on which day: `yyyy/mm/dd`, UTC.
    pub day: String,
    /// Which pack of the day: from 1 on.
    pub number: u32,
}

impl PackPlace {
    /// The object's name.
    pub fn name(&self) -> ObjectKey {
        let name = format!("{}{:06}{ENDING}", day_folder(&self.service, &self.day), self.number);
        ObjectKey::new(name).expect("services have short names")
    }

    /// Where it stands that the pack was read back.
    pub fn note(&self) -> ObjectKey {
        let name = format!(".afterimage/packs/{}/{}/{:06}.json", self.service, self.day.replace('/', "-"), self.number);
        ObjectKey::new(name).expect("services have short names")
    }

    /// Reads a name back.
    pub fn parse(name: &ObjectKey) -> Option<PackPlace> {
        let parts = name.as_str().strip_prefix(PACKED)?.strip_prefix("service=")?;
        let (service, rest) = parts.split_once("/day=")?;
        let (day, number) = rest.split_once('/')?;
        let date: jiff::civil::Date = day.parse().ok()?;
        let number = number.strip_suffix(ENDING)?.parse().ok().filter(|number| *number > 0)?;
        let service = ServiceName::new(service).ok()?;
        let place = PackPlace { service, day: date.strftime("%Y/%m/%d").to_string(), number };
        (place.name() == *name).then_some(place)
    }
}

/// Under which the packs of a day lie; the day is `yyyy/mm/dd`.
pub fn day_folder(service: &ServiceName, day: &str) -> String {
    format!("{PACKED}service={service}/day={}/", day.replace('/', "-"))
}

/// The note beside a pack: it was read back, and had what was packed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Version of this layout.
    pub format: u32,
    /// When it was read back, in Unix milliseconds.
    pub verified_at_ms: i64,
    /// How many records it has.
    pub records: u64,
    /// What they come to.
    pub digest: String,
    /// Whether the objects that it has are all there: written when they were packed, and again before the first of them goes.
    /// `None`: nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub originals: Option<Originals>,
    /// What `ObjectsSum` makes of the objects that it has; a note of an earlier version has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<String>,
}

/// The objects that a pack has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Originals {
    /// All of them were there. Whether they still are is looked at whenever it matters (`crates/engine/src/steps/originals.rs`):
    /// a bucket's lifecycle may take them away.
    Whole,
    /// They go, or have gone.
    Going,
}

/// One page of a service's packs, sorted by days and numbers, after that name. Other objects there are passed over.
pub async fn list(
    archive: &dyn ObjectRead,
    service: &ServiceName,
    after: Option<&ObjectKey>,
    limit: usize,
) -> PortResult<Page<(PackPlace, Listed)>> {
    let Page { items, next } = archive.list(&format!("{PACKED}service={service}/day="), after, limit).await?;
    let packs = items.into_iter().filter_map(|listed| Some((PackPlace::parse(&listed.key)?, listed)));
    Ok(Page { items: packs.collect(), next })
}

/// All packs of a day.
pub async fn of_day(
    archive: &dyn ObjectRead,
    service: &ServiceName,
    day: &str,
) -> PortResult<Vec<(PackPlace, Listed)>> {
    let (folder, mut found, mut after) = (day_folder(service, day), Vec::new(), None);
    loop {
        let Page { items, next } = archive.list(&folder, after.as_ref(), LIST_PAGE).await?;
        found.extend(items.into_iter().filter_map(|listed| Some((PackPlace::parse(&listed.key)?, listed))));
        after = next;
        if after.is_none() {
            return Ok(found);
        }
    }
}

/// A pack whose end was read.
#[derive(Debug)]
pub struct Pack {
    /// Where it is.
    pub place: PackPlace,
    name: ObjectKey,
    length: u64,
    /// What it says of itself.
    pub footer: Arc<Footer>,
}

impl Pack {
    /// Reads its end; `None`: it is not there any more.
    pub async fn open(archive: &dyn ObjectRead, place: PackPlace, listed: &Listed) -> PortResult<Option<Pack>> {
        let (name, length) = (listed.key.clone(), listed.version.size);
        let damaged = |error: ParquetError| damaged(&name, error);
        let Some(mut end) = fetch(archive, &name, length.saturating_sub(END)..length).await? else { return Ok(None) };
        let whole = footer_length(&end).map_err(damaged)?;
        if whole > PACK_FOOTER_BYTES_MAX || whole as u64 > length {
            return Err(PortError::new("read pack", &name, ErrorKind::Damaged("its end makes no sense".to_owned())));
        }
        if whole > end.len() {
            let Some(longer) = fetch(archive, &name, length - whole as u64..length).await? else { return Ok(None) };
            end = longer;
        }
        let footer = Arc::new(footer(&end).map_err(damaged)?);
        Ok(Some(Pack { place, name, length, footer }))
    }

    /// Reads columns of one row group.
    pub async fn read(&self, archive: &dyn ObjectRead, group: usize, columns: &[Column]) -> PortResult<Columns> {
        let ranges = self.footer.ranges(group, columns);
        if ranges.iter().any(|range| range.start > range.end || range.end > self.length) {
            let why = "its end speaks of bytes that it does not have".to_owned();
            return Err(PortError::new("read pack", &self.name, ErrorKind::Damaged(why)));
        }
        let fetched = stream::iter(ranges).map(|range| async move {
            let start = range.start;
            let gone = || PortError::new("read pack", &self.name, ErrorKind::Unavailable);
            PortResult::Ok((start, fetch(archive, &self.name, range).await?.ok_or_else(gone)?))
        });
        let pieces = fetched.buffer_unordered(PACK_FETCHES_IN_FLIGHT).try_collect().await?;
        let pieces = Pieces { length: self.length, pieces };
        let (footer, columns) = (self.footer.clone(), columns.to_vec());
        let decoded = tokio::task::spawn_blocking(move || decode(&footer, group, &columns, pieces)).await;
        let stopped =
            |error| PortError::new("read pack", &self.name, ErrorKind::Internal("its thread".into())).because(error);
        decoded.map_err(stopped)?.map_err(|error| damaged(&self.name, error))
    }

    /// The object's name.
    pub fn name(&self) -> &ObjectKey {
        &self.name
    }
}

fn damaged(name: &ObjectKey, error: ParquetError) -> PortError {
    PortError::new("read pack", name, ErrorKind::Damaged(error.to_string())).because(error)
}

async fn fetch(archive: &dyn ObjectRead, name: &ObjectKey, range: Range<u64>) -> PortResult<Option<Bytes>> {
    let wanted = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    // An empty object has no range.
    let asked = (wanted > 0).then_some(range);
    let Some(mut object) = archive.get(name, None, asked).await? else { return Ok(None) };
    let mut bytes = Vec::with_capacity(wanted);
    while let Some(piece) = object.body.try_next().await? {
        bytes.extend_from_slice(&piece);
    }
    if bytes.len() == wanted {
        return Ok(Some(bytes.into()));
    }
    let why = format!("{} bytes came instead of {wanted}", bytes.len());
    Err(PortError::new("read pack", name, ErrorKind::Damaged(why)))
}

/// An object that a pack has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedOriginal {
    /// Its name.
    pub object: ObjectKey,
    /// Its tag, when it was packed.
    pub etag: ETag,
    /// Its bytes.
    pub size: u64,
    /// In which of the packs.
    pub pack: usize,
}

/// What some packs have, for who goes through names in order.
pub struct Names<'a> {
    archive: &'a dyn ObjectRead,
    cursors: Vec<Cursor<'a>>,
}

struct Cursor<'a> {
    pack: &'a Pack,
    group: usize,
    rows: Option<Columns>,
}

impl<'a> Names<'a> {
    /// Of those packs.
    pub fn of(archive: &'a dyn ObjectRead, packs: &[&'a Pack]) -> Names<'a> {
        let cursor = |pack: &&'a Pack| Cursor { pack, group: 0, rows: None };
        Names { archive, cursors: packs.iter().map(cursor).collect() }
    }

    /// What one of them has of it. Names must be asked for in their order.
    pub async fn find(&mut self, name: &ObjectKey) -> PortResult<Option<PackedOriginal>> {
        for (pack, cursor) in self.cursors.iter_mut().enumerate() {
            if let Some((etag, size)) = cursor.find(self.archive, name.as_str()).await? {
                return Ok(Some(PackedOriginal { object: name.clone(), etag, size, pack }));
            }
        }
        Ok(None)
    }
}

impl Cursor<'_> {
    async fn find(&mut self, archive: &dyn ObjectRead, name: &str) -> PortResult<Option<(ETag, u64)>> {
        let footer = &self.pack.footer;
        while self.group < footer.groups() && footer.objects(self.group).is_none_or(|(_, last)| last < name) {
            self.group += 1;
            self.rows = None;
        }
        if self.group == footer.groups() || footer.objects(self.group).is_none_or(|(first, _)| name < first) {
            return Ok(None);
        }
        if self.rows.is_none() {
            let columns = [Column::Object, Column::Etag, Column::Size];
            self.rows = Some(self.pack.read(archive, self.group, &columns).await?);
        }
        let rows = self.rows.as_ref().expect("read just now");
        let row = rows.from_object(name);
        if rows.text(Column::Object, row) != Some(name) {
            return Ok(None);
        }
        let (etag, size) = (rows.text(Column::Etag, row), rows.int(Column::Size, row));
        Ok(etag.zip(size).map(|(etag, size)| (ETag::from(etag), u64::try_from(size).unwrap_or(0))))
    }
}
