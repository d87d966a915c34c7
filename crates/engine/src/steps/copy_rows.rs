//! Making a copy: bytes first, then the row (I1). A crash between the two leaves bytes without a row, which a redelivery
//! or `reconcile` adopts (I2).

use crate::error::PortResult;
use crate::policy::Policy;
use crate::ports::metrics::Counter;
use crate::ports::objects::{CopyRequest, Head, META_ORIGINAL_KEY, Onto};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use lifecycle::copy_key::CopyName;
use lifecycle::event::Version;
use lifecycle::ids::{CopyKey, ETag, ObjectKey, Rev, VersionId};
use lifecycle::row::{CopyRow, CopyState};
use std::collections::BTreeMap;

/// The request that copies a version of the source to the copy key that `name` gives it.
pub fn request(original: &ObjectKey, version: &Version, name: &CopyName) -> (CopyKey, CopyRequest) {
    let (copy_key, cut) = name.copy_key(original);
    let mut add_metadata = BTreeMap::new();
    if cut {
        add_metadata.insert(META_ORIGINAL_KEY.to_owned(), BASE64.encode(original.as_str()));
    }
    let request = CopyRequest {
        from: original.clone(),
        version: version.clone(),
        to: copy_key.object().clone(),
        onto: Onto::Anything,
        add_metadata,
        seen: None,
    };
    (copy_key, request)
}

/// The original key that a copy's metadata carries, if it does.
pub fn original_in_metadata(head: &Head) -> Option<ObjectKey> {
    let bytes = BASE64.decode(head.metadata.get(META_ORIGINAL_KEY)?).ok()?;
    ObjectKey::new(String::from_utf8(bytes).ok()?).ok()
}

/// The row of a copy that is there: what its name says and what its head knows.
pub fn row(copy_key: CopyKey, name: &CopyName, version_id: Option<VersionId>, etag: ETag, there: &Head) -> CopyRow {
    CopyRow {
        copy_key,
        order: name.order,
        floating: name.floating,
        origin: name.origin,
        created_at: name.created_at,
        state: CopyState::Active { due_at: None },
        removed_at: None,
        version_id,
        etag,
        size: there.version.size,
        checksum: there.checksum,
        storage_class: there.storage_class.clone(),
        rev: Rev(String::new()),
    }
}

/// Puts the row of a copy whose bytes are durable, and counts it.
pub async fn put_row(policy: &Policy, original: &ObjectKey, row: &CopyRow) -> PortResult<()> {
    use lifecycle::guards::Guard;
    if policy.rules.guards.hold(Guard::UpsertNeverRevives) {
        policy.catalog.upsert(original, row).await?;
    } else {
        policy.catalog.record_mirrored(original, row).await?;
    }
    policy.metrics.add(Counter::Copies, 1);
    policy.metrics.add(Counter::CopiedBytes, row.size);
    Ok(())
}
