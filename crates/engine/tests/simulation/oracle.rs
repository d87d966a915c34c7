//! What must be true at rest. Judges the catalog's rows and the destination's objects against the source's true history
//! alone; knows nothing of how the engine works.

use crate::setup::Flavour;
use crate::source::{Deed, Fact};
use crate::watch::same_content;
use crate::world::World;
use engine::memory::bucket::Stored;
use engine::policy::Mode;
use engine::report::Report;
use lifecycle::copy_key::parse;
use lifecycle::ids::{CopyKey, ObjectKey, Rev, VersionId};
use lifecycle::order::Basis;
use lifecycle::row::{CopyRow, Partition};
use std::collections::{BTreeMap, BTreeSet};

type Check = Result<(), String>;

/// Every event was handled, nothing was cleaned or reconciled since: what events alone must achieve.
pub(crate) fn events_alone_suffice(world: &World) -> Check {
    if world.setup.mode == Mode::Mirror {
        let held = world.setup.rules.breaker.is_some();
        return if held || world.remembered.command_cut_short { Ok(()) } else { mirror_equals(world) };
    }
    for key in &world.keys {
        let rows = rows_of(world, key);
        live_has_its_copy(world, key, &rows)?;
        // What these left half done, nobody delivers again.
        if world.remembered.command_cut_short || world.remembered.overtaken.contains(key) {
            continue;
        }
        events_left_no_orphans(world, key, &rows)?;
        gone_has_no_active(world, key, &rows)?;
        active_has_bytes(world, &rows)?;
        if world.setup.rules.keep.within.is_none() && world.setup.rules.protect_for.0 == 0 {
            no_more_than_keep(world, key, &rows)?;
        }
    }
    Ok(())
}

/// After time has passed, everything was cleaned and reconciled once.
pub(crate) fn at_rest(world: &World) -> Check {
    if world.setup.mode == Mode::Mirror {
        return mirror_equals(world);
    }
    let objects = world.destination.contents();
    let mut named: BTreeSet<ObjectKey> = BTreeSet::new();
    for key in &world.keys {
        let rows = rows_of(world, key);
        live_has_its_copy(world, key, &rows)?;
        gone_has_no_active(world, key, &rows)?;
        no_more_than_keep(world, key, &rows)?;
        exactly_the_newest(world, key, &rows)?;
        for row in &rows {
            if !row.is_active() {
                return Err(format!("{}: still there, long after its grace: {:?}", row.copy_key, row.state));
            }
            bytes_match(world, key, row, objects.get(row.copy_key.object()))?;
            named.insert(row.copy_key.object().clone());
        }
    }
    match objects.keys().find(|object| !named.contains(*object)) {
        Some(object) => Err(format!("{object}: an object without a row, after reconcile")),
        None => Ok(()),
    }
}

/// The last reconcile found nothing to repair.
pub(crate) fn nothing_left_to_repair(world: &World, report: &Report) -> Check {
    if world.setup.mode == Mode::Mirror {
        return Ok(());
    }
    match ["adopted", "bytes-missing", "gap", "unexplained"].into_iter().find(|what| report.counted(what) > 0) {
        Some(what) => Err(format!("the second reconcile found {what}: {report:?}")),
        None => Ok(()),
    }
}

fn rows_of(world: &World, key: &ObjectKey) -> Vec<CopyRow> {
    world.catalog.contents().remove(key).map(|partition| partition.rows).unwrap_or_default()
}

fn live_has_its_copy(world: &World, key: &ObjectKey, rows: &[CopyRow]) -> Check {
    let Some(current) = world.source.current(key) else { return Ok(()) };
    let objects = world.destination.contents();
    let is_whole = |row: &&CopyRow| {
        let there = objects.get(row.copy_key.object());
        row.is_active()
            && same_content(row, &current.head.version)
            && there.is_some_and(|there| there.bytes == current.bytes)
    };
    match rows.iter().any(|row| is_whole(&row)) {
        true => Ok(()),
        false => Err(format!(
            "{key}: its current content {:?} has no active copy with its bytes, among {rows:#?}",
            current.head.version
        )),
    }
}

fn gone_has_no_active(world: &World, key: &ObjectKey, rows: &[CopyRow]) -> Check {
    if world.source.current(key).is_some() {
        return Ok(());
    }
    let undeleted = |row: &CopyRow| row.undeleted_at().is_some() && world.remembered.undeleted;
    match rows.iter().find(|row| row.is_active() && !undeleted(row)) {
        Some(row) => Err(format!("{key}: it is gone, and a copy is active: {row:#?}")),
        None => Ok(()),
    }
}

/// Bytes under a name that an event gave have a row. (What a look copied under a name of its own, only reconcile finds.)
fn events_left_no_orphans(world: &World, key: &ObjectKey, rows: &[CopyRow]) -> Check {
    let named_by_event = |object: &ObjectKey| {
        parse(object)
            .is_some_and(|parsed| parsed.name.nonce.is_none() && parsed.original.resolve(None).as_ref() == Some(key))
    };
    let has_row = |object: &ObjectKey| rows.iter().any(|row| row.copy_key.object() == object);
    match world.destination.contents().keys().find(|object| named_by_event(object) && !has_row(object)) {
        Some(object) => Err(format!("{object}: bytes without a row, and every event was handled")),
        None => Ok(()),
    }
}

fn active_has_bytes(world: &World, rows: &[CopyRow]) -> Check {
    let objects = world.destination.contents();
    match rows.iter().find(|row| row.is_active() && !objects.contains_key(row.copy_key.object())) {
        Some(row) => Err(format!("{}: active, and without bytes", row.copy_key)),
        None => Ok(()),
    }
}

fn no_more_than_keep(world: &World, key: &ObjectKey, rows: &[CopyRow]) -> Check {
    // What undelete put back and the copy it came from take one place: the same bytes, whatever tags they have.
    let objects = world.destination.contents();
    let bytes = |row: &CopyRow| objects.get(row.copy_key.object()).map(|stored| stored.bytes.clone());
    let same = |row: &CopyRow, other: &CopyRow| other.is_active() && bytes(other) == bytes(row);
    let copied_again = |row: &CopyRow| rows.iter().any(|other| other.undeleted_at().is_none() && same(row, other));
    let takes_place = |row: &&CopyRow| row.is_active() && !(row.undeleted_at().is_some() && copied_again(row));
    let active = rows.iter().filter(takes_place).count();
    let keep = world.setup.rules.keep.last as usize;
    match active <= keep {
        true => Ok(()),
        false => Err(format!("{key}: {active} active copies, of {keep} to keep: {rows:#?}")),
    }
}

/// Sequencer policies, without anything that only a look can settle: the newest N since the last removal.
fn exactly_the_newest(world: &World, key: &ObjectKey, rows: &[CopyRow]) -> Check {
    let facts = world.source.facts(key);
    let looks = facts.iter().any(|fact| matches!(fact.deed, Deed::VersionRemoved(_)))
        || world.remembered.undeleted
        || world.remembered.orderless.contains(key);
    if looks || world.setup.rules.basis == Basis::Time || world.setup.flavour == Flavour::Unversioned {
        return Ok(());
    }
    let removed = facts.iter().rposition(|fact| fact.deed == Deed::Removed).map_or(0, |at| at + 1);
    let id = |fact: &Fact| VersionId(format!("{:016x}", fact.number));
    let newest = facts[removed..].iter().rev().take(world.setup.rules.keep.last as usize);
    let expected: BTreeSet<Option<VersionId>> = newest.map(|fact| Some(id(fact))).collect();
    let found: BTreeSet<Option<VersionId>> = rows.iter().map(|row| row.version_id.clone()).collect();
    match expected == found {
        true => Ok(()),
        false => Err(format!("{key}: copies of {found:?} instead of {expected:?}")),
    }
}

/// The copy's bytes are those that the source had under the row's identity.
fn bytes_match(world: &World, key: &ObjectKey, row: &CopyRow, there: Option<&Stored>) -> Check {
    let Some(there) = there else { return Err(format!("{}: a row without bytes", row.copy_key)) };
    let facts = world.source.facts(key);
    let puts: Vec<_> = facts
        .iter()
        .filter_map(|fact| match &fact.deed {
            Deed::Put { version, bytes } => Some((version, bytes)),
            Deed::Removed | Deed::VersionRemoved(_) => None,
        })
        .collect();
    let by_id = puts.iter().find(|(version, _)| row.version_id.is_some() && version.version_id == row.version_id);
    let by_tag = puts.iter().find(|(version, _)| row.version_id.is_none() && version.etag == row.etag);
    let right = match by_id.or(by_tag) {
        Some((_, bytes)) => **bytes == there.bytes,
        None => row.undeleted_at().is_some() && puts.iter().any(|(_, bytes)| **bytes == there.bytes),
    };
    let sum = row.checksum.is_none() || row.checksum == there.head.checksum;
    match right && sum && row.size == there.bytes.len() as u64 {
        true => Ok(()),
        false => Err(format!("{}: its bytes {:?} are not the row's: {row:#?}", row.copy_key, there.bytes)),
    }
}

fn mirror_equals(world: &World) -> Check {
    let bytes = |(key, stored): (ObjectKey, Stored)| (key, stored.bytes);
    let source: BTreeMap<_, _> = world.source.bucket.contents().into_iter().map(bytes).collect();
    let mirror: BTreeMap<_, _> = world.destination.contents().into_iter().map(bytes).collect();
    match source == mirror {
        true => Ok(()),
        false => Err(format!("the mirror is {mirror:?} instead of {source:?}")),
    }
}

/// The place of the newest event of a key.
pub(crate) fn newest_mail(world: &World, key: &ObjectKey) -> Option<usize> {
    let of_key = world.mails.iter().enumerate().filter(|(_, mail)| mail.event.key == *key);
    of_key.max_by_key(|(_, mail)| mail.number).map(|(place, _)| place)
}

/// All rows as they are, but for the token that every write changes.
pub(crate) fn rows_without_rev(world: &World) -> BTreeMap<(ObjectKey, CopyKey), CopyRow> {
    let contents = world.catalog.contents();
    let rows = contents.into_iter().flat_map(|(key, Partition { rows, .. })| {
        rows.into_iter()
            .map(move |row| ((key.clone(), row.copy_key.clone()), CopyRow { rev: Rev(String::new()), ..row }))
    });
    rows.collect()
}

/// Nothing has changed since.
pub(crate) fn unchanged(
    world: &World,
    rows: &BTreeMap<(ObjectKey, CopyKey), CopyRow>,
    objects: &BTreeMap<ObjectKey, Stored>,
) -> Check {
    let bytes = |objects: &BTreeMap<ObjectKey, Stored>| -> BTreeMap<ObjectKey, bytes::Bytes> {
        objects.iter().map(|(key, stored)| (key.clone(), stored.bytes.clone())).collect()
    };
    let now = rows_without_rev(world);
    if now != *rows {
        return Err(format!("a second handling of one event changed rows from {rows:#?} to {now:#?}"));
    }
    match bytes(&world.destination.contents()) == bytes(objects) {
        true => Ok(()),
        false => Err("a second handling of one event changed objects".to_owned()),
    }
}
