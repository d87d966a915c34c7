//! Scan: an archive's records of a day as rows, part by part, for who looks through many of them: the row groups of the day's
//! packs, and of what is not packed a page at a time, or less where records are large. Each record once. Reads only.

use crate::error::{PortError, PortResult};
use crate::flows::find_record::original;
use crate::format::packed::{Column, Columns, rows_of};
use crate::limits::{SCAN_BYTES, SCAN_READS_IN_FLIGHT};
use crate::steps::archived_names::of_day;
use crate::steps::packs::{Names, Pack};
use crate::wrap::unpacked::Unpacked;
use futures_util::TryStreamExt;
use futures_util::stream::FuturesOrdered;
use lifecycle::archive::ServiceName;
use lifecycle::ids::ObjectKey;
use std::sync::Arc;

/// A part of a day.
#[derive(Clone, Debug)]
pub enum Part {
    /// A row group of a pack.
    Group(Arc<Pack>, usize),
    /// Records that are not packed.
    Objects(Vec<ObjectKey>),
}

/// The parts of a day; the day is `yyyy/mm/dd`.
pub async fn parts(archive: &Unpacked, service: &ServiceName, day: &str) -> PortResult<Vec<Part>> {
    let packs = archive.packs(service, day).await?;
    let mut parts = Vec::new();
    for pack in packs.iter() {
        parts.extend((0..pack.footer.groups()).map(|group| Part::Group(pack.clone(), group)));
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
    let names = match part {
        Part::Group(pack, group) => {
            let columns = pack.read(archive.objects(), *group, columns).await?;
            return Ok(Rows { columns, damaged: Vec::new() });
        }
        Part::Objects(names) => names,
    };
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
