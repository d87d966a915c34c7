//! The table itself: made once, and checked whenever a catalog is opened on it. A table of another shape is refused, with
//! every difference by name, before anything is written to it.

use super::is_unknown;
use super::layout::{COPY_KEY, DISOWNED_AT, EXPIRES_AT, INDEX, ORIGINAL_KEY, STATUS};
use crate::error_map::Call;
use crate::limits::{TABLE_LOOK_WAIT, TABLE_LOOKS_MAX};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::operation::create_table::builders::CreateTableFluentBuilder;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, IndexStatus, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType, TableDescription, TableStatus, TimeToLiveSpecification, TimeToLiveStatus,
};
use engine::error::{ErrorKind, PortError, PortResult};
use engine::ports::clock::Clock;

/// The attributes of keys, and their types.
const TYPES: [(&str, ScalarAttributeType); 4] = [
    (ORIGINAL_KEY, ScalarAttributeType::S),
    (COPY_KEY, ScalarAttributeType::S),
    (STATUS, ScalarAttributeType::S),
    (DISOWNED_AT, ScalarAttributeType::N),
];

/// Refuses a table that is none of a catalog's, with every difference; the table's ARN, where the service gives one.
pub async fn check_table(client: &Client, table: &str) -> PortResult<Option<String>> {
    let call = Call::new("check catalog table", "dynamodb:DescribeTable", table);
    let found = describe(client, table, &call).await?;
    let mut differences = differences(&found);
    differences.extend(ttl_difference(client, table).await?);
    if differences.is_empty() {
        return Ok(found.table_arn);
    }
    let why = format!("it is no table of a catalog: {}", differences.join("; "));
    Err(call.failed(ErrorKind::NotSetUp(why)))
}

/// Makes the table, billed on demand, and waits until it is ready; one that is there already is only checked. A crash
/// half-way leaves a table that the next call completes.
pub async fn create_table(client: &Client, table: &str, clock: &dyn Clock) -> PortResult<()> {
    let call = Call::new("create catalog table", "dynamodb:CreateTable", table);
    let wanted = wanted(client, table).map_err(|error| {
        call.failed(ErrorKind::Internal("the table's description is not whole".to_owned())).because(error)
    })?;
    if let Err(error) = wanted.send().await
        && !matches!(error.as_service_error(), Some(CreateTableError::ResourceInUseException(_)))
    {
        return Err(call.sdk(error));
    }
    wait_until_ready(client, table, clock).await?;
    if ttl_difference(client, table).await?.is_some() {
        switch_ttl_on(client, table).await?;
    }
    check_table(client, table).await.map(drop)
}

fn wanted(client: &Client, table: &str) -> Result<CreateTableFluentBuilder, aws_sdk_dynamodb::error::BuildError> {
    let key = |name: &str, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build();
    let mut request = client.create_table().table_name(table).billing_mode(BillingMode::PayPerRequest);
    for (name, kind) in TYPES {
        let definition = AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build()?;
        request = request.attribute_definitions(definition);
    }
    request = request.key_schema(key(ORIGINAL_KEY, KeyType::Hash)?).key_schema(key(COPY_KEY, KeyType::Range)?);
    let index = GlobalSecondaryIndex::builder()
        .index_name(INDEX)
        .key_schema(key(STATUS, KeyType::Hash)?)
        .key_schema(key(DISOWNED_AT, KeyType::Range)?)
        .projection(Projection::builder().projection_type(ProjectionType::KeysOnly).build())
        .build()?;
    Ok(request.global_secondary_indexes(index))
}

/// The attributes of a table's key: that of the partition first.
pub(crate) fn key_names(found: &TableDescription) -> Vec<String> {
    let mut schema: Vec<&KeySchemaElement> = found.key_schema().iter().collect();
    schema.sort_by_key(|part| part.key_type() != &KeyType::Hash);
    schema.into_iter().map(|part| part.attribute_name().to_owned()).collect()
}

/// The attributes of the key of somebody's table.
pub async fn key_of_table(client: &Client, table: &str) -> PortResult<Vec<String>> {
    let call = Call::new("look at table", "dynamodb:DescribeTable", table);
    describe(client, table, &call).await.map(|found| key_names(&found))
}

async fn describe(client: &Client, table: &str, call: &Call) -> PortResult<TableDescription> {
    let answer = client.describe_table().table_name(table).send().await.map_err(|error| call.sdk(error))?;
    answer.table.ok_or_else(|| call.failed(ErrorKind::Unavailable))
}

async fn wait_until_ready(client: &Client, table: &str, clock: &dyn Clock) -> PortResult<()> {
    let call = Call::new("wait for catalog table", "dynamodb:DescribeTable", table);
    for look in 0..TABLE_LOOKS_MAX {
        if look > 0 {
            clock.sleep(TABLE_LOOK_WAIT).await;
        }
        // A table that has just been asked for may not be known yet.
        let found = match describe(client, table, &call).await {
            Err(PortError { kind: ErrorKind::Missing, .. }) => continue,
            found => found?,
        };
        let index = found.global_secondary_indexes().iter().find(|index| index.index_name() == Some(INDEX));
        let index_ready = index.is_none_or(|index| is_ready(index.index_status()));
        if found.table_status().is_none_or(|status| *status == TableStatus::Active) && index_ready {
            return Ok(());
        }
    }
    Err(call.failed(ErrorKind::Unavailable))
}

fn is_ready(index: Option<&IndexStatus>) -> bool {
    index.is_none_or(|status| *status == IndexStatus::Active)
}

async fn switch_ttl_on(client: &Client, table: &str) -> PortResult<()> {
    let call = Call::new("switch time to live on", "dynamodb:UpdateTimeToLive", table);
    let wanted = TimeToLiveSpecification::builder().enabled(true).attribute_name(EXPIRES_AT).build();
    let wanted = wanted
        .map_err(|error| call.failed(ErrorKind::Internal("the attribute has no name".to_owned())).because(error))?;
    match client.update_time_to_live().table_name(table).time_to_live_specification(wanted).send().await {
        Ok(_) => Ok(()),
        // Somebody else has just done it, or did it otherwise: the check that follows tells.
        Err(error) if error.code() == Some("ValidationException") => Ok(()),
        Err(error) => Err(call.sdk(error)),
    }
}

/// What differs from a catalog's table, in words.
fn differences(found: &TableDescription) -> Vec<String> {
    let mut told = Vec::new();
    if let Some(status) = found.table_status()
        && ![TableStatus::Active, TableStatus::Updating].contains(status)
    {
        told.push(format!("it is {status}, not ACTIVE"));
    }
    told.extend(key_differences("the table", found.key_schema(), [ORIGINAL_KEY, COPY_KEY]));
    let indexes = found.global_secondary_indexes();
    match indexes.iter().find(|index| index.index_name() == Some(INDEX)) {
        Some(index) => {
            told.extend(key_differences(&format!("index `{INDEX}`"), index.key_schema(), [STATUS, DISOWNED_AT]));
            if !index.index_status().is_none_or(|status| [IndexStatus::Active, IndexStatus::Updating].contains(status))
            {
                told.push(format!("index `{INDEX}` is not ACTIVE"));
            }
        }
        None => told.push(format!("index `{INDEX}` is missing")),
    }
    for (name, kind) in TYPES {
        let definition = found.attribute_definitions().iter().find(|definition| definition.attribute_name() == name);
        // One that is missing is no key, and was told above.
        if let Some(other) = definition.map(AttributeDefinition::attribute_type).filter(|other| **other != kind) {
            told.push(format!("key attribute `{name}` has type {other}, not {kind}"));
        }
    }
    told
}

fn key_differences(of: &str, found: &[KeySchemaElement], wanted: [&str; 2]) -> Vec<String> {
    let kinds = [("partition", KeyType::Hash), ("sort", KeyType::Range)];
    let differs = kinds.into_iter().zip(wanted).filter_map(|((what, kind), name)| {
        let stands = found.iter().find(|element| *element.key_type() == kind).map(KeySchemaElement::attribute_name);
        match stands {
            Some(stands) if stands == name => None,
            Some(stands) => Some(format!("{of} has {what} key `{stands}`, not `{name}`")),
            None => Some(format!("{of} has no {what} key, not `{name}`")),
        }
    });
    differs.collect()
}

/// What differs in how items expire. A service without that leaves it to the cleaner.
async fn ttl_difference(client: &Client, table: &str) -> PortResult<Option<String>> {
    let call = Call::new("check catalog table", "dynamodb:DescribeTimeToLive", table);
    let found = match client.describe_time_to_live().table_name(table).send().await {
        Ok(answer) => answer.time_to_live_description,
        Err(error) if is_unknown(&error) => return Ok(None),
        Err(error) => return Err(call.sdk(error)),
    };
    let is_on = |status: &TimeToLiveStatus| [TimeToLiveStatus::Enabled, TimeToLiveStatus::Enabling].contains(status);
    let found = found.filter(|found| found.time_to_live_status().is_some_and(is_on));
    Ok(match found.as_ref().and_then(|found| found.attribute_name()) {
        Some(EXPIRES_AT) => None,
        Some(other) => Some(format!("items expire by `{other}`, not `{EXPIRES_AT}`")),
        None => Some(format!("items do not expire: time to live must be on, by `{EXPIRES_AT}`")),
    })
}
