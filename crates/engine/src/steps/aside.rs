//! Records that could not be archived, whole and with the reason, under `.afterimage/aside/` of the archive's destination:
//! their names, listing, reading, and the one way to remove such a note. The only file that deletes them (I3), and it
//! deletes nothing else: a name outside of that prefix is refused.
//!
//! A note goes after its record is durable in the archive, or after the journal's line when a person drops it (I12). A
//! crash before that leaves a note whose record is archived: given again, that is found, and the note goes.

use crate::error::{ErrorKind, PortError, PortResult};
use crate::format::laid_aside::Note;
use crate::limits::{LIST_PAGE, RECORD_BYTES_MAX};
use crate::ports::objects::{ObjectPurge, ObjectRead, Page, PurgeItem};
use crate::steps::json_object;
use lifecycle::archive::{Sequence, hash_of};
use lifecycle::ids::ObjectKey;
use lifecycle::time::UnixMs;
use serde_json::Value;
use std::sync::Arc;

/// Where what could not be archived is laid, under the name of its table.
pub const ASIDE_PREFIX: &str = ".afterimage/aside/";

/// A record that lies aside, by the object that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Laid {
    /// The object.
    pub name: ObjectKey,
    /// Since when it lies there.
    pub since: UnixMs,
}

impl Laid {
    /// A number for people: the same whenever it is looked at. 48 bits of a hash of the name.
    pub fn number(&self) -> u64 {
        let hash = hash_of(self.name.as_str().as_bytes());
        hash.chars().take(12).filter_map(|c| c.to_digit(16)).fold(0, |n, digit| n << 4 | u64::from(digit))
    }
}

/// The object of a record; two shards may give one number to two records.
pub fn aside_name(table: &str, sequence: &Sequence, record: &Value) -> ObjectKey {
    let hash = hash_of(record.to_string().as_bytes());
    let name = format!("{ASIDE_PREFIX}{table}/{sequence}-{hash}.json");
    ObjectKey::new(name).expect("names of tables have at most 255 bytes")
}

/// One page of the records of a table that lie aside, in the order of their names.
pub async fn laid_aside(archive: &dyn ObjectRead, table: &str, after: Option<&ObjectKey>) -> PortResult<Page<Laid>> {
    let Page { items, next } = archive.list(&format!("{ASIDE_PREFIX}{table}/"), after, LIST_PAGE).await?;
    let laid = items.into_iter().map(|listed| Laid { name: listed.key, since: listed.last_modified });
    Ok(Page { items: laid.collect(), next })
}

/// Reads what lies there; `None`: it is gone.
pub async fn read_aside(archive: &dyn ObjectRead, name: &ObjectKey) -> PortResult<Option<Note>> {
    let Some(note) = json_object::read::<Note>(archive, name, RECORD_BYTES_MAX).await? else { return Ok(None) };
    match note.newer() {
        None => Ok(Some(note)),
        Some(newer) => {
            let fix = format!("its format is {newer}, and this version knows 1: use a newer version");
            Err(PortError::new("read record that lies aside", name, ErrorKind::NotSetUp(fix)))
        }
    }
}

/// The right to remove what lies aside in one archive. Nothing but this file can use it.
#[derive(Clone)]
pub struct AsidePurger(Arc<dyn ObjectPurge>);

impl AsidePurger {
    /// Wraps the handle when a command is wired.
    pub fn new(objects: Arc<dyn ObjectPurge>) -> AsidePurger {
        AsidePurger(objects)
    }

    /// Removes one; one that is gone is as good.
    pub async fn remove(&self, name: &ObjectKey) -> PortResult<()> {
        if !name.as_str().starts_with(ASIDE_PREFIX) {
            let why = format!("it does not lie under {ASIDE_PREFIX}");
            return Err(PortError::new("remove record that lies aside", name, ErrorKind::Invalid(why)));
        }
        let item = PurgeItem { key: name.clone(), version_id: None, if_match: None };
        self.0.purge(&[item]).await.into_iter().try_for_each(|purged| purged.map(drop))
    }
}
