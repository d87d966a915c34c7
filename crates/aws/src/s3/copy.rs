//! Copying server-side: between buckets, regions and accounts, without moving bytes through this process.
//!
//! A HEAD comes first: it pins the version and the tag, tells the storage class, which a copy does not keep by itself, and
//! whether the object lies in an archive tier. It is left out where whoever asks was told all that a moment ago, and the
//! request's own conditions do the rest. Up to 5 GiB one CopyObject does it, above that an upload of copied parts
//! (`crates/aws/src/s3/copy_parts.rs`). Every request to copy is conditional on the tag, so that no other content is copied
//! under the event's name.
//!
//! A crash leaves nothing, or the whole copy without a row (adopted by a redelivery or `reconcile`), or an upload that was
//! not completed: nothing of it is visible, and the bucket's lifecycle rule for incomplete uploads removes it. Laws: I1, I11.

use super::S3Bucket;
use super::attributes::{STANDARD, Told, checksum, etag, expires, metadata, quoted, reach, unix_ms, version_id};
use crate::error_map::{Call, is_absent, status};
use crate::limits::{COPY_WAIT, QUICK_COPY_BYTES};
use async_trait::async_trait;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::operation::copy_object::CopyObjectError;
use aws_sdk_s3::operation::copy_object::builders::CopyObjectFluentBuilder;
use aws_sdk_s3::types::{MetadataDirective, StorageClass};
use engine::error::{ErrorKind, PortResult};
use engine::ports::objects::{Attributes, Copied, CopyRequest, Head, ObjectCopy, Onto, Reach};
use lifecycle::event::Version;
use lifecycle::ids::{ObjectKey, VersionId};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::collections::BTreeMap;

/// What a path of a URL may hold as it is.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

pub(super) const RIGHTS: &str = "s3:GetObject, s3:GetObjectVersion and s3:GetObjectTagging on the source, s3:PutObject and \
                                 s3:PutObjectTagging on the destination (and kms:Decrypt, kms:GenerateDataKey where KMS \
                                 encrypts)";

const PRECONDITION_FAILED: u16 = 412;
const CONFLICT: u16 = 409;

/// Copies from one bucket to another of the same service.
pub(super) struct Copier {
    pub(super) from: S3Bucket,
    pub(super) to: S3Bucket,
}

#[async_trait]
impl ObjectCopy for Copier {
    async fn copy(&self, request: &CopyRequest) -> PortResult<Copied> {
        if let Some(told) = told_before(request, self.to.sizes.single_max) {
            return self.copy_at_once(request, &told).await;
        }
        let version = request.version.version_id.as_ref();
        let Some(source) = self.from.look(&request.from, version).await? else { return Ok(Copied::SourceGone) };
        let found = &source.head.version;
        if found.etag != request.version.etag || found.size != request.version.size {
            return Ok(Copied::SourceChanged);
        }
        if source.head.reach != Reach::Readable {
            return Err(self.call(request).failed(ErrorKind::Archived));
        }
        // Not every store heeds a condition on a copy's destination: it is looked at, too.
        if !self.to.meets(&request.to, &request.onto).await? {
            return Ok(Copied::DestinationChanged);
        }
        if found.size > self.to.sizes.single_max {
            return self.copy_in_parts(request, &source).await;
        }
        self.copy_at_once(request, &source).await
    }
}

impl Copier {
    pub(super) fn call(&self, request: &CopyRequest) -> Call {
        let object = format!("s3://{}/{} to s3://{}/{}", self.from.name, request.from, self.to.name, request.to);
        Call::new("copy object", RIGHTS, object)
    }

    async fn copy_at_once(&self, request: &CopyRequest, source: &Told) -> PortResult<Copied> {
        let copy = self
            .to
            .client
            .copy_object()
            .bucket(&self.to.name)
            .key(request.to.as_str())
            .copy_source(copy_source(&self.from.name, &request.from, request.version.version_id.as_ref()))
            .copy_source_if_match(quoted(&request.version.etag))
            .set_storage_class(storage_class(&source.head));
        let copy = with_metadata(copy, request, source);
        let copy = match &request.onto {
            Onto::Anything => copy,
            Onto::Nothing => copy.if_none_match("*"),
            Onto::This(etag) => copy.if_match(quoted(etag)),
        };
        let answer = match request.version.size {
            0..=QUICK_COPY_BYTES => copy.send().await,
            _ => {
                let timeouts = TimeoutConfig::builder().read_timeout(COPY_WAIT).build();
                let longer = aws_sdk_s3::config::Builder::new().timeout_config(timeouts);
                copy.customize().config_override(longer).send().await
            }
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) if is_absent(&error) => return Ok(Copied::SourceGone),
            Err(error) if matches!(status(&error), Some(PRECONDITION_FAILED | CONFLICT)) => {
                return self.who_changed(request, error).await;
            }
            Err(error) => return Err(self.call(request).sdk(error)),
        };
        let Some(result) = answer.copy_object_result() else {
            let why = "the copy was answered without a result".to_owned();
            return Err(self.call(request).failed(ErrorKind::Damaged(why)));
        };
        let copied = result.e_tag().map(etag);
        if request.seen.is_some() && copied.is_some_and(|copied| copied != request.version.etag) {
            // A store that encrypts or joins tags them anew. One that heeds no conditions copied whatever was there.
            let now = self.from.look(&request.from, request.version.version_id.as_ref()).await?;
            if now.is_none_or(|now| now.head.version.etag != request.version.etag) {
                let why = "it was written meanwhile, and the store may have copied that instead: look at the copy, and delete \
                           it from the destination if it is not that version, before a comparison adopts it";
                return Err(self.call(request).failed(ErrorKind::Damaged(why.to_owned())));
            }
        }
        let mut head = source.head.clone();
        head.metadata.extend(request.add_metadata.clone());
        Ok(Copied::Done(Head {
            version: Version {
                version_id: version_id(answer.version_id()),
                etag: etag(result.e_tag().unwrap_or_default()),
                size: source.head.version.size,
            },
            last_modified: result.last_modified().map_or(source.head.last_modified, unix_ms),
            checksum: checksum(result.checksum_crc64_nvme(), result.checksum_type()).or(source.head.checksum),
            ..head
        }))
    }

    /// A condition failed: the source's or the destination's. A second look tells; where it does not, the store is busy
    /// with another write of the same name, and trying again helps.
    async fn who_changed(
        &self,
        request: &CopyRequest,
        error: aws_sdk_s3::error::SdkError<CopyObjectError, aws_sdk_s3::config::http::HttpResponse>,
    ) -> PortResult<Copied> {
        let now = self.from.look(&request.from, request.version.version_id.as_ref()).await?;
        let Some(now) = now else { return Ok(Copied::SourceGone) };
        if now.head.version.etag != request.version.etag {
            return Ok(Copied::SourceChanged);
        }
        if request.onto != Onto::Anything && !self.to.meets(&request.to, &request.onto).await? {
            return Ok(Copied::DestinationChanged);
        }
        let told = self.call(request).sdk(error);
        Err(engine::error::PortError { kind: ErrorKind::Unavailable, ..told })
    }
}

impl S3Bucket {
    /// Whether what is there meets the condition.
    pub(super) async fn meets(&self, key: &ObjectKey, onto: &Onto) -> PortResult<bool> {
        if *onto == Onto::Anything {
            return Ok(true);
        }
        let there = self.look(key, None).await?.map(|told| told.head.version.etag);
        Ok(match onto {
            Onto::Anything => true,
            Onto::Nothing => there.is_none(),
            Onto::This(etag) => there.as_ref() == Some(etag),
        })
    }
}

/// What a HEAD would tell that one CopyObject needs, if it is known. Archive tiers are not: their objects may have been
/// retrieved.
fn told_before(request: &CopyRequest, single_max: u64) -> Option<Told> {
    let seen = request.seen.as_ref()?;
    let class = seen.storage_class.as_deref().unwrap_or(STANDARD);
    let copies_whole = request.add_metadata.is_empty() && request.version.size <= single_max;
    if !copies_whole || request.onto != Onto::Anything || lies_in_archive(&StorageClass::from(class)) {
        return None;
    }
    let head = Head {
        version: request.version.clone(),
        last_modified: seen.last_modified,
        checksum: None,
        storage_class: Some(class.to_owned()),
        metadata: BTreeMap::new(),
        reach: Reach::Readable,
    };
    Some(Told { head, attributes: Attributes::default(), is_deep: false })
}

/// A copy keeps metadata and content type by itself, unless something is to be added: then all of it is written anew.
fn with_metadata(copy: CopyObjectFluentBuilder, request: &CopyRequest, source: &Told) -> CopyObjectFluentBuilder {
    if request.add_metadata.is_empty() {
        return copy;
    }
    let mut all = metadata(&source.attributes);
    all.extend(request.add_metadata.clone());
    let Told { attributes, .. } = source;
    copy.metadata_directive(MetadataDirective::Replace)
        .set_metadata(Some(all))
        .set_content_type(attributes.content_type.clone())
        .set_content_encoding(attributes.content_encoding.clone())
        .set_content_disposition(attributes.content_disposition.clone())
        .set_content_language(attributes.content_language.clone())
        .set_cache_control(attributes.cache_control.clone())
        .set_expires(expires(attributes))
}

/// Named where it is not the usual one, which some stores do not know by name; nor an archive tier, out of which the object
/// has just been retrieved: its copy is there to be read.
pub(super) fn storage_class(head: &Head) -> Option<StorageClass> {
    let class = head.storage_class.as_deref().filter(|class| *class != STANDARD).map(StorageClass::from)?;
    (!lies_in_archive(&class)).then_some(class)
}

/// Whether what has this class lies in an archive tier, as far as a class alone says.
fn lies_in_archive(class: &StorageClass) -> bool {
    reach(Some(class), None, None) != Reach::Readable
}

/// Where to copy from, encoded: the SDK sends it as it is.
pub(super) fn copy_source(bucket: &str, key: &ObjectKey, version: Option<&VersionId>) -> String {
    let path = format!("{bucket}/{}", utf8_percent_encode(key.as_str(), IN_PATH));
    match version {
        None => path,
        Some(version) => format!("{path}?versionId={}", utf8_percent_encode(&version.to_string(), NON_ALPHANUMERIC)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_copy_from_is_encoded_once() {
        let key = |key: &str| ObjectKey::new(key).expect("a key");
        assert_eq!(copy_source("b", &key("a/b c+d%2B.txt"), None), "b/a/b%20c%2Bd%252B.txt");
        assert_eq!(copy_source("b", &key("ä?x=1&y#z"), None), "b/%C3%A4%3Fx%3D1%26y%23z");
        assert_eq!(copy_source("b", &key("k"), Some(&VersionId::from("a+/=."))), "b/k?versionId=a%2B%2F%3D%2E");
    }
}
