//! Rows and tombstones as items, and back. What does not read back is damage, said with the item that has it; what a newer
//! version wrote is refused, never guessed at. Pure.

use super::layout::{
    CHECKSUM, COPY_KEY, CREATED_AT, DISOWNED_AT, ETAG, EXPIRES_AT, FLOATING, FORMAT, FORMAT_OF, Layout, ORDER, ORIGIN,
    ORIGINAL_KEY, REASON, REMOVED_AT, REV, SIZE, STATUS, STORAGE_CLASS, TOMBSTONE, VERSION_ID, Word,
};
use crate::limits::TOMBSTONE_SPARE;
use aws_sdk_dynamodb::types::AttributeValue;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use engine::error::{ErrorKind, PortError, PortResult};
use engine::limits::TOMBSTONE_TTL;
use lifecycle::ids::{Checksum, CopyKey, ETag, ObjectKey, Rev, VersionId};
use lifecycle::row::{CopyRow, CopyState, Origin, Tombstone};
use lifecycle::time::UnixMs;
use std::collections::HashMap;
use std::fmt::Display;
use std::str::FromStr;

/// An item, as the SDK has it.
pub(super) type Item = HashMap<String, AttributeValue>;

pub(super) fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

pub(super) fn number(value: impl Display) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// The two keys of an item.
pub(super) fn keys(partition: String, sort: &str) -> Item {
    HashMap::from([(ORIGINAL_KEY.to_owned(), text(partition)), (COPY_KEY.to_owned(), text(sort))])
}

/// Status, `disowned_at` and reason of a row.
pub(super) fn state_attributes(
    layout: &Layout,
    original: &ObjectKey,
    state: CopyState,
) -> (String, Option<UnixMs>, Option<&'static str>) {
    let (word, at, reason) = match state {
        CopyState::Active { due_at: None } => (Word::Active, None, None),
        CopyState::Active { due_at: Some(at) } => (Word::Surplus, Some(at), None),
        CopyState::Disowned { at, reason } => (Word::Disowned, Some(at), Some(reason.code())),
    };
    (layout.status(word, original), at, reason)
}

/// Every attribute of a row but its keys and its rev, those that it lacks left out.
pub(super) fn row_attributes(
    layout: &Layout,
    original: &ObjectKey,
    row: &CopyRow,
) -> Vec<(&'static str, AttributeValue)> {
    let (status, disowned_at, reason) = state_attributes(layout, original, row.state);
    let always = [
        (STATUS, text(status)),
        (CREATED_AT, number(row.created_at.0)),
        (ORDER, text(row.order.to_string())),
        (FLOATING, AttributeValue::Bool(row.floating)),
        (ORIGIN, text(origin_text(row.origin))),
        (ETAG, text(row.etag.as_str())),
        (SIZE, number(row.size)),
        (FORMAT_OF, number(FORMAT)),
    ];
    let sometimes = [
        (DISOWNED_AT, disowned_at.map(|at| number(at.0))),
        (REASON, reason.map(text)),
        (REMOVED_AT, row.removed_at.map(|at| number(at.0))),
        (VERSION_ID, row.version_id.as_ref().map(|id| text(id.as_str()))),
        (CHECKSUM, row.checksum.map(|sum| text(STANDARD.encode(sum.0.to_be_bytes())))),
        (STORAGE_CLASS, row.storage_class.as_ref().map(text)),
    ];
    always.into_iter().chain(sometimes.into_iter().filter_map(|(name, value)| Some((name, value?)))).collect()
}

/// A whole row.
pub(super) fn row_item(layout: &Layout, original: &ObjectKey, row: &CopyRow, rev: &Rev) -> Item {
    let mut item = keys(layout.partition(original), row.copy_key.as_str());
    item.extend(row_attributes(layout, original, row).into_iter().map(|(name, value)| (name.to_owned(), value)));
    item.insert(REV.to_owned(), text(rev.as_str()));
    item
}

/// Reads a row. An error names it.
pub(super) fn read_row(layout: &Layout, original: &ObjectKey, item: &Item) -> PortResult<CopyRow> {
    let copy_key = item.get(COPY_KEY).and_then(|value| value.as_s().ok()).map_or("", String::as_str);
    let reader = Reader { item, which: format!("{original} / {copy_key}") };
    reader.known_format()?;
    let copy_key = ObjectKey::new(copy_key).map_err(|_| reader.damaged(COPY_KEY))?;
    Ok(CopyRow {
        copy_key: CopyKey::of(copy_key),
        order: reader.parsed(ORDER)?,
        floating: reader.flag(FLOATING)?,
        origin: read_origin(reader.text(ORIGIN)?).ok_or_else(|| reader.damaged(ORIGIN))?,
        created_at: UnixMs(reader.number(CREATED_AT)?),
        state: read_state(layout, &reader)?,
        removed_at: reader.optional_number(REMOVED_AT)?.map(UnixMs),
        version_id: reader.optional_text(VERSION_ID)?.map(VersionId::from),
        etag: ETag::from(reader.text(ETAG)?),
        size: reader.number(SIZE)?,
        checksum: match reader.optional_text(CHECKSUM)? {
            Some(text) => Some(read_checksum(text).ok_or_else(|| reader.damaged(CHECKSUM))?),
            None => None,
        },
        storage_class: reader.optional_text(STORAGE_CLASS)?.map(str::to_owned),
        rev: Rev::from(reader.text(REV)?),
    })
}

fn read_state(layout: &Layout, reader: &Reader<'_>) -> PortResult<CopyState> {
    let at = reader.optional_number(DISOWNED_AT)?.map(UnixMs);
    match (layout.word(reader.text(STATUS)?), at) {
        (Some(Word::Active), None) => Ok(CopyState::Active { due_at: None }),
        (Some(Word::Surplus), Some(at)) => Ok(CopyState::Active { due_at: Some(at) }),
        (Some(Word::Disowned), Some(at)) => Ok(CopyState::Disowned { at, reason: reader.parsed(REASON)? }),
        _ => Err(reader.damaged(STATUS)),
    }
}

/// A whole tombstone. The service forgets it by itself, some days after nobody needs it any more.
pub(super) fn tombstone_item(layout: &Layout, original: &ObjectKey, tombstone: &Tombstone, rev: &Rev) -> Item {
    let expires = tombstone.noted_at.plus(TOMBSTONE_TTL).plus(TOMBSTONE_SPARE);
    let mut item = keys(layout.partition(original), TOMBSTONE);
    let attributes = [
        (STATUS, text(layout.status(Word::Removed, original))),
        (DISOWNED_AT, number(tombstone.noted_at.0)),
        (REMOVED_AT, number(tombstone.time.0)),
        (ORDER, text(tombstone.order.to_string())),
        (FLOATING, AttributeValue::Bool(tombstone.floating)),
        (EXPIRES_AT, number(expires.0.div_euclid(1_000))),
        (REV, text(rev.as_str())),
        (FORMAT_OF, number(FORMAT)),
    ];
    item.extend(attributes.into_iter().map(|(name, value)| (name.to_owned(), value)));
    item
}

/// Reads a tombstone, and the rev that a condition names.
pub(super) fn read_tombstone(original: &ObjectKey, item: &Item) -> PortResult<(Tombstone, Rev)> {
    let reader = Reader { item, which: format!("tombstone of {original}") };
    reader.known_format()?;
    let tombstone = Tombstone {
        order: reader.parsed(ORDER)?,
        time: UnixMs(reader.number(REMOVED_AT)?),
        noted_at: UnixMs(reader.number(DISOWNED_AT)?),
        floating: reader.flag(FLOATING)?,
    };
    Ok((tombstone, Rev::from(reader.text(REV)?)))
}

/// Reads attributes of one item, and knows its name for errors.
pub(super) struct Reader<'a> {
    pub(super) item: &'a Item,
    /// Which item.
    pub(super) which: String,
}

impl Reader<'_> {
    /// The error of an attribute that this program would not have written.
    pub(super) fn damaged(&self, attribute: &str) -> PortError {
        let what = format!(
            "its attribute `{attribute}` does not read back; correct or delete the item, then run `afterimage reconcile`"
        );
        PortError::new("read catalog row", &self.which, ErrorKind::Damaged(what))
    }

    /// Refuses what a newer version wrote.
    pub(super) fn known_format(&self) -> PortResult<()> {
        match self.number::<u32>(FORMAT_OF)? {
            0 => Err(self.damaged(FORMAT_OF)),
            1..=FORMAT => Ok(()),
            newer => {
                let why = format!(
                    "written by a newer Afterimage (format {newer}; this one knows up to {FORMAT}): start that version again"
                );
                Err(PortError::new("read catalog row", &self.which, ErrorKind::Invalid(why)))
            }
        }
    }

    pub(super) fn optional_text(&self, attribute: &str) -> PortResult<Option<&str>> {
        let value = self.item.get(attribute);
        value.map(|value| value.as_s().map(String::as_str).map_err(|_| self.damaged(attribute))).transpose()
    }

    pub(super) fn text(&self, attribute: &str) -> PortResult<&str> {
        self.optional_text(attribute)?.ok_or_else(|| self.damaged(attribute))
    }

    pub(super) fn optional_number<T: FromStr>(&self, attribute: &str) -> PortResult<Option<T>> {
        let Some(value) = self.item.get(attribute) else { return Ok(None) };
        let digits = value.as_n().map_err(|_| self.damaged(attribute))?;
        digits.parse().map(Some).map_err(|_| self.damaged(attribute))
    }

    pub(super) fn number<T: FromStr>(&self, attribute: &str) -> PortResult<T> {
        self.optional_number(attribute)?.ok_or_else(|| self.damaged(attribute))
    }

    fn flag(&self, attribute: &str) -> PortResult<bool> {
        let value = self.item.get(attribute).and_then(|value| value.as_bool().ok());
        value.copied().ok_or_else(|| self.damaged(attribute))
    }

    fn parsed<T: FromStr>(&self, attribute: &str) -> PortResult<T> {
        self.text(attribute)?.parse().map_err(|_| self.damaged(attribute))
    }
}

fn origin_text(origin: Origin) -> String {
    match origin {
        Origin::Event => "event".to_owned(),
        Origin::Look => "look".to_owned(),
        Origin::Undelete { at } => format!("undelete@{}", at.0),
    }
}

fn read_origin(text: &str) -> Option<Origin> {
    match text {
        "event" => Some(Origin::Event),
        "look" => Some(Origin::Look),
        _ => text.strip_prefix("undelete@")?.parse().ok().map(|at| Origin::Undelete { at: UnixMs(at) }),
    }
}

fn read_checksum(text: &str) -> Option<Checksum> {
    let bytes = STANDARD.decode(text).ok()?;
    Some(Checksum(u64::from_be_bytes(bytes.try_into().ok()?)))
}
