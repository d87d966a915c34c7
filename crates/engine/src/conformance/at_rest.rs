//! What must be true of a key once its events are handled: an oracle that knows the source's true history, the catalog's rows
//! and the destination's objects, and nothing of how the engine works.
//!
//! It judges the seeded simulation, and real processes behind real protocols, alike. Laws: I1, I4, I6.

use bytes::Bytes;
use lifecycle::copy_key::parse;
use lifecycle::event::Version;
use lifecycle::ids::{Checksum, ObjectKey, VersionId};
use lifecycle::row::CopyRow;
use std::collections::{BTreeMap, BTreeSet};

/// What clients did to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A new content.
    Put {
        /// As the source tells of it.
        version: Version,
        /// Its bytes.
        bytes: Bytes,
    },
    /// The key was deleted.
    Removed,
    /// One version was deleted for good.
    VersionRemoved(VersionId),
}

/// A judgement: what is wrong, in a sentence.
pub type Check = Result<(), String>;

/// A key, as it was and as it is.
pub struct KeyAtRest<'a> {
    /// The key.
    pub key: &'a ObjectKey,
    /// All that clients did to it, in order.
    pub deeds: Vec<Deed>,
    /// What the source has now.
    pub current: Option<(Version, Bytes)>,
    /// What the catalog has.
    pub rows: Vec<CopyRow>,
    /// All that the destination has.
    pub objects: &'a BTreeMap<ObjectKey, Bytes>,
    /// How many copies the rule keeps.
    pub keep: usize,
    /// An undelete was asked for.
    pub undeleted: bool,
}

impl KeyAtRest<'_> {
    /// The current content of a live key has an active copy with its bytes.
    pub fn live_has_its_copy(&self) -> Check {
        let Some((version, bytes)) = &self.current else { return Ok(()) };
        let is_whole = |row: &&CopyRow| {
            let there = self.objects.get(row.copy_key.object());
            row.is_active() && same_content(row, version) && there.is_some_and(|there| there == bytes)
        };
        match self.rows.iter().any(|row| is_whole(&row)) {
            true => Ok(()),
            false => Err(format!(
                "{}: its current content {version:?} has no active copy with its bytes, among {:#?}",
                self.key, self.rows
            )),
        }
    }

    /// A key that is gone has no active copy, but one that was brought back.
    pub fn gone_has_no_active(&self) -> Check {
        if self.current.is_some() {
            return Ok(());
        }
        let undeleted = |row: &CopyRow| row.undeleted_at().is_some() && self.undeleted;
        match self.rows.iter().find(|row| row.is_active() && !undeleted(row)) {
            Some(row) => Err(format!("{}: it is gone, and a copy is active: {row:#?}", self.key)),
            None => Ok(()),
        }
    }

    /// An active row has its bytes.
    pub fn active_has_bytes(&self) -> Check {
        match self.rows.iter().find(|row| row.is_active() && !self.objects.contains_key(row.copy_key.object())) {
            Some(row) => Err(format!("{}: active, and without bytes", row.copy_key)),
            None => Ok(()),
        }
    }

    /// Bytes under a name that an event gave have a row. (What a look copied under a name of its own, only reconcile finds.)
    pub fn events_left_no_orphans(&self) -> Check {
        let named_by_event = |object: &ObjectKey| {
            parse(object).is_some_and(|parsed| {
                parsed.name.nonce.is_none() && parsed.original.resolve(None).as_ref() == Some(self.key)
            })
        };
        let has_row = |object: &ObjectKey| self.rows.iter().any(|row| row.copy_key.object() == object);
        match self.objects.keys().find(|object| named_by_event(object) && !has_row(object)) {
            Some(object) => Err(format!("{object}: bytes without a row, and every event was handled")),
            None => Ok(()),
        }
    }

    /// No more copies are active than the rule keeps.
    pub fn no_more_than_keep(&self) -> Check {
        // What undelete put back and the copy it came from take one place: the same bytes, whatever tags they have.
        let bytes = |row: &CopyRow| self.objects.get(row.copy_key.object());
        let same = |row: &CopyRow, other: &CopyRow| other.is_active() && bytes(other) == bytes(row);
        let copied_again =
            |row: &CopyRow| self.rows.iter().any(|other| other.undeleted_at().is_none() && same(row, other));
        let takes_place = |row: &&CopyRow| row.is_active() && !(row.undeleted_at().is_some() && copied_again(row));
        let active = self.rows.iter().filter(takes_place).count();
        match active <= self.keep {
            true => Ok(()),
            false => Err(format!("{}: {active} active copies, of {} to keep: {:#?}", self.key, self.keep, self.rows)),
        }
    }

    /// Of a source with versions and sequencers, without anything that only a look can settle: the rows are those of the newest
    /// versions since the last removal, as many as the rule keeps.
    pub fn exactly_the_newest(&self) -> Check {
        let removed = self.deeds.iter().rposition(|deed| *deed == Deed::Removed).map_or(0, |at| at + 1);
        let id = |deed: &Deed| match deed {
            Deed::Put { version, .. } => Some(version.version_id.clone()),
            Deed::Removed | Deed::VersionRemoved(_) => None,
        };
        let newest = self.deeds[removed..].iter().rev().filter_map(id).take(self.keep);
        let expected: BTreeSet<Option<VersionId>> = newest.collect();
        let found: BTreeSet<Option<VersionId>> = self.rows.iter().map(|row| row.version_id.clone()).collect();
        match expected == found {
            true => Ok(()),
            false => Err(format!("{}: copies of {found:?} instead of {expected:?}", self.key)),
        }
    }

    /// Nothing waits any more, and each copy's bytes are those that the source had under the row's identity.
    pub fn rows_are_whole(&self) -> Check {
        self.rows.iter().try_for_each(|row| match row.is_active() {
            true => self.bytes_match(row),
            false => Err(format!("{}: still there, long after its grace: {:?}", row.copy_key, row.state)),
        })
    }

    fn bytes_match(&self, row: &CopyRow) -> Check {
        let Some(there) = self.objects.get(row.copy_key.object()) else {
            return Err(format!("{}: a row without bytes", row.copy_key));
        };
        let puts = || {
            self.deeds.iter().filter_map(|deed| match deed {
                Deed::Put { version, bytes } => Some((version, bytes)),
                Deed::Removed | Deed::VersionRemoved(_) => None,
            })
        };
        let by_id = || puts().find(|(version, _)| row.version_id.is_some() && version.version_id == row.version_id);
        let by_tag = || puts().find(|(version, _)| row.version_id.is_none() && version.etag == row.etag);
        let right = match by_id().or_else(by_tag) {
            Some((_, bytes)) => bytes == there,
            None => row.undeleted_at().is_some() && puts().any(|(_, bytes)| bytes == there),
        };
        let sum = row.checksum.is_none_or(|sum| sum == checksum_of(there));
        match right && sum && row.size == there.len() as u64 {
            true => Ok(()),
            false => Err(format!("{}: its bytes {there:?} are not the row's: {row:#?}", row.copy_key)),
        }
    }
}

/// Every object of the destination is named by a row.
pub fn no_object_without_row(objects: &BTreeMap<ObjectKey, Bytes>, keys: &[KeyAtRest<'_>]) -> Check {
    let named: BTreeSet<&ObjectKey> = keys.iter().flat_map(|key| &key.rows).map(|row| row.copy_key.object()).collect();
    match objects.keys().find(|object| !named.contains(object)) {
        Some(object) => Err(format!("{object}: an object without a row, after reconcile")),
        None => Ok(()),
    }
}

/// Whether a row is of that version.
pub fn same_content(row: &CopyRow, version: &Version) -> bool {
    match (&row.version_id, &version.version_id) {
        (Some(mine), Some(theirs)) => mine == theirs,
        _ => row.etag == version.etag && row.size == version.size,
    }
}

fn checksum_of(bytes: &[u8]) -> Checksum {
    let mut digest = crc64fast_nvme::Digest::new();
    digest.write(bytes);
    Checksum(digest.sum64())
}
