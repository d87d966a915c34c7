//! An archive with its packs opened: what stands in a pack is listed and read as the object that it was, beside the objects
//! that there are. Who looks for a record need not know whether it was packed.
//!
//! An object that lies in an archive tier, or is damaged, is read in a pack that can be read, if it stands in one. A pack that
//! lies in one, or is damaged, is passed over where all that it has is there as objects, too; a damaged one is told. The damage
//! may be found long after the pack was opened: then it is looked again without it.
//!
//! Of a day no more is read than what is asked for: the ends of its packs, and of a row group the columns that are needed.
//! The last ones are kept, since neighbours follow each other. Reads only.

use crate::error::{ErrorKind, PortError, PortResult};
use crate::format::archived::{META_CAUSE, META_HASH};
use crate::format::packed::{Column, Columns, body_of};
use crate::limits::{PACK_GROUPS_KEPT, PACK_NAMES_KEPT, PACKS_KEPT};
use crate::ports::objects::{Attributes, Head, Listed, Object, ObjectRead, Page, Reach, Retrieval};
use crate::report::chain;
use crate::steps::away::{Away, is_archived};
use crate::steps::originals::{DayOfPacks, is_unreadable, open_day};
use crate::steps::packs::{Pack, PackPlace, list};
use crate::steps::verify::body_of as stream_of;
use async_trait::async_trait;
use lifecycle::archive::{Parsed, ServiceName, parse};
use lifecycle::event::Version;
use lifecycle::ids::{ETag, ObjectKey, VersionId};
use lifecycle::time::UnixMs;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OnceCell;

/// What a listing needs of a row.
const LISTED: [Column; 4] = [Column::Object, Column::Etag, Column::Size, Column::DeletedAt];
/// What the object's content needs besides.
const WHOLE: [Column; 9] = [
    Column::Object,
    Column::Etag,
    Column::Size,
    Column::DeletedAt,
    Column::Cause,
    Column::Hash,
    Column::Image,
    Column::Rest,
    Column::ImageAt,
];

/// An archive, packs and all.
pub struct Unpacked {
    inner: Arc<dyn ObjectRead>,
    away: Away,
    days: Kept<String, Vec<Arc<Pack>>>,
    /// What listings need of row groups, and all that records need.
    names: Kept<(ObjectKey, usize), Columns>,
    wholes: Kept<(ObjectKey, usize), Columns>,
    damaged: Mutex<BTreeMap<ObjectKey, PortError>>,
    /// Packs with damaged row groups that are needed all the same: for the others.
    needed: Mutex<BTreeSet<ObjectKey>>,
}

/// A row of a pack.
struct Row {
    columns: Arc<Columns>,
    row: usize,
}

impl Unpacked {
    /// The same archive, with its packs opened.
    pub fn new(inner: Arc<dyn ObjectRead>) -> Unpacked {
        Unpacked::asking(inner, None)
    }

    /// The same; what lies in archive tiers is asked for on these terms, if any.
    pub fn asking(inner: Arc<dyn ObjectRead>, terms: Option<Retrieval>) -> Unpacked {
        let away = Away::of(inner.clone(), terms);
        let (names, wholes) = (Kept::of(PACK_NAMES_KEPT), Kept::of(PACK_GROUPS_KEPT));
        let (damaged, needed) = (Mutex::default(), Mutex::default());
        Unpacked { inner, away, days: Kept::of(PACKS_KEPT), names, wholes, damaged, needed }
    }

    /// The objects alone: packs, and records that are not packed.
    pub fn objects(&self) -> &dyn ObjectRead {
        self.inner.as_ref()
    }

    /// What of it lies in archive tiers, as far as somebody came upon it.
    pub fn away(&self) -> &Away {
        &self.away
    }

    /// Packs that are damaged, and were passed over, as far as somebody came upon them.
    pub fn damaged(&self) -> BTreeMap<ObjectKey, PortError> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The packs of a day, opened; without those that cannot be and are not needed.
    pub async fn packs(&self, service: &ServiceName, day: &str) -> PortResult<Arc<Vec<Arc<Pack>>>> {
        let open = || async {
            let opened = open_day(self.inner.as_ref(), service, day, &self.damaged()).await?;
            Ok(self.without(opened))
        };
        self.days.get(format!("{service}/{day}"), open).await
    }

    /// Whether an error says that one of a day's packs is damaged, and nobody needs that pack: from now on it is passed over, so
    /// that it is worth looking again.
    pub async fn pass_over(&self, service: &ServiceName, day: &str, error: &PortError) -> PortResult<bool> {
        let name = ObjectKey::new(error.object.as_str()).ok().filter(|name| PackPlace::parse(name).is_some());
        let (ErrorKind::Damaged(_), Some(name)) = (&error.kind, name) else { return Ok(false) };
        let mut known = self.damaged();
        if known.contains_key(&name) {
            return Ok(true); // Somebody else came upon it at the same time.
        }
        if self.needed.lock().unwrap_or_else(PoisonError::into_inner).contains(&name) {
            return Ok(false);
        }
        known.insert(name.clone(), error.clone());
        match open_day(self.inner.as_ref(), service, day, &known).await {
            Ok(opened) => {
                self.days.put(format!("{service}/{day}"), self.without(opened));
                Ok(true)
            }
            Err(error) if is_unreadable(&error) => {
                self.needed.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// The packs of a day that can be read; of the others, those that are damaged are told, once.
    fn without(&self, opened: DayOfPacks) -> Vec<Arc<Pack>> {
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, error) in opened.passed_over {
            if is_archived(&error) || damaged.contains_key(&name) {
                continue;
            }
            tracing::error!("a pack that is not needed to read its records is damaged: {}", chain(&error));
            damaged.insert(name, error);
        }
        opened.packs
    }

    /// What the packs say of an object, whether it is there itself or not.
    pub async fn packed(&self, name: &ObjectKey) -> PortResult<Option<Head>> {
        let Some(row) = self.row(name).await? else { return Ok(None) };
        row.head().map(Some).ok_or_else(|| bad_row(name))
    }

    async fn names(&self, pack: &Pack, group: usize) -> PortResult<Arc<Columns>> {
        let key = (pack.name().clone(), group);
        self.names.get(key, || pack.read(self.inner.as_ref(), group, &LISTED)).await
    }

    async fn whole(&self, pack: &Pack, group: usize) -> PortResult<Arc<Columns>> {
        let key = (pack.name().clone(), group);
        self.wholes.get(key, || pack.read(self.inner.as_ref(), group, &WHOLE)).await
    }

    /// The row of an object, if it stands in a pack. Of packs that do not have it no more is read than names.
    async fn row(&self, name: &ObjectKey) -> PortResult<Option<Row>> {
        let Some(Parsed { service, day, .. }) = parse(name) else { return Ok(None) };
        loop {
            match self.row_in(&self.packs(&service, &day).await?, name).await {
                Err(error) if self.pass_over(&service, &day, &error).await? => {}
                found => return found,
            }
        }
    }

    async fn row_in(&self, packs: &[Arc<Pack>], name: &ObjectKey) -> PortResult<Option<Row>> {
        for pack in packs {
            let holds = |group: &usize| {
                pack.footer.objects(*group).is_some_and(|(first, last)| (first..=last).contains(&name.as_str()))
            };
            let Some(group) = (0..pack.footer.groups()).find(holds) else { continue };
            let has = |columns: &Columns| {
                let row = columns.from_object(name.as_str());
                (columns.text(Column::Object, row) == Some(name.as_str())).then_some(row)
            };
            if has(self.names(pack, group).await?.as_ref()).is_none() {
                continue;
            }
            let columns = self.whole(pack, group).await?;
            return match has(&columns) {
                Some(row) => Ok(Some(Row { columns, row })),
                None => Err(bad_row(name)),
            };
        }
        Ok(None)
    }

    /// Rows as a listing has them: those after `after`, up to `until`; at most `limit`, and whether there are more.
    async fn rows(
        &self,
        service: &ServiceName,
        prefix: &str,
        after: Option<&ObjectKey>,
        until: Option<&ObjectKey>,
        limit: usize,
    ) -> PortResult<(Vec<Listed>, bool)> {
        let stretch = Stretch { prefix, after: after.map(ObjectKey::as_str), until: until.map(ObjectKey::as_str) };
        let mut found: Vec<Listed> = Vec::new();
        let mut seen = stretch.first_day(service);
        loop {
            let Page { items, next } = list(self.inner.as_ref(), service, seen.as_ref(), 1).await?;
            let Some((PackPlace { day, .. }, listed)) = items.into_iter().next() else {
                match next {
                    Some(next) => seen = Some(next),
                    None => return Ok((found, false)),
                }
                continue;
            };
            if stretch.ends_before(&format!("{service}/{day}/")) {
                return Ok((found, false));
            }
            found.extend(self.rows_of_day(service, &day, &stretch, limit - found.len()).await?);
            if found.len() > limit {
                found.truncate(limit);
                return Ok((found, true));
            }
            // Behind all packs of that day.
            let folder = listed.key.as_str().rsplit_once('/').map_or(listed.key.as_str(), |(folder, _)| folder);
            seen = Some(ObjectKey::new(format!("{folder}0")).expect("shorter than the pack's name"));
        }
    }

    /// Those of one day, each once; more than `limit` if there are more.
    async fn rows_of_day(
        &self,
        service: &ServiceName,
        day: &str,
        stretch: &Stretch<'_>,
        limit: usize,
    ) -> PortResult<Vec<Listed>> {
        'again: loop {
            let mut found = Vec::new();
            for pack in self.packs(service, day).await?.iter() {
                match self.rows_of(pack, stretch, limit, &mut found).await {
                    Err(error) if self.pass_over(service, day, &error).await? => continue 'again,
                    read => read?,
                }
            }
            found.sort_by(|one, other| one.key.cmp(&other.key));
            found.dedup_by(|one, other| one.key == other.key);
            return Ok(found);
        }
    }

    /// One more than `limit` at most: so that it is known that there are more.
    async fn rows_of(
        &self,
        pack: &Pack,
        stretch: &Stretch<'_>,
        limit: usize,
        found: &mut Vec<Listed>,
    ) -> PortResult<()> {
        let mut wanted = limit + 1;
        for group in 0..pack.footer.groups() {
            let Some((first, last)) = pack.footer.objects(group) else { continue };
            if stretch.is_behind(last) || stretch.ends_before(first) {
                continue;
            }
            let columns = self.names(pack, group).await?;
            let start = columns.from_object(stretch.after.unwrap_or(stretch.prefix).max(stretch.prefix));
            for row in start..columns.rows {
                let Some(listed) = listed(&columns, row) else { continue };
                if wanted == 0 || stretch.ends_before(listed.key.as_str()) {
                    return Ok(());
                }
                if stretch.has(listed.key.as_str()) {
                    found.push(listed);
                    wanted -= 1;
                }
            }
        }
        Ok(())
    }
}

fn bad_row(name: &ObjectKey) -> PortError {
    let why = "its row in a pack is not what was packed".to_owned();
    PortError::new("read packed record", name, ErrorKind::Damaged(why))
}

/// A stretch of names.
struct Stretch<'a> {
    prefix: &'a str,
    after: Option<&'a str>,
    until: Option<&'a str>,
}

impl Stretch<'_> {
    fn has(&self, name: &str) -> bool {
        name.starts_with(self.prefix) && !self.is_behind(name) && self.until.is_none_or(|until| name <= until)
    }

    /// Whether the stretch begins after that name.
    fn is_behind(&self, name: &str) -> bool {
        self.after.is_some_and(|after| name <= after) || (name < self.prefix)
    }

    /// Whether that name, and all after it, are no part of it.
    fn ends_before(&self, name: &str) -> bool {
        let is_past = name > self.prefix && !name.starts_with(self.prefix) && !self.prefix.starts_with(name);
        is_past || self.until.is_some_and(|until| name > until)
    }

    /// Before the packs of the first day that it may have names of; `None`: of any day.
    fn first_day(&self, service: &ServiceName) -> Option<ObjectKey> {
        let start = self.after.unwrap_or(self.prefix).max(self.prefix);
        let day = start.strip_prefix(service.as_str())?.strip_prefix('/')?.get(..10)?;
        ObjectKey::new(format!("packed/service={service}/day={}", day.replace('/', "-"))).ok()
    }
}

fn listed(columns: &Columns, row: usize) -> Option<Listed> {
    let key = ObjectKey::new(columns.text(Column::Object, row)?).ok()?;
    Some(Listed { key, version: version(columns, row)?, last_modified: moment(columns, row)?, storage_class: None })
}

fn version(columns: &Columns, row: usize) -> Option<Version> {
    let etag = ETag::from(columns.text(Column::Etag, row)?);
    Some(Version { version_id: None, etag, size: u64::try_from(columns.int(Column::Size, row)?).ok()? })
}

fn moment(columns: &Columns, row: usize) -> Option<UnixMs> {
    columns.int(Column::DeletedAt, row).map(UnixMs)
}

impl Row {
    fn head(&self) -> Option<Head> {
        let text = |column| self.columns.text(column, self.row).map(str::to_owned);
        let metadata = [(META_CAUSE, text(Column::Cause)?), (META_HASH, text(Column::Hash)?)];
        Some(Head {
            version: version(&self.columns, self.row)?,
            last_modified: moment(&self.columns, self.row)?,
            checksum: None,
            storage_class: None,
            reach: Reach::Readable,
            metadata: metadata.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        })
    }
}

#[async_trait]
impl ObjectRead for Unpacked {
    async fn head(&self, key: &ObjectKey, version: Option<&VersionId>) -> PortResult<Option<Head>> {
        if let Some(head) = self.inner.head(key, version).await? {
            return Ok(Some(head));
        }
        self.packed(key).await
    }

    async fn get(
        &self,
        key: &ObjectKey,
        version: Option<&VersionId>,
        range: Option<Range<u64>>,
    ) -> PortResult<Option<Object>> {
        let (row, unreadable) = match self.inner.get(key, version, range.clone()).await {
            Ok(Some(object)) => return Ok(Some(object)),
            Ok(None) => (self.row(key).await?, None),
            Err(error) if is_archived(&error) => (self.row(key).await?, Some(error)),
            Err(error) if matches!(error.kind, ErrorKind::Damaged(_)) => {
                // Whatever keeps the packs from being read, the object is what was asked for.
                let row = self.row(key).await.ok().flatten();
                if row.is_some() {
                    tracing::error!("a damaged object is read from its pack: {}", chain(&error));
                }
                (row, Some(error))
            }
            Err(error) => return Err(error),
        };
        let Some(row) = row else { return unreadable.map_or(Ok(None), Err) };
        let Some((head, body)) = row.head().zip(body_of(&row.columns, row.row)) else { return Err(bad_row(key)) };
        let body = match range {
            None => body,
            Some(range) => {
                let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(body.len());
                body.slice(place(range.start)..place(range.end))
            }
        };
        Ok(Some(Object { head, attributes: Attributes::default(), body: stream_of(body) }))
    }

    async fn retrieve(&self, key: &ObjectKey, terms: &Retrieval) -> PortResult<()> {
        self.inner.retrieve(key, terms).await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> PortResult<Page<Listed>> {
        let Page { mut items, next } = self.inner.list(prefix, after, limit).await?;
        let service = prefix.split_once('/').and_then(|(service, _)| ServiceName::new(service).ok());
        let Some(service) = service else { return Ok(Page { items, next }) };
        // Beyond a page that is not the last one, objects are not known yet.
        let (rows, has_more) = self.rows(&service, prefix, after, next.as_ref(), limit).await?;
        if rows.is_empty() {
            return Ok(Page { items, next });
        }
        let there: BTreeSet<&ObjectKey> = items.iter().map(|listed| &listed.key).collect();
        let packed: Vec<Listed> = rows.into_iter().filter(|row| !there.contains(&row.key)).collect();
        items.extend(packed);
        items.sort_by(|one, other| one.key.cmp(&other.key));
        let is_cut = items.len() > limit;
        items.truncate(limit);
        let last = items.last().map(|listed| listed.key.clone());
        let next = if is_cut || has_more { last } else { next };
        Ok(Page { items, next })
    }
}

/// The last few of something that takes time to read: whoever asks for one that is being read waits for it.
struct Kept<K, V> {
    most: usize,
    kept: Mutex<VecDeque<(K, Reading<V>)>>,
}

/// What is read, or is being read.
type Reading<V> = Arc<OnceCell<Arc<V>>>;

impl<K: PartialEq, V> Kept<K, V> {
    fn of(most: usize) -> Kept<K, V> {
        Kept { most, kept: Mutex::default() }
    }

    async fn get<F: Future<Output = PortResult<V>>>(&self, key: K, read: impl FnOnce() -> F) -> PortResult<Arc<V>> {
        let cell = {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let place = kept.iter().position(|(other, _)| *other == key);
            let entry = place.and_then(|place| kept.remove(place)).unwrap_or_else(|| (key, Arc::default()));
            let cell = entry.1.clone();
            kept.push_front(entry);
            kept.truncate(self.most);
            cell
        };
        cell.get_or_try_init(|| async { read().await.map(Arc::new) }).await.cloned()
    }

    /// In place of what was read before.
    fn put(&self, key: K, value: V) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(other, _)| *other != key);
        kept.push_front((key, Arc::new(OnceCell::new_with(Some(Arc::new(value))))));
        kept.truncate(self.most);
    }
}
