//! Writing a copy to where a person wants it, verified on the way: the write becomes visible only if every byte is right.
//!
//! In two steps, so that the journal tells of a write only once the copy is open: one in an archive tier is not, and is asked
//! for instead.

use crate::error::{ErrorKind, PortError, PortResult};
use crate::policy::Policy;
use crate::ports::objects::{
    Attributes, ByteStream, META_ORIGINAL_KEY, META_SOURCE, ObjectWrite, Onto, Retrieval, Written,
};
use crate::steps::verify::{Expected, verified};
use lifecycle::ids::ObjectKey;
use lifecycle::row::CopyRow;

/// What is said of a copy that an archive was asked for.
pub const ON_ITS_WAY: &str = "its copy lies in an archive tier and is on its way, which takes minutes to days";

/// A copy that can be read.
pub struct OpenCopy {
    body: ByteStream,
    size: u64,
    attributes: Attributes,
}

/// Opens a copy. Errors: `Damaged`, its bytes are not there; `Archived`, it is to be asked for ([`ask_for`]).
pub async fn open_copy(policy: &Policy, row: &CopyRow) -> PortResult<OpenCopy> {
    let copy = row.copy_key.object();
    let Some(object) = policy.destination.get(copy, None, None).await? else {
        let what = "its bytes are not in the destination".to_owned();
        return Err(PortError::new("read copy", copy, ErrorKind::Damaged(what)));
    };
    let expected =
        Expected { object: copy.to_string(), size: row.size, checksum: row.checksum.or(object.head.checksum) };
    let attributes = without_our_marks(object.attributes);
    Ok(OpenCopy { body: verified(object.body, expected), size: row.size, attributes })
}

impl OpenCopy {
    /// Writes its bytes and attributes to `key` of the target.
    pub async fn put(self, target: &dyn ObjectWrite, key: &ObjectKey, onto: Onto) -> PortResult<Written> {
        target.put_sized(key, self.body, self.size, &self.attributes, onto).await
    }
}

/// Asks an archive for these copies. One that lies in none, or is on its way already, stays as it is.
pub async fn ask_for(policy: &Policy, copies: &[ObjectKey]) -> PortResult<()> {
    for copy in copies {
        policy.destination.retrieve(copy, &Retrieval::default()).await?;
    }
    Ok(())
}

/// The attributes as the original had them.
fn without_our_marks(mut attributes: Attributes) -> Attributes {
    attributes.metadata.retain(|name, _| name != META_ORIGINAL_KEY && name != META_SOURCE);
    attributes
}
