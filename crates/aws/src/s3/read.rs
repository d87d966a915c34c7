//! Reading a bucket. "Absent" is a definite 404 (or the delete marker that a version id names); a 403 may hide it from
//! somebody without `s3:ListBucket`, and is an error (V8).

use super::S3Bucket;
use super::attributes::{Told, etag, of_get, of_head, tags_of, unix_ms};
use crate::error_map::{Call, is_absent, status};
use crate::limits::LIST_MAX;
use async_trait::async_trait;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::primitives::ByteStream as SdkStream;
use aws_sdk_s3::types::{
    ChecksumMode, EncodingType, GlacierJobParameters, Object as SdkObject, RestoreRequest, StorageClass, Tier,
};
use engine::error::{ErrorKind, PortResult};
use engine::ports::objects::{ByteStream, Head, Listed, Object, ObjectRead, Page, Retrieval, Speed};
use futures_util::stream;
use lifecycle::event::Version;
use lifecycle::ids::{ObjectKey, VersionId};
use lifecycle::time::UnixMs;
use percent_encoding::percent_decode_str;
use std::collections::BTreeMap;
use std::ops::Range;

const GET_RIGHTS: &str = "s3:GetObject (s3:GetObjectVersion for a version, s3:ListBucket to see that a key is not there, kms:Decrypt where KMS \
     encrypts)";

/// HTTP: the version is a delete marker.
const METHOD_NOT_ALLOWED: u16 = 405;

/// HTTP: the range begins behind the end.
const RANGE_NOT_SATISFIABLE: u16 = 416;

#[async_trait]
impl ObjectRead for S3Bucket {
    async fn head(&self, key: &ObjectKey, version: Option<&VersionId>) -> PortResult<Option<Head>> {
        Ok(self.look(key, version).await?.map(|told| told.head))
    }

    async fn get(
        &self,
        key: &ObjectKey,
        version: Option<&VersionId>,
        range: Option<Range<u64>>,
    ) -> PortResult<Option<Object>> {
        let call = self.call("read object", GET_RIGHTS, key);
        if range.as_ref().is_some_and(Range::is_empty) {
            return self.get_nothing(key, version).await;
        }
        let answer = self
            .client
            .get_object()
            .bucket(&self.name)
            .key(key.as_str())
            .set_version_id(version.map(VersionId::to_string))
            .set_range(range.as_ref().map(|range| format!("bytes={}-{}", range.start, range.end - 1)))
            .checksum_mode(ChecksumMode::Enabled)
            .send()
            .await;
        match answer {
            Ok(answer) => {
                let Told { head, mut attributes, .. } = of_get(&answer);
                if answer.tag_count().is_some_and(|count| count > 0) {
                    attributes.tags = self.tags(key, version).await?;
                }
                Ok(Some(Object { head, attributes, body: body(call, answer.body) }))
            }
            Err(error) if is_absent(&error) || status(&error) == Some(METHOD_NOT_ALLOWED) => Ok(None),
            Err(error) if status(&error) == Some(RANGE_NOT_SATISFIABLE) => {
                Err(call.failed(ErrorKind::Invalid("the range lies behind the object's end".to_owned())))
            }
            Err(error) => Err(call.sdk(error)),
        }
    }

    async fn retrieve(&self, key: &ObjectKey, terms: &Retrieval) -> PortResult<()> {
        let Some(told) = self.look(key, None).await? else { return Ok(()) };
        let call = self.call("retrieve object", "s3:RestoreObject", key);
        let speed = match terms.speed {
            Speed::Standard => Tier::Standard,
            Speed::Bulk => Tier::Bulk,
            Speed::Expedited if told.is_deep => {
                let why = "the deepest archive tiers have no expedited retrieval: ask for standard, or bulk";
                return Err(call.failed(ErrorKind::Invalid(why.to_owned())));
            }
            Speed::Expedited => Tier::Expedited,
        };
        let tier = GlacierJobParameters::builder().tier(speed).build();
        let tier = tier
            .map_err(|error| call.failed(ErrorKind::Internal("the request is not whole".to_owned())).because(error))?;
        // Intelligent tiering moves the object itself back, for good; else a copy of it can be read for some days.
        let moves = told.head.storage_class.as_deref() == Some(StorageClass::IntelligentTiering.as_str());
        let days = (!moves).then_some(i32::try_from(terms.days).unwrap_or(i32::MAX));
        let wanted = RestoreRequest::builder().set_days(days).glacier_job_parameters(tier).build();
        let answer =
            self.client.restore_object().bucket(&self.name).key(key.as_str()).restore_request(wanted).send().await;
        match answer {
            Ok(_) => Ok(()),
            Err(error) => match error.as_service_error().and_then(ProvideErrorMetadata::code) {
                // It is on its way, or there, already.
                Some("RestoreAlreadyInProgress" | "ObjectAlreadyInActiveTierError") => Ok(()),
                _ => Err(call.sdk(error)),
            },
        }
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> PortResult<Page<Listed>> {
        let call = Call::new("list objects", "s3:ListBucket", format!("s3://{}/{prefix}", self.name));
        let limit = i32::try_from(limit.min(LIST_MAX)).unwrap_or(i32::MAX);
        let answer = self
            .client
            .list_objects_v2()
            .bucket(&self.name)
            .prefix(prefix)
            .set_start_after(after.map(ObjectKey::to_string))
            .max_keys(limit)
            // Keys with characters that XML cannot hold come through encoded only.
            .encoding_type(EncodingType::Url)
            .send()
            .await
            .map_err(|error| call.sdk(error))?;
        page(&answer, &call)
    }
}

impl S3Bucket {
    /// A HEAD, with all that it tells. `None`: definitely absent.
    pub(super) async fn look(&self, key: &ObjectKey, version: Option<&VersionId>) -> PortResult<Option<Told>> {
        let answer = self
            .client
            .head_object()
            .bucket(&self.name)
            .key(key.as_str())
            .set_version_id(version.map(VersionId::to_string))
            .checksum_mode(ChecksumMode::Enabled)
            .send()
            .await;
        match answer {
            Ok(answer) => Ok(Some(of_head(&answer))),
            // A HEAD has no body that could say whether the object is not there or its bucket.
            Err(error) if is_absent(&error) => {
                self.is_there().await?;
                Ok(None)
            }
            Err(error) if version.is_some() && status(&error) == Some(METHOD_NOT_ALLOWED) => Ok(None),
            Err(error) => Err(self.call("look at object", GET_RIGHTS, key).sdk(error)),
        }
    }

    /// An error where the bucket itself is missing: its objects are unknown then, not absent (V8).
    async fn is_there(&self) -> PortResult<()> {
        let call = Call::new("look at bucket", "s3:ListBucket", format!("s3://{}", self.name));
        self.client.head_bucket().bucket(&self.name).send().await.map_err(|error| match status(&error) {
            Some(404) => call.failed(ErrorKind::Missing),
            _ => call.sdk(error),
        })?;
        Ok(())
    }

    async fn get_nothing(&self, key: &ObjectKey, version: Option<&VersionId>) -> PortResult<Option<Object>> {
        let Some(Told { head, mut attributes, .. }) = self.look(key, version).await? else { return Ok(None) };
        attributes.tags = self.tags(key, version).await?;
        Ok(Some(Object { head, attributes, body: Box::pin(stream::empty()) }))
    }

    pub(super) async fn tags(
        &self,
        key: &ObjectKey,
        version: Option<&VersionId>,
    ) -> PortResult<BTreeMap<String, String>> {
        let call = self.call("read tags of", "s3:GetObjectTagging (s3:GetObjectVersionTagging for a version)", key);
        let asked = self.client.get_object_tagging().bucket(&self.name).key(key.as_str());
        let answer = asked.set_version_id(version.map(VersionId::to_string)).send().await;
        match answer {
            Ok(answer) => Ok(tags_of(answer.tag_set())),
            Err(error) => match call.sdk(error) {
                error if error.kind == ErrorKind::Unsupported => Ok(BTreeMap::new()), // a store without tags
                error => Err(error),
            },
        }
    }
}

/// The bytes as they come, no more of them in memory than the piece at hand.
fn body(call: Call, bytes: SdkStream) -> ByteStream {
    Box::pin(stream::try_unfold((bytes, call), |(mut bytes, call)| async move {
        match bytes.next().await {
            None => Ok(None),
            Some(Ok(piece)) => Ok(Some((piece, (bytes, call)))),
            // The connection was cut, or the SDK found that the checksum is another one.
            Some(Err(error)) => Err(call.failed(ErrorKind::Unavailable).because(error)),
        }
    }))
}

fn page(answer: &ListObjectsV2Output, call: &Call) -> PortResult<Page<Listed>> {
    let encoded = answer.encoding_type() == Some(&EncodingType::Url);
    let items: Vec<Listed> =
        answer.contents().iter().map(|object| listed(object, encoded, call)).collect::<PortResult<_>>()?;
    let truncated = answer.is_truncated() == Some(true);
    let next = items.last().filter(|_| truncated).map(|last| last.key.clone());
    if truncated && next.is_none() {
        let why = "a page of a listing is empty and not the last: nothing says where the next one begins";
        return Err(call.failed(ErrorKind::Damaged(why.to_owned())));
    }
    Ok(Page { items, next })
}

fn listed(object: &SdkObject, encoded: bool, call: &Call) -> PortResult<Listed> {
    let damaged = |what: &str| call.failed(ErrorKind::Damaged(format!("an object of the listing has no {what}")));
    let name = object.key().ok_or_else(|| damaged("key"))?;
    let name = if encoded { decoded(name).ok_or_else(|| damaged("key in UTF-8"))? } else { name.to_owned() };
    Ok(Listed {
        key: ObjectKey::new(name).map_err(|_| damaged("key of a legal length"))?,
        version: Version {
            version_id: None,
            etag: etag(object.e_tag().ok_or_else(|| damaged("tag"))?),
            size: object.size().and_then(|size| u64::try_from(size).ok()).ok_or_else(|| damaged("size"))?,
        },
        last_modified: object.last_modified().map_or(UnixMs::default(), unix_ms),
        storage_class: object.storage_class().map(|class| class.as_str().to_owned()),
    })
}

/// Listings encode like forms: a space is a plus.
fn decoded(name: &str) -> Option<String> {
    let spaces = name.replace('+', " ");
    percent_decode_str(&spaces).decode_utf8().ok().map(|name| name.into_owned())
}
