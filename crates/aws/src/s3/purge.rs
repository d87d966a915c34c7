//! Deleting from a destination.
//!
//! Deleting in a bucket that keeps versions only hides: a copy there is deleted version by version, or nothing would ever
//! become free. A mirrored object (a purge with a condition) is hidden instead: the bucket's own versions stay a way back.
//! Safe to repeat; a crash leaves some of the objects deleted. Laws: I3 (called by `crates/engine/src/steps/purge.rs` only).

use super::S3Bucket;
use super::attributes::quoted;
use crate::error_map::{Call, is_absent, status};
use crate::gather::Gather;
use crate::limits::{DELETE_MAX, PURGES_IN_FLIGHT, SHARED_CALLS_IN_FLIGHT, VERSION_PAGES_MAX};
use async_trait::async_trait;
use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use engine::error::{ErrorKind, PortError, PortResult};
use engine::ports::objects::{ObjectPurge, PurgeItem, Purged};
use futures_util::{StreamExt, stream};
use lifecycle::ids::{ETag, ObjectKey, VersionId};
use std::collections::HashMap;

const RIGHTS: &str = "s3:DeleteObject (s3:DeleteObjectVersion and s3:ListBucketVersions where versions are kept)";

/// Deletes from one bucket.
pub(super) struct Purger {
    bucket: S3Bucket,
    /// What comes one by one from many keys at the same time.
    shared: Gather<(ObjectKey, Option<VersionId>), PurgeItem, PortResult<Purged>>,
}

impl Purger {
    pub(super) fn of(bucket: S3Bucket) -> Purger {
        Purger { bucket, shared: Gather::new(SHARED_CALLS_IN_FLIGHT, DELETE_MAX) }
    }
}

#[async_trait]
impl ObjectPurge for Purger {
    async fn purge(&self, items: &[PurgeItem]) -> Vec<PortResult<Purged>> {
        let versioned = match self.bucket.is_versioned().await {
            Ok(versioned) => versioned,
            Err(error) => return items.iter().map(|_| Err(error.clone())).collect(),
        };
        // One request for many objects can delete it.
        let goes_with_others =
            |n: &usize| items[*n].if_match.is_none() && (!versioned || items[*n].version_id.is_some());
        let (at_once, alone): (Vec<usize>, Vec<usize>) = (0..items.len()).partition(goes_with_others);
        let mut outcomes: Vec<Option<PortResult<Purged>>> = vec![None; items.len()];
        if let [n] = at_once.as_slice() {
            outcomes[*n] = Some(self.purge_with_others(&items[*n]).await);
        } else {
            for numbers in at_once.chunks(DELETE_MAX) {
                let chosen: Vec<PurgeItem> = numbers.iter().map(|n| items[*n].clone()).collect();
                for (n, outcome) in numbers.iter().zip(self.bucket.delete(&chosen).await) {
                    outcomes[*n] = Some(outcome);
                }
            }
        }
        let mut done = stream::iter(alone)
            .map(|n| async move { (n, self.purge_alone(&items[n]).await) })
            .buffer_unordered(PURGES_IN_FLIGHT);
        while let Some((n, outcome)) = done.next().await {
            outcomes[n] = Some(outcome);
        }
        outcomes.into_iter().map(|outcome| outcome.expect("each was asked for, one way or the other")).collect()
    }
}

impl Purger {
    /// One object that one request can delete with others, which may come at the same time.
    async fn purge_with_others(&self, item: &PurgeItem) -> PortResult<Purged> {
        let id = (item.key.clone(), item.version_id.clone());
        let together = |items: Vec<PurgeItem>| async move { self.bucket.delete(&items).await };
        let purged = self.shared.share(Some(id), item.clone(), together).await;
        purged
            .unwrap_or_else(|| Err(self.bucket.call("purge object", RIGHTS, &item.key).failed(ErrorKind::Unavailable)))
    }

    async fn purge_alone(&self, item: &PurgeItem) -> PortResult<Purged> {
        match &item.if_match {
            Some(etag) => self.bucket.delete_if(&item.key, etag).await,
            None => self.bucket.delete_versions(&item.key).await,
        }
    }
}

impl S3Bucket {
    /// One request; one outcome for each. What the service does not mention was not deleted for certain.
    async fn delete(&self, items: &[PurgeItem]) -> Vec<PortResult<Purged>> {
        let named = |item: &PurgeItem| {
            let version = item.version_id.as_ref().map(ToString::to_string);
            ObjectIdentifier::builder().key(item.key.as_str()).set_version_id(version).build()
        };
        let objects: Result<Vec<ObjectIdentifier>, _> = items.iter().map(named).collect();
        let delete = objects.and_then(|objects| Delete::builder().set_objects(Some(objects)).build());
        let whole = Call::new("purge objects in", RIGHTS, format!("s3://{}", self.name));
        let answer = match delete {
            Ok(delete) => self.client.delete_objects().bucket(&self.name).delete(delete).send().await,
            Err(error) => {
                let kind = ErrorKind::Internal("the request could not be built".to_owned());
                return all(items, &whole.failed(kind).because(error));
            }
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return all(items, &whole.sdk(error)),
        };
        let name = |key: Option<&str>, version: Option<&str>| {
            (key.unwrap_or_default().to_owned(), version.unwrap_or_default().to_owned())
        };
        let mut told: HashMap<(String, String), Result<(), (String, String)>> = HashMap::new();
        for deleted in answer.deleted() {
            told.insert(name(deleted.key(), deleted.version_id()), Ok(()));
        }
        for error in answer.errors() {
            let why = (error.code().unwrap_or_default().to_owned(), error.message().unwrap_or_default().to_owned());
            told.insert(name(error.key(), error.version_id()), Err(why));
        }
        let outcome = |item: &PurgeItem| {
            let call = self.call("purge object", RIGHTS, &item.key);
            let version = item.version_id.as_ref().map(ToString::to_string).unwrap_or_default();
            match told.get(&(item.key.to_string(), version)) {
                Some(Ok(())) => Ok(Purged::Done),
                Some(Err((code, _))) if code == "NoSuchKey" || code == "NoSuchVersion" => Ok(Purged::Done),
                Some(Err((code, message))) => Err(call.item(code, message)),
                None => Err(call.failed(ErrorKind::Unavailable)),
            }
        };
        items.iter().map(outcome).collect()
    }

    /// Deletes an object if it still has that content. Where versions are kept, they stay.
    async fn delete_if(&self, key: &ObjectKey, etag: &ETag) -> PortResult<Purged> {
        // Not every store heeds the condition, and those that do refuse it in different ways: look first.
        match self.look(key, None).await? {
            None => return Ok(Purged::Done),
            Some(there) if there.head.version.etag != *etag => return Ok(Purged::Changed),
            Some(_) => {}
        }
        let delete = self.client.delete_object().bucket(&self.name).key(key.as_str());
        let answer = delete.set_if_match(self.is_aws().then(|| quoted(etag))).send().await;
        match answer {
            Ok(_) => Ok(Purged::Done),
            Err(error) if is_absent(&error) => Ok(Purged::Done),
            Err(error) if matches!(status(&error), Some(412 | 409)) => Ok(Purged::Changed),
            Err(error) => Err(self.call("purge object", RIGHTS, key).sdk(error)),
        }
    }

    /// Deletes every version and delete marker of a key.
    async fn delete_versions(&self, key: &ObjectKey) -> PortResult<Purged> {
        let call = self.call("purge versions of", RIGHTS, key);
        for _ in 0..VERSION_PAGES_MAX {
            // What was listed is deleted before the next look, so that every look is at the first page.
            let listed = self
                .client
                .list_object_versions()
                .bucket(&self.name)
                .prefix(key.as_str())
                .send()
                .await
                .map_err(|error| call.sdk(error))?;
            let versions = listed.versions().iter().map(|version| (version.key(), version.version_id()));
            let markers = listed.delete_markers().iter().map(|marker| (marker.key(), marker.version_id()));
            let items: Vec<PurgeItem> = versions
                .chain(markers)
                .filter(|(name, _)| *name == Some(key.as_str()))
                .filter_map(|(_, version)| version)
                .map(|version| PurgeItem { key: key.clone(), version_id: Some(version.into()), if_match: None })
                .collect();
            if items.is_empty() {
                return Ok(Purged::Done);
            }
            self.delete(&items[..items.len().min(DELETE_MAX)])
                .await
                .into_iter()
                .try_for_each(|outcome| outcome.map(drop))?;
        }
        Err(call.failed(ErrorKind::Unavailable))
    }
}

/// The same error for each.
fn all(items: &[PurgeItem], error: &PortError) -> Vec<PortResult<Purged>> {
    items.iter().map(|item| Err(PortError { object: item.key.to_string(), ..error.clone() })).collect()
}
