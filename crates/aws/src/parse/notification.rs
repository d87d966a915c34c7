//! S3 notifications. Keys are form-encoded once: `+` is a space. Senders that speak the same shape (MinIO, Ceph) put `s3:`
//! before the event's name; the records of SQS and SNS as Lambda gets them wrap the shape once more.

use super::{BucketEvent, Channel, Field, Message, ParseError, bare_tag, order, parse_wrapped};
use lifecycle::event::{Happened, ObjectEvent, Version};
use lifecycle::ids::{ETag, VersionId};
use percent_encoding::percent_decode_str;

/// The one major version of records; minor ones only add fields.
const MAJOR: &str = "2";

pub(super) fn read_records(records: &Field<'_>, wraps: usize) -> Result<Message, ParseError> {
    let (mut events, mut tests, mut others) = (Vec::new(), 0, 0);
    for record in records.items()? {
        let wrapped = record.some_text("body").or_else(|| {
            let sns = record.get("Sns").ok()?;
            sns.some_text("Message")
        });
        match wrapped {
            None => {
                others += 1;
                events.extend(read(&record)?);
            }
            Some(message) => match parse_wrapped(message.as_bytes(), wraps + 1)? {
                Message::TestEvent => tests += 1,
                Message::Events(more) => {
                    others += 1;
                    events.extend(more);
                }
            },
        }
    }
    Ok(if tests > 0 && others == 0 { Message::TestEvent } else { Message::Events(events) })
}

/// One record; `None` when it concerns no copy.
fn read(record: &Field<'_>) -> Result<Option<BucketEvent>, ParseError> {
    let name = record.get("eventName")?;
    let Some(kind) = Kind::of(name.text()?) else { return Ok(None) };
    if let Ok(version) = record.get("eventVersion")
        && version.text()?.split('.').next() != Some(MAJOR)
    {
        return Err(version.wrong("records of version 2 are understood"));
    }
    let s3 = record.get("s3")?;
    let bucket = s3.get("bucket")?.get("name")?;
    let object = s3.get("object")?;
    let key = object.get("key")?;
    let what = match kind {
        // Ceph tells of an upload when it begins, too: there is no object yet, and its completion is told of again.
        Kind::Created { post: true } if object.some_text("eTag").is_none() => return Ok(None),
        Kind::Created { .. } => {
            let etag = object.get("eTag")?;
            Happened::Created(Version {
                version_id: object.some_text("versionId").map(VersionId::from),
                etag: ETag::from(bare_tag(etag.text()?)),
                size: object.get("size")?.size()?,
            })
        }
        // A version that was deleted for good says so; without one, the bucket has no versions and the key is gone.
        Kind::Deleted => match object.some_text("versionId") {
            Some(version) => Happened::VersionRemoved(VersionId::from(version)),
            None => Happened::Removed,
        },
        Kind::Marked => Happened::Removed,
    };
    Ok(Some(BucketEvent {
        channel: Channel::Notification,
        bucket: bucket.text()?.to_owned(),
        region: record.some_text("awsRegion").map(str::to_owned),
        event: ObjectEvent {
            key: key.key(decoded(&key)?)?,
            time: record.get("eventTime")?.time()?,
            order: order(&object),
            what,
        },
    }))
}

/// What a record tells of.
#[derive(Clone, Copy)]
enum Kind {
    Created {
        /// By a form, or, with Ceph, the beginning of an upload.
        post: bool,
    },
    /// Deleted for good, by a request or by the bucket's lifecycle.
    Deleted,
    /// Hidden by a delete marker, likewise.
    Marked,
}

impl Kind {
    fn of(name: &str) -> Option<Kind> {
        let name = name.strip_prefix("s3:").unwrap_or(name);
        match name.split_once(':')? {
            ("ObjectCreated", how) => Some(Kind::Created { post: how == "Post" }),
            // Two families: what a lifecycle expires is told of under a name of its own.
            ("ObjectRemoved" | "LifecycleExpiration", "DeleteMarkerCreated") => Some(Kind::Marked),
            ("ObjectRemoved" | "LifecycleExpiration", _) => Some(Kind::Deleted),
            _ => None,
        }
    }
}

/// The key as the client wrote it.
fn decoded(key: &Field<'_>) -> Result<String, ParseError> {
    let spaces = key.text()?.replace('+', " ");
    let text = percent_decode_str(&spaces).decode_utf8();
    text.map(|text| text.into_owned()).map_err(|_| key.wrong("it is not UTF-8 after decoding"))
}
