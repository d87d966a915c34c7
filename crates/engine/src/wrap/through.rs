//! A copy between two stores that cannot copy to each other: the bytes go through this process, a piece at a time.
//!
//! Place: the copier of a policy whose source and destination are of different services, or of which one is this machine.
//! The version and the tag that were asked for are pinned by the one request that opens the body. Size and checksum are
//! checked twice: of what came from the source, before the destination makes anything visible, and of what the destination
//! says that it has. Memory holds one piece, and what the destination's writer gathers (I11).
//!
//! A crash leaves what a `put` of the destination leaves: nothing that is visible. Laws: I1, I5 (the source is only read).

use crate::error::{ErrorKind, PortError, PortResult};
use crate::ports::objects::{ByteStream, Copied, CopyRequest, Head, ObjectCopy, ObjectRead, ObjectWrite, Written};
use crate::steps::verify::{Expected, verified};
use async_trait::async_trait;
use crc64fast_nvme::Digest;
use futures_util::{StreamExt, TryStreamExt};
use lifecycle::ids::Checksum;
use std::sync::{Arc, Mutex, PoisonError};

/// Copies from one store to another.
pub struct Through {
    from: Arc<dyn ObjectRead>,
    to: Arc<dyn ObjectWrite>,
}

impl Through {
    /// Reads the first and writes the second.
    pub fn new(from: Arc<dyn ObjectRead>, to: Arc<dyn ObjectWrite>) -> Through {
        Through { from, to }
    }
}

#[async_trait]
impl ObjectCopy for Through {
    async fn copy(&self, request: &CopyRequest) -> PortResult<Copied> {
        let Some(object) = self.from.get(&request.from, request.version.version_id.as_ref(), None).await? else {
            return Ok(Copied::SourceGone);
        };
        if object.head.version.etag != request.version.etag {
            return Ok(Copied::SourceChanged);
        }
        let mut attributes = object.attributes;
        attributes.metadata.extend(request.add_metadata.clone());
        let (size, checksum) = (object.head.version.size, object.head.checksum);
        let (body, sum) = summed(object.body);
        let body = verified(body, Expected { object: request.from.to_string(), size, checksum });
        match self.to.put_sized(&request.to, body, size, &attributes, request.onto.clone()).await? {
            Written::DestinationChanged => Ok(Copied::DestinationChanged),
            Written::Done(head) => {
                let sum = Checksum(sum.lock().unwrap_or_else(PoisonError::into_inner).sum64());
                arrived(&head, size, sum)
                    .map_err(|what| PortError::new("copy object", &request.to, ErrorKind::Damaged(what.to_owned())))?;
                Ok(Copied::Done(head))
            }
        }
    }
}

/// The same body, and the checksum of what has been read of it.
fn summed(body: ByteStream) -> (ByteStream, Arc<Mutex<Digest>>) {
    let sum = Arc::new(Mutex::new(Digest::new()));
    let read = Arc::clone(&sum);
    let body = body.inspect_ok(move |piece| read.lock().unwrap_or_else(PoisonError::into_inner).write(piece));
    (body.boxed(), sum)
}

/// Whether the destination has what was sent, as far as it says.
fn arrived(head: &Head, size: u64, sum: Checksum) -> Result<(), &'static str> {
    if head.version.size != size {
        Err("the destination has another number of bytes than were sent")
    } else if head.checksum.is_some_and(|there| there != sum) {
        Err("the destination has other bytes than were sent")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::objects::{Buckets, objects};
    use crate::memory::bucket::{MemoryBucket, Versioning};
    use crate::memory::clock::MemoryClock;
    use crate::ports::objects::{Attributes, ObjectPurge, Onto};
    use lifecycle::ids::ObjectKey;
    use lifecycle::time::UnixMs;
    use std::collections::BTreeMap;

    fn bucket(name: &str, versioning: Versioning) -> Arc<MemoryBucket> {
        Arc::new(MemoryBucket::new(name, versioning, Arc::new(MemoryClock::at(UnixMs(1_795_000_000_000)))))
    }

    #[tokio::test]
    async fn a_copy_through_this_process_keeps_the_contract_of_copies() {
        for versioning in [Versioning::On, Versioning::Off] {
            objects(|| async move {
                let (source, destination) = (bucket("source", versioning), bucket("copies", Versioning::Off));
                let copy = Arc::new(Through::new(source.clone(), destination.clone()));
                let purge: Arc<dyn ObjectPurge> = destination.clone();
                Buckets { source, destination, copy, purge }
            })
            .await;
        }
    }

    /// The end of a copy of an object, and what the destination has then.
    async fn copied(source: Arc<MemoryBucket>, damaged: &'static [u8]) -> (PortResult<Copied>, usize) {
        let (key, destination) = (ObjectKey::new("k").unwrap(), bucket("copies", Versioning::Off));
        let (_, head) = source.put_object(&key, "the bytes", Attributes::default());
        if !damaged.is_empty() {
            source.damage(&key, damaged);
        }
        let request = CopyRequest {
            from: key.clone(),
            version: head.version,
            to: key,
            onto: Onto::Anything,
            add_metadata: BTreeMap::new(),
            seen: None,
        };
        let copied = Through::new(source, destination.clone()).copy(&request).await;
        (copied, destination.contents().len())
    }

    #[tokio::test]
    async fn bytes_that_are_not_what_the_source_says_leave_nothing() {
        for damaged in [&b"the bytez"[..], b"the byte", b"the bytes and more"] {
            let (copied, left) = copied(bucket("source", Versioning::Off), damaged).await;
            let error = copied.expect_err("damaged");
            assert!(matches!(error.kind, ErrorKind::Damaged(_)), "{error}");
            assert_eq!(left, 0);
        }
    }

    #[tokio::test]
    async fn a_source_without_checksums_is_copied_and_what_arrives_is_compared() {
        let clock = Arc::new(MemoryClock::at(UnixMs(1_795_000_000_000)));
        let source = Arc::new(MemoryBucket::new("source", Versioning::Off, clock).without_checksums());
        let (copied, left) = copied(source, b"").await;
        let Ok(Copied::Done(head)) = copied else { panic!("{copied:?}") };
        assert_eq!(left, 1);
        assert!(arrived(&head, head.version.size, head.checksum.unwrap()).is_ok());
        assert!(arrived(&head, head.version.size, Checksum(1)).is_err());
        assert!(arrived(&head, 1, head.checksum.unwrap()).is_err());
    }
}
