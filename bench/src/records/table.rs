//! What a side of a round begins with, and what it leaves, told by the services themselves.

use crate::aws::job::Job;
use crate::aws::setup::objects_in;
use crate::aws::wiring::Endpoint;
use crate::process::{answer, ready};
use anyhow::Result;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType as Scalar,
};
use serde_json::json;
use std::sync::Arc;

/// A worker that makes an empty table whose key is that of the records.
pub(crate) async fn make(job: &Job) -> Result<()> {
    let dynamodb = Endpoint::of(&job.dynamodb, &Arc::default()).await;
    ready()?;
    let client = dynamodb.service.dynamodb(&dynamodb.config);
    let mut create = client.create_table().table_name(&job.table).billing_mode(BillingMode::PayPerRequest);
    for (name, kind) in [("pk", KeyType::Hash), ("sk", KeyType::Range)] {
        create = create
            .key_schema(KeySchemaElement::builder().attribute_name(name).key_type(kind).build()?)
            .attribute_definitions(
                AttributeDefinition::builder().attribute_name(name).attribute_type(Scalar::S).build()?,
            );
    }
    create.send().await?;
    answer(&json!({}))
}

/// A worker that counts the objects of the destination, but those of the program itself.
pub(crate) async fn count(job: &Job) -> Result<()> {
    let s3 = Endpoint::of(&job.s3, &Arc::default()).await;
    ready()?;
    let objects = objects_in(s3.bucket(&job.destination).reader().as_ref()).await?;
    answer(&json!({ "objects": objects }))
}
