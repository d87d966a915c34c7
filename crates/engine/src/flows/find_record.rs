//! Finding one archived record: the newest deletion of a key, or the newest up to a moment. Day by day, from the newest on.

use crate::error::{ErrorKind, PortError, PortResult};
use crate::format::archived::{Archived, read};
use crate::limits::RECORD_BYTES_MAX;
use crate::ports::objects::ObjectRead;
use crate::steps::archived_names::{Days, days, of_key};
use futures_util::TryStreamExt;
use lifecycle::archive::ServiceName;
use lifecycle::ids::ObjectKey;
use lifecycle::time::UnixMs;

/// An archived record, and the object that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The object's name.
    pub name: ObjectKey,
    /// The record.
    pub record: Archived,
    /// The object's text, whole.
    pub text: String,
}

/// The newest deletion of a key (given as its values stand in names), not later than `at`.
pub async fn find_record(
    archive: &dyn ObjectRead,
    service: &ServiceName,
    key: &str,
    at: Option<UnixMs>,
) -> PortResult<Option<Found>> {
    for day in days(archive, service, Days { from: None, until: at }).await?.into_iter().rev() {
        let mut of_the_day = Vec::new();
        for named in of_key(archive, &day, key).await? {
            if let Some(found) = read_record(archive, &named.listed.key).await? {
                of_the_day.push(found);
            }
        }
        of_the_day.retain(|found| at.is_none_or(|at| found.record.deleted_at <= at));
        let newest = |found: &Found| (found.record.deleted_at, found.record.sequence.clone());
        if let Some(found) = of_the_day.into_iter().max_by_key(newest) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Reads an archived record; `None`: it has just gone.
pub async fn read_record(archive: &dyn ObjectRead, name: &ObjectKey) -> PortResult<Option<Found>> {
    let Some(mut object) = archive.get(name, None, None).await? else { return Ok(None) };
    let mut text = Vec::new();
    let damaged = |why: String| PortError::new("read archived record", name, ErrorKind::Damaged(why));
    while let Some(piece) = object.body.try_next().await? {
        text.extend_from_slice(&piece);
        if text.len() > RECORD_BYTES_MAX {
            return Err(damaged(format!("it has more than {RECORD_BYTES_MAX} bytes")));
        }
    }
    let record = read(&text).map_err(|error| damaged(error.to_string()))?;
    let text = String::from_utf8(text).map_err(|error| damaged(error.to_string()))?;
    Ok(Some(Found { name: name.clone(), record, text }))
}
