//! Finding one archived record: the newest deletion of a key up to a moment. Day by day, from the newest on, a few at once.

use crate::error::{ErrorKind, PortError, PortResult};
use crate::flows::retrieve::{date_of, note_packs};
use crate::format::archived::{Archived, BadRecord, META_DELETION, META_HASH, read};
use crate::format::packed::Original;
use crate::limits::{FIND_DAYS_IN_FLIGHT, RECORD_BYTES_MAX};
use crate::ports::objects::ObjectRead;
use crate::steps::archived_names::{days_back_from, of_key};
use crate::steps::away::is_archived;
use crate::wrap::unpacked::Unpacked;
use futures_util::{StreamExt, TryStreamExt, stream};
use lifecycle::archive::{ServiceName, hash_of, parse, typed};
use lifecycle::ids::{ETag, ObjectKey};
use lifecycle::time::UnixMs;
use std::pin::pin;
use std::sync::Arc;

/// An archived record, and the object that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The object's name.
    pub name: ObjectKey,
    /// The record.
    pub record: Archived,
    /// The object's text, whole.
    pub text: String,
    /// Its tag.
    pub etag: ETag,
}

/// Which record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Which<'a> {
    /// Of which service.
    pub service: &'a ServiceName,
    /// Of which table; `None`: of any.
    pub table: Option<&'a str>,
    /// Its key as a person types it, the values joined by `_`; or the name of an object.
    pub key: &'a str,
    /// Its newest deletion not later than that.
    pub at: UnixMs,
}

/// The newest deletion of a key. Two keys may look alike in names, or as they are typed: then both are named, and nothing is chosen. What lies in an
/// archive tier may be the newest: it is an error, but the days before it are looked at first, down to the first that has the
/// key, so that all that is needed is noted together (`crates/engine/src/steps/away.rs`).
pub async fn find_record(archive: &Unpacked, which: &Which<'_>) -> PortResult<Option<Found>> {
    let Which { service, table, key, .. } = which;
    let is_meant = |found: &Found| table.is_none_or(|table| table == found.record.table);
    if let Ok(name) = ObjectKey::new(*key)
        && parse(&name).is_some_and(|parsed| parsed.service == **service)
    {
        let read = read_record(archive, &name).await;
        if let (Err(error), Some(parsed)) = (&read, parse(&name))
            && is_archived(error)
            && !note_packs(archive, service, &parsed.day).await?
        {
            archive.away().note(&name).await?;
        }
        return Ok(read?.filter(is_meant));
    }
    let mut newest: Option<Found> = None;
    let readings = typed(key);
    for reading in &readings {
        match (newest.take(), newest_of(archive, which, reading).await?) {
            (Some(one), Some(other)) => {
                let names = [one.name.as_str(), other.name.as_str()];
                return Err(PortError::new("find record", key, ErrorKind::Invalid(look_alike(&names))));
            }
            (one, other) => newest = one.or(other),
        }
    }
    Ok(newest)
}

fn look_alike(names: &[&str]) -> String {
    format!("keys of several records look so: name the object that you mean: {}", names.join(", "))
}

/// The newest deletion of a key, given as names have it.
async fn newest_of(archive: &Unpacked, which: &Which<'_>, key: &str) -> PortResult<Option<Found>> {
    let Which { service, table, at, .. } = which;
    let is_meant = |found: &Found| table.is_none_or(|table| table == found.record.table);
    let days = days_back_from(archive, service, *at).await?;
    let looked = stream::iter(days).map(|day| async move {
        let names = of_key(archive, &day, key).await;
        (day, names)
    });
    let mut looked = pin!(looked.buffered(FIND_DAYS_IN_FLIGHT));
    let mut archived = None;
    while let Some((day, names)) = looked.next().await {
        let names = match names {
            Err(error) if is_archived(&error) => {
                note_packs(archive, service, date_of(service, &day)).await?;
                archived = Some(error);
                continue;
            }
            names => names?,
        };
        let (mut newest, mut is_away): (Vec<Found>, bool) = (Vec::new(), false);
        for named in names {
            let found = match read_record(archive, &named.listed.key).await {
                Err(error) if is_archived(&error) => {
                    archive.away().note(&named.listed.key).await?;
                    (archived, is_away) = (Some(error), true);
                    continue;
                }
                found => found?.filter(is_meant),
            };
            let Some(found) = found.filter(|found| found.record.deleted_at <= *at) else { continue };
            match newest.iter_mut().find(|other| other.record.is_of_the_key_of(&found.record)) {
                Some(other) if other.record.age() < found.record.age() => *other = found,
                Some(_) => {}
                None => newest.push(found),
            }
        }
        if newest.len() > 1 {
            let names: Vec<&str> = newest.iter().map(|found| found.name.as_str()).collect();
            return Err(PortError::new("find record", key, ErrorKind::Invalid(look_alike(&names))));
        }
        let found = newest.pop();
        if found.is_some() || is_away {
            return archived.map_or(Ok(found), Err);
        }
    }
    archived.map_or(Ok(None), Err)
}

/// Reads an archived record; `None`: it has just gone, or it is somebody else's object, which says nothing of a deletion.
pub async fn read_record<A: ObjectRead + ?Sized>(archive: &A, name: &ObjectKey) -> PortResult<Option<Found>> {
    let Some(mut object) = archive.get(name, None, None).await? else { return Ok(None) };
    let mut text = Vec::new();
    let damaged = |why: String| PortError::new("read archived record", name, ErrorKind::Damaged(why));
    while let Some(piece) = object.body.try_next().await? {
        text.extend_from_slice(&piece);
        if text.len() > RECORD_BYTES_MAX {
            return Err(damaged(format!("it has more than {RECORD_BYTES_MAX} bytes")));
        }
    }
    let metadata = &object.head.metadata;
    if metadata.get(META_HASH).is_some_and(|hash| *hash != hash_of(&text)) {
        return Err(damaged("its content is not what was archived".to_owned()));
    }
    let record = match read(&text) {
        Ok(record) => record,
        Err(BadRecord::NotJson(_) | BadRecord::Foreign(_)) if !metadata.contains_key(META_DELETION) => return Ok(None),
        Err(error) => return Err(damaged(error.to_string())),
    };
    let text = String::from_utf8(text).map_err(|error| damaged(error.to_string()))?;
    Ok(Some(Found { name: name.clone(), record, text, etag: object.head.version.etag }))
}

/// What reading one original gave: its content, nothing (it is somebody else's, or gone), or why it cannot be read.
pub type OriginalRead = Result<Option<Original>, (ObjectKey, PortError)>;

/// Reads an archived record as it is to be packed. One that is damaged, or lies in an archive tier, ends nothing; a store that
/// does not answer does.
pub async fn original<A: ObjectRead + ?Sized>(archive: Arc<A>, name: ObjectKey) -> PortResult<OriginalRead> {
    Ok(match read_record(archive.as_ref(), &name).await {
        Ok(Some(found)) => Ok(Some(Original { object: name, etag: found.etag, body: found.text.into() })),
        Ok(None) => Ok(None),
        Err(error) if matches!(error.kind, ErrorKind::Damaged(_) | ErrorKind::Archived) => Err((name, error)),
        Err(error) => return Err(error),
    })
}
