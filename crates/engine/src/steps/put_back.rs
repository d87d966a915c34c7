//! Writing a copy to where a person wants it, verified on the way: the write becomes visible only if every byte is right.

use crate::error::{ErrorKind, PortError, PortResult};
use crate::policy::Policy;
use crate::ports::objects::{Attributes, META_ORIGINAL_KEY, META_SOURCE, ObjectWrite, Onto, Written};
use crate::steps::verify::{Expected, verified};
use lifecycle::ids::ObjectKey;
use lifecycle::row::CopyRow;

/// Writes the copy's bytes and attributes to `key` of the target.
pub async fn put_back(
    policy: &Policy,
    row: &CopyRow,
    target: &dyn ObjectWrite,
    key: &ObjectKey,
    onto: Onto,
) -> PortResult<Written> {
    let copy = row.copy_key.object();
    let Some(object) = policy.destination.get(copy, None, None).await? else {
        let what = "its bytes are not in the destination".to_owned();
        return Err(PortError::new("read copy", copy, ErrorKind::Damaged(what)));
    };
    let expected =
        Expected { object: copy.to_string(), size: row.size, checksum: row.checksum.or(object.head.checksum) };
    let attributes = without_our_marks(object.attributes);
    target.put_sized(key, verified(object.body, expected), row.size, &attributes, onto).await
}

/// The attributes as the original had them.
fn without_our_marks(mut attributes: Attributes) -> Attributes {
    attributes.metadata.retain(|name, _| name != META_ORIGINAL_KEY && name != META_SOURCE);
    attributes
}
