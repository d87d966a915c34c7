//! EventBridge events of S3. Keys are not encoded; a removal says how the object went in `deletion-type`.

use super::{BucketEvent, Channel, Field, Message, ParseError, bare_tag, order};
use lifecycle::event::{Happened, ObjectEvent, Version};
use lifecycle::ids::{ETag, VersionId};

pub(super) fn read(root: &Field<'_>) -> Result<Message, ParseError> {
    let source = root.get("source")?;
    if source.text()? != "aws.s3" {
        return Err(ParseError::Foreign(format!("it is an EventBridge event of `{}`", source.text()?)));
    }
    let what = match root.get("detail-type")?.text()? {
        "Object Created" => created(root)?,
        "Object Deleted" => deleted(root)?,
        _ => return Ok(Message::Events(Vec::new())),
    };
    let detail = root.get("detail")?;
    let object = detail.get("object")?;
    let key = object.get("key")?;
    let event = ObjectEvent {
        key: key.key(key.text()?.to_owned())?,
        time: root.get("time")?.time()?,
        order: order(&object),
        what,
    };
    Ok(Message::Events(vec![BucketEvent {
        channel: Channel::EventBridge,
        bucket: detail.get("bucket")?.get("name")?.text()?.to_owned(),
        region: root.some_text("region").map(str::to_owned),
        event,
    }]))
}

fn created(root: &Field<'_>) -> Result<Happened, ParseError> {
    let object = root.get("detail")?.get("object")?;
    Ok(Happened::Created(Version {
        version_id: object.some_text("version-id").map(VersionId::from),
        etag: ETag::from(bare_tag(object.get("etag")?.text()?)),
        size: object.get("size")?.size()?,
    }))
}

/// The reason (a request, a lifecycle) makes no difference: the object is gone either way.
fn deleted(root: &Field<'_>) -> Result<Happened, ParseError> {
    let detail = root.get("detail")?;
    let version = detail.get("object")?.some_text("version-id").map(VersionId::from);
    match detail.get("deletion-type")?.text()? {
        "Delete Marker Created" => Ok(Happened::Removed),
        "Permanently Deleted" => Ok(version.map_or(Happened::Removed, Happened::VersionRemoved)),
        other => Err(detail.get("deletion-type")?.wrong(format!("`{other}` is no known way to delete"))),
    }
}
