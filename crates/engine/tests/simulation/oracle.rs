//! What must be true at rest, in the simulation: the oracle's judgements (`crates/engine/src/conformance/at_rest.rs`), and which of
//! them hold when. Judges the catalog's rows and the destination's objects against the source's true history
//! alone; knows nothing of how the engine works.

use crate::setup::Flavour;
use crate::world::World;
use bytes::Bytes;
use engine::conformance::at_rest::{Check, Deed, KeyAtRest, no_object_without_row};
use engine::memory::bucket::Stored;
use engine::policy::Mode;
use engine::report::Report;
use lifecycle::ids::{CopyKey, ObjectKey, Rev};
use lifecycle::order::Basis;
use lifecycle::row::{CopyRow, Partition};
use std::collections::BTreeMap;

/// Every event was handled, nothing was cleaned or reconciled since: what events alone must achieve.
pub(crate) fn events_alone_suffice(world: &World) -> Check {
    if world.setup.mode == Mode::Mirror {
        let held = world.setup.rules.breaker.is_some();
        return if held || world.remembered.command_cut_short { Ok(()) } else { mirror_equals(world) };
    }
    let objects = objects(world);
    for key in &world.keys {
        let at_rest = key_at_rest(world, key, &objects);
        at_rest.live_has_its_copy()?;
        // What these left half done, nobody delivers again.
        if world.remembered.command_cut_short || world.remembered.overtaken.contains(key) {
            continue;
        }
        at_rest.events_left_no_orphans()?;
        at_rest.gone_has_no_active()?;
        at_rest.active_has_bytes()?;
        if world.setup.rules.keep.within.is_none() && world.setup.rules.protect_for.0 == 0 {
            at_rest.no_more_than_keep()?;
        }
    }
    Ok(())
}

/// After time has passed, everything was cleaned and reconciled once.
pub(crate) fn at_rest(world: &World) -> Check {
    if world.setup.mode == Mode::Mirror {
        return mirror_equals(world);
    }
    let objects = objects(world);
    let keys: Vec<KeyAtRest<'_>> = world.keys.iter().map(|key| key_at_rest(world, key, &objects)).collect();
    for at_rest in &keys {
        at_rest.live_has_its_copy()?;
        at_rest.gone_has_no_active()?;
        at_rest.no_more_than_keep()?;
        if !needs_looks(world, at_rest) {
            at_rest.exactly_the_newest()?;
        }
        at_rest.rows_are_whole()?;
    }
    no_object_without_row(&objects, &keys)
}

/// What is kept of a key depends on what was looked at, and when.
fn needs_looks(world: &World, of: &KeyAtRest<'_>) -> bool {
    of.deeds.iter().any(|deed| matches!(deed, Deed::VersionRemoved(_)))
        || world.remembered.undeleted
        || world.remembered.orderless.contains(of.key)
        || world.setup.rules.basis == Basis::Time
        || world.setup.flavour == Flavour::Unversioned
}

fn objects(world: &World) -> BTreeMap<ObjectKey, Bytes> {
    world.destination.contents().into_iter().map(|(key, stored)| (key, stored.bytes)).collect()
}

fn key_at_rest<'a>(world: &World, key: &'a ObjectKey, objects: &'a BTreeMap<ObjectKey, Bytes>) -> KeyAtRest<'a> {
    KeyAtRest {
        key,
        deeds: world.source.facts(key).into_iter().map(|fact| fact.deed).collect(),
        current: world.source.current(key).map(|current| (current.head.version, current.bytes)),
        rows: world.catalog.contents().remove(key).map(|partition| partition.rows).unwrap_or_default(),
        objects,
        keep: world.setup.rules.keep.last as usize,
        undeleted: world.remembered.undeleted,
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
