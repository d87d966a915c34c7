//! What a side of a round begins with, and what it leaves, told by the services themselves.

use super::job::{Job, source_key};
use super::wiring::Endpoint;
use crate::process::{answer, ready};
use anyhow::Result;
use aws::dynamodb::create_table;
use engine::clock::SystemClock;
use engine::flows::reconcile::RESERVED_PREFIX;
use engine::limits::LIST_PAGE;
use engine::ports::objects::ObjectRead;
use lifecycle::ids::ObjectKey;
use serde_json::json;
use std::sync::Arc;

/// A worker that makes the table, and tells the tag of the source's objects.
pub(crate) async fn prepare(job: &Job) -> Result<()> {
    let (s3, dynamodb) =
        (Endpoint::of(&job.s3, &Arc::default()).await, Endpoint::of(&job.dynamodb, &Arc::default()).await);
    ready()?;
    create_table(&dynamodb.service.dynamodb(&dynamodb.config), &job.table, &SystemClock).await?;
    let head = s3.bucket(&job.source).reader().head(&ObjectKey::new(source_key(0))?, None).await?;
    answer(&json!({ "etag": head.map(|head| head.version.etag.to_string()) }))
}

/// A worker that counts copies in the bucket and items in the table.
pub(crate) async fn tally(job: &Job) -> Result<()> {
    let (s3, dynamodb) =
        (Endpoint::of(&job.s3, &Arc::default()).await, Endpoint::of(&job.dynamodb, &Arc::default()).await);
    ready()?;
    let copies = objects_in(s3.bucket(&job.destination).reader().as_ref()).await?;
    let client = dynamodb.service.dynamodb(&dynamodb.config);
    let table = client.describe_table().table_name(&job.table).send().await?.table;
    answer(&json!({ "copies": copies, "rows": table.and_then(|table| table.item_count) }))
}

/// How many objects a bucket has, but those of the program itself.
pub(crate) async fn objects_in(bucket: &dyn ObjectRead) -> Result<usize> {
    let (mut after, mut objects) = (None, 0);
    loop {
        let page = bucket.list("", after.as_ref(), LIST_PAGE).await?;
        objects += page.items.iter().filter(|listed| !listed.key.as_str().starts_with(RESERVED_PREFIX)).count();
        after = page.next;
        if after.is_none() {
            return Ok(objects);
        }
    }
}
