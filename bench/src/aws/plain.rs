//! The bare load generator: the handler's calls in the handler's numbers, signed and sent over kept connections without
//! reading what they answer, many at a time. What two servers can do at most, and nothing that anyone could use.

use super::job::{Created, Job};
use crate::client::{Client, Keys};
use crate::process::{answer, ready};
use anyhow::Result;
use futures_util::{StreamExt, TryStreamExt, stream};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

const IN_FLIGHT: usize = 64;
/// The engine looks whether a request is signed, not by whom.
const AUTHORIZATION: &str =
    "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=00";

/// The worker.
pub(crate) async fn drain(job: &Job) -> Result<()> {
    let keys = Keys { access: job.access.clone(), secret: job.secret.clone() };
    let client = Client::of(job.s3.trim_start_matches("http://").parse()?, &job.destination, &keys)?;
    ready()?;
    let sent = stream::iter(0..job.items)
        .map(|n| one(job, &client, n))
        .buffer_unordered(IN_FLIGHT)
        .try_fold(0, async |all, sent| Ok(all + sent));
    let requests = sent.await?;
    answer(&json!({ "done": job.items, "requests": requests }))
}

fn copy_key(job: &Job, created: &Created) -> String {
    format!("{}.{}-{}-{}", created.key, created.time_ms, created.sequencer, job.etag)
}

/// The calls of one event; how many.
async fn one(job: &Job, client: &Client, n: usize) -> Result<usize> {
    let created = job.event(n);
    let name = copy_key(job, &created);
    let copy = client.copy(&name, &format!("{}/{}", job.source, created.key), &job.etag)?;
    client.send(copy.body(Full::default().boxed())?).await?;
    let item = json!({
        "original_key": { "S": created.key }, "copy_key": { "S": name }, "status": { "S": "active" },
        "created_at": { "N": created.time_ms.to_string() }, "etag": { "S": job.etag }, "size": { "N": job.size.to_string() },
    });
    let put = json!({ "Item": item, "ConditionExpression": "attribute_not_exists(copy_key)" });
    dynamodb(job, client, "PutItem", put).await?;
    let query = json!({
        "ConsistentRead": true, "KeyConditionExpression": "original_key = :key",
        "ExpressionAttributeValues": { ":key": { "S": created.key } },
    });
    dynamodb(job, client, "Query", query).await?;
    let Some(surplus) = n.checked_sub(job.keep * job.keys) else { return Ok(3) };
    let surplus = job.event(surplus);
    let name = copy_key(job, &surplus);
    let key = json!({ "original_key": { "S": surplus.key }, "copy_key": { "S": name } });
    let names = json!({ "#status": "status" });
    let claim = json!({
        "Key": key, "UpdateExpression": "SET #status = :disowned, disowned_at = :now, reason = :reason",
        "ConditionExpression": "#status = :active", "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": {
            ":disowned": { "S": "disowned" }, ":active": { "S": "active" }, ":reason": { "S": "surplus" },
            ":now": { "N": created.time_ms.to_string() },
        },
    });
    dynamodb(job, client, "UpdateItem", claim).await?;
    client.delete(&name).await?;
    let delete = json!({
        "Key": key, "ConditionExpression": "#status = :disowned", "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": { ":disowned": { "S": "disowned" } },
    });
    dynamodb(job, client, "DeleteItem", delete).await?;
    Ok(6)
}

async fn dynamodb(job: &Job, client: &Client, operation: &str, mut body: Value) -> Result<()> {
    body["TableName"] = job.table.as_str().into();
    let request = http::Request::post(&job.dynamodb)
        .header("x-amz-target", format!("DynamoDB_20120810.{operation}"))
        .header("content-type", "application/x-amz-json-1.0")
        .header("x-amz-date", "20260101T000000Z")
        .header("authorization", AUTHORIZATION);
    client.send(request.body(Full::new(body.to_string().into()).boxed())?).await.map(drop)
}
