//! A small object of our own in a bucket, as JSON: written whole, read whole.
//!
//! A crash leaves the one before, or the new one.

use crate::error::{ErrorKind, PortError, PortResult};
use crate::ports::objects::{Attributes, ObjectRead, ObjectWrite, Onto, Written};
use futures_util::{TryStreamExt, stream};
use lifecycle::ids::ObjectKey;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads it; `None` when it is not there. One that does not read back, or has more than `bytes_max`, is `Damaged`.
pub async fn read<T: DeserializeOwned>(
    bucket: &dyn ObjectRead,
    key: &ObjectKey,
    bytes_max: usize,
) -> PortResult<Option<T>> {
    // Not a range of it: an empty object has none.
    let Some(mut object) = bucket.get(key, None, None).await? else { return Ok(None) };
    let mut text = Vec::new();
    while text.len() <= bytes_max
        && let Some(piece) = object.body.try_next().await?
    {
        text.extend_from_slice(&piece);
    }
    let damaged = |error: serde_json::Error| {
        PortError::new("read object", key, ErrorKind::Damaged("it does not read back".to_owned())).because(error)
    };
    serde_json::from_slice(&text).map(Some).map_err(damaged)
}

/// Writes it; whether the condition held.
pub async fn write(bucket: &dyn ObjectWrite, key: &ObjectKey, value: &impl Serialize, onto: Onto) -> PortResult<bool> {
    let failed = |error| PortError::new("write object", key, ErrorKind::Internal("JSON".to_owned())).because(error);
    let text = serde_json::to_vec(value).map_err(failed)?;
    let (size, body) = (text.len() as u64, Box::pin(stream::iter([Ok(text.into())])));
    let attributes = Attributes { content_type: Some("application/json".to_owned()), ..Attributes::default() };
    let written = bucket.put_sized(key, body, size, &attributes, onto).await?;
    Ok(matches!(written, Written::Done(_)))
}
