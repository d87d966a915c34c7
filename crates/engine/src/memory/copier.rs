//! A server-side copy between two buckets in memory, or inside one.
//!
//! The source is read at one moment and the destination written at a later one, as a real store does it; each condition is
//! judged at its own side's moment. Laws: I1 (what is `Done` is there), I5 (the source's bucket is only read).

use crate::error::{ErrorKind, PortError, PortResult};
use crate::memory::bucket::MemoryBucket;
use crate::ports::objects::{Copied, CopyRequest, ObjectCopy, Written};
use async_trait::async_trait;
use std::sync::Arc;

/// Copies from one bucket to another.
#[derive(Clone, Debug)]
pub struct MemoryCopier {
    from: Arc<MemoryBucket>,
    to: Arc<MemoryBucket>,
}

impl MemoryCopier {
    /// Copies from the first to the second, which may be the same.
    pub fn new(from: Arc<MemoryBucket>, to: Arc<MemoryBucket>) -> MemoryCopier {
        MemoryCopier { from, to }
    }
}

#[async_trait]
impl ObjectCopy for MemoryCopier {
    async fn copy(&self, request: &CopyRequest) -> PortResult<Copied> {
        let stored = match self.from.read(&request.from, request.version.version_id.as_ref()) {
            None => return Ok(Copied::SourceGone),
            Some(stored) if stored.head.version.etag != request.version.etag => {
                return Ok(Copied::SourceChanged);
            }
            Some(_) if self.from.lies_in_archive(&request.from) => {
                return Err(PortError::new("copy object", &request.from, ErrorKind::Archived));
            }
            Some(stored) => stored,
        };
        let mut attributes = stored.attributes;
        attributes.metadata.extend(request.add_metadata.clone());
        Ok(match self.to.store(&request.to, stored.bytes, attributes, &request.onto) {
            Written::Done(head) => Copied::Done(head),
            Written::DestinationChanged => Copied::DestinationChanged,
        })
    }
}
