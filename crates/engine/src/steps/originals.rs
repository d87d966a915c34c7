//! The packs of a day that can be read, and whether the others are needed: what they have may be there as objects, too.
//!
//! That is looked at, never remembered: a bucket's lifecycle takes objects away without a word. The note beside a pack has a sum
//! over the names and tags of its objects; it is compared with that of the objects which are there and are not later than the
//! pack. Sums of several packs add up, since a day may have more than one that cannot be read. The day's objects are listed
//! only then. What was written before the pack and is in none, such as a record that is damaged, makes the sums differ: then
//! the pack counts as needed, which is an error and never a silence. Reads only.

use crate::error::{ErrorKind, PortError, PortResult};
use crate::format::packed::ObjectsSum;
use crate::limits::SHARD_CHECKPOINT_BYTES_MAX;
use crate::ports::objects::{Listed, ObjectRead};
use crate::steps::json_object;
use crate::steps::packs::{Names, Note, Originals, Pack, PackPlace, of_day as packs_of_day};
use crate::steps::{archived_names, away::is_archived};
use lifecycle::archive::ServiceName;
use lifecycle::ids::ObjectKey;
use lifecycle::time::{SpanMs, UnixMs};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How much before a pack's own time an object may be dated that came after it: stores round.
const UNSURE: SpanMs = SpanMs::seconds(2);

/// The packs of a day.
#[derive(Debug)]
pub struct DayOfPacks {
    /// Those that can be read.
    pub packs: Vec<Arc<Pack>>,
    /// Those that cannot, and why; nobody needs them.
    pub passed_over: Vec<(ObjectKey, PortError)>,
}

/// A pack that cannot be read.
struct Unreadable {
    place: PackPlace,
    written_at: UnixMs,
    error: PortError,
}

/// Whether it keeps something from being read for good, or until it is retrieved.
pub fn is_unreadable(error: &PortError) -> bool {
    is_archived(error) || matches!(error.kind, ErrorKind::Damaged(_))
}

/// Opens the packs of a day (`yyyy/mm/dd`), without those of which it is known already that they cannot be read, and why. It is
/// an error if one of them is needed.
pub async fn open_day(
    archive: &dyn ObjectRead,
    service: &ServiceName,
    day: &str,
    known: &BTreeMap<ObjectKey, PortError>,
) -> PortResult<DayOfPacks> {
    let (mut readable, mut unreadable) = (Vec::new(), Vec::new());
    for (place, listed) in packs_of_day(archive, service, day).await? {
        let opened = match known.get(&listed.key) {
            Some(error) => Err(error.clone()),
            None => Pack::open(archive, place.clone(), &listed).await,
        };
        let written_at = listed.last_modified;
        match opened {
            Ok(pack) => readable.extend(pack.map(|pack| (Arc::new(pack), written_at))),
            Err(error) if is_unreadable(&error) => unreadable.push(Unreadable { place, written_at, error }),
            Err(error) => return Err(error),
        }
    }
    while !unreadable.is_empty() {
        let packs: Vec<&Pack> = readable.iter().map(|(pack, _)| pack.as_ref()).collect();
        match has_all_originals(archive, &unreadable, &packs).await {
            Ok(true) => break,
            Ok(false) => return Err(needed(unreadable)),
            Err(error) => {
                // Another one may turn out to be damaged further in.
                let place = readable.iter().position(|(pack, _)| pack.name().as_str() == error.object);
                let Some(place) = place.filter(|_| is_unreadable(&error)) else { return Err(error) };
                let (pack, written_at) = readable.remove(place);
                unreadable.push(Unreadable { place: pack.place.clone(), written_at, error });
            }
        }
    }
    Ok(DayOfPacks {
        packs: readable.into_iter().map(|(pack, _)| pack).collect(),
        passed_over: unreadable.into_iter().map(|pack| (pack.place.name(), pack.error)).collect(),
    })
}

/// What is told of packs that are needed: no retrieval helps where one is damaged.
fn needed(unreadable: Vec<Unreadable>) -> PortError {
    let mut errors: Vec<PortError> = unreadable.into_iter().map(|pack| pack.error).collect();
    let place = errors.iter().position(|error| !is_archived(error)).unwrap_or(0);
    errors.swap_remove(place)
}

/// Whether everything that those packs of one day have is there as objects, too; the other packs of that day can be read.
async fn has_all_originals(
    archive: &dyn ObjectRead,
    unreadable: &[Unreadable],
    readable: &[&Pack],
) -> PortResult<bool> {
    let (mut noted, mut newest) = (ObjectsSum::default(), UnixMs(i64::MIN));
    for pack in unreadable {
        let note = match json_object::read(archive, &pack.place.note(), SHARD_CHECKPOINT_BYTES_MAX).await {
            Err(error) if is_unreadable(&error) => None,
            note => note?,
        };
        let may_be_there = note.filter(|note: &Note| note.originals != Some(Originals::Going));
        let Some(objects) = may_be_there.and_then(|note| ObjectsSum::parse(&note.objects?)) else { return Ok(false) };
        noted.add_all(objects);
        newest = newest.max(pack.written_at);
    }
    let Some(PackPlace { service, day, .. }) = unreadable.first().map(|pack| &pack.place) else { return Ok(true) };
    let (mut there, mut names, mut after) = (There::about(newest), Names::of(archive, readable), None);
    loop {
        let page = archived_names::of_day(archive, &format!("{service}/{day}/"), "", after.as_ref()).await?;
        for listed in page.items.into_iter().map(|named| named.listed) {
            if there.may_be_packed(&listed) && names.find(&listed.key).await?.is_none() {
                there.add(&listed);
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(there.come_to(noted));
        }
    }
}

/// The objects of a day that may have been packed. Stores tell times in whole seconds, so that those of the moments about the
/// pack may have come after it: any of them, but none before one that did.
struct There {
    packed_at: UnixMs,
    before: ObjectsSum,
    about: Vec<(UnixMs, ObjectsSum)>,
}

impl There {
    fn about(packed_at: UnixMs) -> There {
        There { packed_at, before: ObjectsSum::default(), about: Vec::new() }
    }

    fn may_be_packed(&self, listed: &Listed) -> bool {
        listed.last_modified <= self.packed_at
    }

    fn add(&mut self, listed: &Listed) {
        let (name, tag) = (listed.key.as_str(), listed.version.etag.as_str());
        match listed.last_modified < self.packed_at.minus(UNSURE) {
            true => self.before.add(name, tag),
            false => {
                let mut one = ObjectsSum::default();
                one.add(name, tag);
                self.about.push((listed.last_modified, one));
            }
        }
    }

    /// Whether those up to some moment are the ones that were noted: no others come to that sum.
    fn come_to(mut self, noted: ObjectsSum) -> bool {
        self.about.sort_unstable_by_key(|(at, _)| *at);
        let mut sum = self.before;
        let mut later = self.about.iter();
        loop {
            if sum == noted {
                return true;
            }
            let Some((_, one)) = later.next() else { return false };
            sum.add_all(*one);
        }
    }
}
