//! Adopting bytes that have no row: an earlier handler died between the two (I2).
//!
//! The row is read from the copy's name. If the bytes turn out to be gone right after the row was put (a cleaner was
//! faster), the row is taken back, unless somebody changed it meanwhile. A crash before that leaves a row without bytes,
//! which `reconcile` disowns.

use crate::error::PortResult;
use crate::policy::Policy;
use crate::ports::catalog::RowId;
use crate::ports::objects::Head;
use crate::steps::copy_rows;
use crate::steps::purge::{OwnedRow, delete_row_without_bytes};
use lifecycle::copy_key::{Identity, Parsed};
use lifecycle::ids::{CopyKey, ETag, ObjectKey, VersionId};

/// Puts the row of bytes that are there, if it is missing. `true`: it was missing.
pub async fn adopt(
    policy: &Policy,
    original: &ObjectKey,
    copy_key: &CopyKey,
    parsed: &Parsed,
    there: &Head,
) -> PortResult<bool> {
    let id = RowId { original: original.clone(), copy_key: copy_key.clone() };
    if row_of(policy, &id).await?.is_some() {
        return Ok(false);
    }
    let (version_id, etag) = identity(&parsed.name.identity, there);
    let row = copy_rows::row(copy_key.clone(), &parsed.name, version_id, etag, there);
    policy.catalog.upsert(original, &row).await?;
    let Some(put) = row_of(policy, &id).await? else { return Ok(true) };
    if policy.destination.head(copy_key.object(), None).await?.is_none() {
        delete_row_without_bytes(policy, OwnedRow { original: original.clone(), row: put }).await?;
    }
    Ok(true)
}

async fn row_of(policy: &Policy, id: &RowId) -> PortResult<Option<lifecycle::row::CopyRow>> {
    Ok(policy.catalog.rows(std::slice::from_ref(id)).await?.into_iter().next().flatten())
}

/// What the name and the copy's head say about the content. The copy's own tag stands in for the source's where the name
/// carries a version id: rows of versioned sources are compared by that.
fn identity(identity: &Identity, there: &Head) -> (Option<VersionId>, ETag) {
    match identity {
        Identity::Version(id) => (Some(id.clone()), there.version.etag.clone()),
        Identity::Tag(etag) => (None, etag.clone()),
        Identity::Hashed(_) => (None, there.version.etag.clone()),
    }
}
