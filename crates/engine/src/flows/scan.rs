//! Scan: an archive's records of a day as rows, part by part, for who looks through many of them: the row groups of the day's
//! packs, and of what is not packed a page at a time, or less where records are large. Each record once, also where two packs
//! have it. A row group that is damaged is read from its records' objects, if all that its pack has is there. Reads only.

use crate::error::{PortError, PortResult};
use crate::flows::find_record::original;
use crate::format::packed::{Column, Columns, rows_of};
use crate::limits::{SCAN_BYTES, SCAN_READS_IN_FLIGHT};
use crate::ports::objects::ObjectRead;
use crate::steps::archived_names::of_day;
use crate::steps::packs::{Names, Pack};
use crate::wrap::unpacked::Unpacked;
use futures_util::TryStreamExt;
use futures_util::stream::FuturesOrdered;
use lifecycle::archive::ServiceName;
use lifecycle::ids::ObjectKey;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

/// A part of a day.
#[derive(Clone, Debug)]
pub enum Part {
    /// A row group of a pack.
    Group {
        /// The pack.
        pack: Arc<Pack>,
        /// Which of its row groups.
        group: usize,
        /// Rows of it that an earlier pack of the day has, too.
        without: Vec<usize>,
    },
    /// Records that are not packed.
    Objects(Vec<ObjectKey>),
}

/// The parts of a day; the day is `yyyy/mm/dd`.
pub async fn parts(archive: &Unpacked, service: &ServiceName, day: &str) -> PortResult<Vec<Part>> {
    loop {
        let packs = archive.packs(service, day).await?;
        match parts_with(archive, &packs, service, day).await {
            Err(error) if archive.pass_over(service, day, &error).await? => {}
            parts => return parts,
        }
    }
}

async fn parts_with(
    archive: &Unpacked,
    packs: &[Arc<Pack>],
    service: &ServiceName,
    day: &str,
) -> PortResult<Vec<Part>> {
    let (mut twice, mut parts) = (packed_twice(archive.objects(), packs).await?, Vec::new());
    for (number, pack) in packs.iter().enumerate() {
        parts.extend((0..pack.footer.groups()).map(|group| {
            let without = twice.remove(&(number, group)).unwrap_or_default();
            Part::Group { pack: pack.clone(), group, without }
        }));
    }
    let packed: Vec<&Pack> = packs.iter().map(Arc::as_ref).collect();
    let (mut names, mut after) = (Names::of(archive.objects(), &packed), None);
    loop {
        let page = of_day(archive.objects(), &format!("{service}/{day}/"), "", after.as_ref()).await?;
        let (mut left, mut bytes) = (Vec::new(), 0);
        for named in page.items {
            if names.find(&named.listed.key).await?.is_some() {
                continue;
            }
            bytes += named.listed.version.size;
            left.push(named.listed.key);
            if bytes >= SCAN_BYTES {
                parts.push(Part::Objects(std::mem::take(&mut left)));
                bytes = 0;
            }
        }
        if !left.is_empty() {
            parts.push(Part::Objects(left));
        }
        after = page.next;
        if after.is_none() {
            return Ok(parts);
        }
    }
}

/// The rows that an earlier one of the packs has, too: of each pack and row group. Packs are made so that no two have one name;
/// one that was removed, packed anew and brought back later has all of them. Names are gone through side by side, in order.
async fn packed_twice(
    archive: &dyn ObjectRead,
    packs: &[Arc<Pack>],
) -> PortResult<BTreeMap<(usize, usize), Vec<usize>>> {
    let mut twice: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
    if !overlap(packs) {
        return Ok(twice);
    }
    let (mut rows, mut next) = (Vec::with_capacity(packs.len()), BinaryHeap::new());
    for (number, pack) in packs.iter().enumerate() {
        let mut of_pack = PackRows { pack, group: 0, row: 0, names: None };
        next.extend(of_pack.next(archive).await?.map(|(name, at)| Reverse((name, number, at))));
        rows.push(of_pack);
    }
    let mut last = None;
    while let Some(Reverse((name, number, (group, row)))) = next.pop() {
        next.extend(rows[number].next(archive).await?.map(|(name, at)| Reverse((name, number, at))));
        match last.as_ref() == Some(&name) {
            true => twice.entry((number, group)).or_default().push(row),
            false => last = Some(name),
        }
    }
    Ok(twice)
}

/// Whether two of the packs may have one name.
fn overlap(packs: &[Arc<Pack>]) -> bool {
    let ends = |pack: &'_ Pack| {
        let (first, _) = pack.footer.objects(0)?;
        let (_, last) = pack.footer.objects(pack.footer.groups().checked_sub(1)?)?;
        Some((first.to_owned(), last.to_owned()))
    };
    let mut all: Vec<(String, String)> = packs.iter().filter_map(|pack| ends(pack)).collect();
    all.sort_unstable();
    all.windows(2).any(|two| two[1].0 <= two[0].1)
}

/// The names of a pack, one after the other.
struct PackRows<'a> {
    pack: &'a Pack,
    group: usize,
    row: usize,
    names: Option<Columns>,
}

impl PackRows<'_> {
    /// The next one, with its row group and row.
    async fn next(&mut self, archive: &dyn ObjectRead) -> PortResult<Option<(String, (usize, usize))>> {
        while self.group < self.pack.footer.groups() {
            if self.names.is_none() {
                self.names = Some(self.pack.read(archive, self.group, &[Column::Object]).await?);
            }
            let name = self.names.as_ref().and_then(|names| names.text(Column::Object, self.row));
            if let Some(name) = name {
                let found = (name.to_owned(), (self.group, self.row));
                self.row += 1;
                return Ok(Some(found));
            }
            (self.group, self.row, self.names) = (self.group + 1, 0, None);
        }
        Ok(None)
    }
}

/// The rows of a part.
#[derive(Debug, Default)]
pub struct Rows {
    /// Those columns, and of what is not packed all of them.
    pub columns: Columns,
    /// What does not read back, by name.
    pub damaged: Vec<(ObjectKey, PortError)>,
}

/// Reads a part.
pub async fn rows(archive: &Arc<Unpacked>, part: &Part, columns: &[Column]) -> PortResult<Rows> {
    match part {
        Part::Group { pack, group, without } => match pack.read(archive.objects(), *group, columns).await {
            Ok(columns) => Ok(Rows { columns: columns.without(without), damaged: Vec::new() }),
            Err(error) => rows_without_pack(archive, (pack, *group, without), error).await,
        },
        Part::Objects(names) => rows_of_objects(archive, names).await,
    }
}

/// Rows of a row group that cannot be read, if nobody needs its pack: those of the objects that it says it has.
async fn rows_without_pack(
    archive: &Arc<Unpacked>,
    (pack, group, without): (&Pack, usize, &[usize]),
    error: PortError,
) -> PortResult<Rows> {
    if !archive.pass_over(&pack.place.service, &pack.place.day, &error).await? {
        return Err(error);
    }
    let Ok(names) = pack.read(archive.objects(), group, &[Column::Object]).await else { return Err(error) };
    let names = names.without(without);
    let named = (0..names.rows).filter_map(|row| ObjectKey::new(names.text(Column::Object, row)?).ok());
    rows_of_objects(archive, &named.collect::<Vec<ObjectKey>>()).await
}

async fn rows_of_objects(archive: &Arc<Unpacked>, names: &[ObjectKey]) -> PortResult<Rows> {
    let (mut originals, mut damaged) = (Vec::with_capacity(names.len()), Vec::new());
    let (mut reading, mut left) = (FuturesOrdered::new(), names.iter());
    loop {
        while reading.len() < SCAN_READS_IN_FLIGHT
            && let Some(name) = left.next()
        {
            reading.push_back(original(archive.clone(), name.clone()));
        }
        match reading.try_next().await? {
            None => break,
            Some(Ok(original)) => originals.extend(original),
            Some(Err(bad)) => damaged.push(bad),
        }
    }
    let (columns, foreign) = rows_of(&originals);
    let damaged_too = |(name, why): (ObjectKey, crate::format::archived::BadRecord)| {
        let error = PortError::new("read archived record", &name, crate::error::ErrorKind::Damaged(why.to_string()));
        (name, error)
    };
    damaged.extend(foreign.into_iter().map(damaged_too));
    Ok(Rows { columns, damaged })
}
